"""Explanations of rewards: against values worked out by hand, whatever the batch, the tokenizer and the reply."""

from __future__ import annotations

import json
import random
import runpy
import sys
from pathlib import Path
from statistics import fmean
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from prefzoo.commands.explain_rewards import nearest, overlap
from prefzoo.errors import PrefzooError
from prefzoo.judges.judge import Judge
from prefzoo.lab import MODEL_DIR
from prefzoo.lab import prompts as lab_prompts
from prefzoo.lab.clerk import ReplyPlan, write
from prefzoo.lab.world import read_prompt
from prefzoo.models.loading import load_tokenizer
from prefzoo.models.score_head import load_score_model
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.explained_replies import EXPLANATIONS, Explained
from prefzoo.report.render_pages import render_html, render_markdown
from prefzoo.report.replies_section import replies_section
from prefzoo.rewards import integrated_gradients
from prefzoo.rewards.attribution import Piece, attribute, baseline_token, token_spans
from prefzoo.rewards.load_reward import Ensemble, RandomReward, WeightedSum
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages import gold_metric
from prefzoo.run.stages.gold_metric import principle_scores
from reported import made

PROMPTS = [[{"role": "user", "content": text}] for text in ("Is it open?", "How much is the red lamp?", "Hi")]
REPLICATION = Path(__file__).parents[1] / "benchmarks" / "replications" / "reward_attribution.py"
REPLIES = ["Yes, the café is open 😀 today.", "Nine.", "Hello, what can I do for you?"]


class Linear(torch.nn.Module):
    """Scores by w . (sum of the embeddings of attended tokens)."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.embed = torch.nn.Embedding(vocabulary, 8)
        self.embed.weight.data = torch.randn(vocabulary, 8, generator=generator)
        self.weights = torch.randn(8, generator=generator)
        self.base_model_prefix = "none"

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.embed


class LinearReward(RewardModel):
    def forward(self, **padded: torch.Tensor) -> torch.Tensor:
        states = self.model.embed(padded["input_ids"]) * padded["attention_mask"].unsqueeze(-1)
        return (states @ self.model.weights).sum(1)


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(MODEL_DIR), replies=False)


@pytest.fixture(scope="module")
def bundled(tokenizer):
    torch.manual_seed(0)
    return RewardModel(load_score_model(str(MODEL_DIR)), tokenizer, MODEL_DIR, {}, None)


def values(found) -> list[float]:
    return [piece.value for piece in found.pieces]


def test_gradients_of_a_linear_reward_are_the_weights_times_what_differs(tokenizer) -> None:
    pytest.importorskip("captum")
    reward = LinearReward(Linear(len(tokenizer)), tokenizer, MODEL_DIR, {}, None)  # type: ignore[arg-type]
    table, w = reward.model.embed.weight, reward.model.weights
    for prompt, reply, found in zip(PROMPTS, REPLIES, attribute(reward, PROMPTS, REPLIES), strict=True):
        row = reward.tokens(prompt, reply)
        places = token_spans(reward, prompt, reply, row)
        expected = [
            sum(float(w @ (table.data[row["input_ids"][k]] - table.data[baseline_token(tokenizer)])) for k in at)
            for at in places.values()
        ]
        assert values(found) == pytest.approx(expected, abs=1e-4)
        assert [(p.begin, p.end) for p in found.pieces] == list(places)
        assert "".join(reply[p.begin : p.end] for p in found.pieces) == reply  # each character once, in order
        assert found.error < 1e-4


def test_ablation_of_a_sum_over_words_is_exact() -> None:
    worth = {"good": 2.0, "bad": -1.5, "好": 3.0}

    def reward(prompts, completions):
        return [sum(each * text.count(word) for word, each in worth.items()) for text in completions]

    reply = "good  and bad, 好坏 end"
    (found,) = attribute(reward, PROMPTS[:1], [reply])  # type: ignore[arg-type]
    assert [reply[p.begin : p.end] for p in found.pieces] == ["good", "and", "bad,", "好", "坏", "end"]
    assert values(found) == [2.0, 0.0, -1.5, 3.0, 0.0, 0.0]
    assert (found.score, found.baseline, found.error, found.method) == (3.5, 0.0, 0.0, "ablation")


def test_gradients_are_complete_and_do_not_depend_on_the_batch(bundled) -> None:
    pytest.importorskip("captum")
    together = attribute(bundled, PROMPTS, REPLIES)
    scores = bundled(PROMPTS, REPLIES)
    for i, found in enumerate(together):
        (alone,) = attribute(bundled, PROMPTS[i : i + 1], REPLIES[i : i + 1])
        assert values(found) == pytest.approx(values(alone), abs=2e-4)
        assert found.score == pytest.approx(scores[i], abs=1e-4)
        assert found.error < 0.01


class Steep(LinearReward):
    """A step of about a 50th of the line, somewhere within it."""

    def forward(self, **padded: torch.Tensor) -> torch.Tensor:
        return torch.tanh(40 * (super().forward(**padded) - self.middle) / self.width)


def test_where_the_score_is_steep_gradients_are_taken_at_more_points(tokenizer, monkeypatch) -> None:
    pytest.importorskip("captum")
    reward = Steep(Linear(len(tokenizer)), tokenizer, MODEL_DIR, {}, None)  # type: ignore[arg-type]
    plain = LinearReward(reward.model, tokenizer, MODEL_DIR, {}, None)  # type: ignore[arg-type]
    (line,) = attribute(plain, PROMPTS[:1], REPLIES[:1])
    reward.width = line.score - line.baseline
    reward.middle = line.baseline + 0.37 * reward.width
    (found,) = attribute(reward, PROMPTS[:1], REPLIES[:1])
    assert found.error < 0.01 and abs(found.score - found.baseline) == pytest.approx(2.0, abs=1e-3)
    step = (found.score - found.baseline) / reward.width  # the gradient's direction is the same everywhere
    assert values(found) == pytest.approx([step * value for value in values(line)], abs=0.02)
    monkeypatch.setattr(integrated_gradients, "HALVINGS", 0)
    (coarse,) = attribute(reward, PROMPTS[:1], REPLIES[:1])
    assert coarse.error > 0.01  # and says so


def test_what_comes_before_the_reply_is_read_once_and_changes_nothing(bundled, monkeypatch) -> None:
    pytest.importorskip("captum")
    lengths: list[int] = []
    inner = bundled.model.model
    handle = inner.layers[0].register_forward_hook(lambda _, args, out: lengths.append(args[0].shape[1]))
    once = attribute(bundled, PROMPTS, REPLIES)
    longest = max(len(bundled.tokens(*each)["input_ids"]) for each in zip(PROMPTS, REPLIES, strict=True))
    assert max(lengths) < longest
    monkeypatch.setattr(integrated_gradients, "has_full_attention", lambda _: False)
    lengths.clear()
    whole = attribute(bundled, PROMPTS, REPLIES)
    handle.remove()
    assert max(lengths) == longest and "forward" not in vars(inner)
    for one, other in zip(once, whole, strict=True):
        assert values(one) == pytest.approx(values(other), abs=2e-4)
        assert (one.score, one.baseline) == pytest.approx((other.score, other.baseline), abs=1e-5)


@pytest.mark.parametrize("kind", ["gpt2", "opt", "gemma", "phi"])
def test_every_kind_of_model_reads_on_behind_the_prompt(kind, tokenizer, tmp_path, monkeypatch) -> None:
    pytest.importorskip("captum")
    own = {
        "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4},
        "opt": {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "num_hidden_layers": 2,
                "num_attention_heads": 4},
    }  # fmt: skip
    usual = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
             "num_key_value_heads": 2, "head_dim": 8}  # fmt: skip
    ids = {"vocab_size": len(tokenizer), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **ids, **own.get(kind, usual)))
    for weight in model.parameters():
        if weight.dim() > 1:
            torch.nn.init.normal_(weight, std=0.15)
    model.save_pretrained(tmp_path)
    reward = RewardModel(load_score_model(str(tmp_path)), tokenizer, tmp_path, {}, None)
    once = attribute(reward, PROMPTS, REPLIES)
    monkeypatch.setattr(integrated_gradients, "has_full_attention", lambda _: False)
    for one, other, score in zip(once, attribute(reward, PROMPTS, REPLIES), reward(PROMPTS, REPLIES), strict=True):
        assert max(map(abs, values(one))) > 1e-3
        assert values(one) == pytest.approx(values(other), abs=1e-4)
        assert one.score == pytest.approx(score, abs=1e-5) and one.error < 0.01


def test_an_empty_reply_has_no_pieces_and_a_long_one_has_all(bundled) -> None:
    pytest.importorskip("captum")
    empty, long = attribute(bundled, PROMPTS[:2], ["", "It is open. " * 12])
    assert (empty.pieces, empty.error) == ([], 0.0)
    assert empty.score == pytest.approx(empty.baseline)
    assert long.pieces[-1].end >= len(("It is open. " * 12).rstrip()) and long.method == "gradients"


def test_sums_of_reward_models_have_gradients_and_other_rewards_say_that_they_have_none(bundled) -> None:
    pytest.importorskip("captum")
    (one,) = attribute(bundled, PROMPTS[1:2], REPLIES[1:2])
    mean = Ensemble([bundled, bundled], "mean")
    (whole,) = attribute(WeightedSum([mean, bundled], [2.0, -0.5]), PROMPTS[1:2], REPLIES[1:2])
    assert values(whole) == pytest.approx([1.5 * value for value in values(one)], abs=1e-4)
    assert whole.score == pytest.approx(1.5 * one.score, abs=1e-4)
    for other in (
        RandomReward(0),
        Ensemble([bundled, bundled], "min"),
        WeightedSum([bundled, RandomReward(0)], [1, 1]),
    ):
        assert attribute(other, PROMPTS[:1], ["Yes."])[0].method == "ablation"
        with pytest.raises(PrefzooError, match=r"gradients.*allowed: ablation"):
            attribute(other, PROMPTS[:1], ["Yes."], "gradients")


def test_without_captum_it_says_what_to_install(bundled, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    with pytest.raises(PrefzooError, match=r"prefzoo\[explain\]"):
        attribute(bundled, PROMPTS[:1], ["Yes."])


def test_tokens_of_an_encoder_that_lowers_letters_are_found_in_the_reply_alone() -> None:
    words = ["[UNK]", "[CLS]", "[SEP]", "is", "it", "open", "yes", ".", "?"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.normalizer, inner.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner)
    reply = "Yes, IT is."
    row = {"input_ids": tokenizer("Is it open?", reply)["input_ids"]}
    found = token_spans(SimpleNamespace(tokenizer=tokenizer), PROMPTS[0], reply, row)  # type: ignore[arg-type]
    assert {reply[slice(*span)]: places for span, places in found.items()} == {
        "Yes": [6], ",": [7], "IT": [8], "is": [9], ".": [10],
    }  # fmt: skip


def test_the_nearest_reply_shares_most_words_and_is_another() -> None:
    group = {
        label: {"reply": reply, "proxy": score}
        for label, reply, score in (("a", "The lamp costs 9", 1.0), ("b", "The lamp costs 9", 1.0),
                                    ("c", "the lamp costs 7", -1.0), ("d", "No.", 0.0))
    }  # fmt: skip
    assert nearest("a", group) == {"label": "c", "reply": "the lamp costs 7", "score": -1.0, "overlap": 3 / 5}
    assert nearest("a", {"a": group["a"], "b": group["b"]}) is None
    assert overlap("", "") == 1.0


def explanation(reply: str, score: float) -> dict:
    return {
        "prompt": [{"role": "user", "content": "<b>?"}], "label": "dpo", "reply": reply, "method": "ablation",
        "score": score, "baseline": 0.0, "error": 0.004, "pieces": [[0, 3, 0.75], [4, 12, -0.25]],
        "parts": {"kind": 0.5}, "dimensions": {},
        "nearest": {"label": "start", "reply": "x", "score": 0.1, "overlap": 0.5},
    }  # fmt: skip


def test_the_report_shows_numbers_beside_colours_and_no_explanation_of_another_reward(tmp_path: Path) -> None:
    results = made(tmp_path)
    (tmp_path / EXPLANATIONS).write_text(json.dumps(explanation("a|b <script>", 0.5)) + "\n")
    section = replies_section(results, tmp_path)
    page, text = render_html([section]), render_markdown([section])
    assert '<span class="for" style="--heat: 1.00" title="+0.750">a|b</span> ' in page
    assert '<span class="against" style="--heat: 0.33" title="-0.250">&lt;script&gt;</span>' in page
    assert (
        "&lt;script&gt;&nbsp;-0.250" in page and "<script>" not in page.replace("<script>\n", "").split("</style>")[0]
    )
    for medium in (page, text):
        assert "Most weight: “a" in medium and "+0.75" in medium and "Nearest other reply (start, 50%" in medium
    assert "0.4% of it" in text and "kind +0.50" in text
    (tmp_path / EXPLANATIONS).write_text(json.dumps(explanation("a|b <script>", 0.9)) + "\n")
    assert "Most weight" not in render_html([replies_section(results, tmp_path)])
    (tmp_path / EXPLANATIONS).write_text("{}\n")
    with pytest.raises(PrefzooError, match=r"explanations\.jsonl cannot be read .*prefzoo explain"):
        replies_section(results, tmp_path)


def test_segments_join_to_the_reply() -> None:
    each = Explained(explanation("a|b <script> and", 0.5))
    assert "".join(segment.text for segment in each.segments) == "a|b <script> and"


def test_principles_are_told_where_the_judge_can_be_asked_about_one(tmp_path, monkeypatch) -> None:
    def told(prompt: str, reply: str, other: str, **recipe) -> dict:
        plan = make_plan(recipes.check({"algorithms": {"rlaif": {}}, **recipe}), tmp_path)
        return principle_scores(plan, [[{"role": "user", "content": prompt}]], [reply], [other])[0]

    scene = next(row for row in lab_prompts("test", 50, 0) if row["slice"] == "harmful")["prompt"]
    texts = [write(read_prompt(scene), ReplyPlan(kind), random.Random(0)) for kind in ("refuse", "comply")]
    by_truth = told(scene, *texts, judge={"type": "gold"}, constitution="lab")
    assert by_truth["harmlessness"] == 1.0 and by_truth["restraint"] == 0.5 and "all" not in by_truth
    assert told(scene, *texts, judge={"type": "gold"}) == {}  # no constitution is followed
    assert told(scene, *texts, constitution="lab") == {}  # the lab's model compares as a whole
    assert told(scene, *texts, algorithms={"dpo": {}}, judge={"type": "gold"}, constitution="lab") == {}  # not learned

    file = tmp_path / "own.yaml"
    shared = "critique: c, revision: r"
    file.write_text(
        "critique_prompt: '{{ reply }}'\nrevision_prompt: '{{ reply }}'\nprinciples:\n"
        f'  - {{id: short, {shared}, preference: "Shorter?"}}\n  - {{id: never, {shared}, preference: x, where: zzz}}\n'
        f'  - {{id: mute, {shared}, preference: "Unreadable?"}}\n'
    )
    answers = {"Shorter?": lambda x, y: float(len(x) < len(y)), "Unreadable?": lambda x, y: None}
    judge = Judge(lambda prompts, x, y, asked: [answers[q](a, b) for a, b, q in zip(x, y, asked, strict=True)])
    monkeypatch.setattr(gold_metric, "judge_of", lambda *_: judge)
    endpoint = {"type": "openai", "endpoint": {"base_url": "http://localhost:1/v1", "model": "m"}}
    found = told(scene, "No.", "By all means.", judge=endpoint, constitution=str(file))
    assert found == {"short": 1.0, "mute": None}
    said = " ".join(Explained({**explanation("x", 0.5), "principles": {**found, "kind": 0.2, "even": 0.5}}).sentences)
    assert "for it short 1.00; against it kind 0.20; neither even 0.50; no answer could be read about mute" in said


@pytest.mark.learning
def test_what_is_wrong_with_a_reply_carries_most_of_what_is_against_it(tmp_path) -> None:
    """By ablation, of a trained reward model and of one with random weights."""
    program = runpy.run_path(str(REPLICATION))
    flawed = [each for name in ("correctness", "courtesy", "restraint") for each in program["flawed_replies"](name, 15)]
    shares = {}
    rewards = {"trained": program["trained_reward"](0, 1200, tmp_path), "random": program["random_reward"](0)}
    for kind, reward in rewards.items():
        found = attribute(reward, [each.prompt for each in flawed], [each.reply for each in flawed], "ablation")
        pairs = list(zip(found, flawed, strict=True))
        shares[kind] = fmean(program["share_on"](a.pieces, f.begin, f.end, True) for a, f in pairs)
        equal = [[Piece(p.begin, p.end, -1.0) for p in a.pieces] for a, _ in pairs]
        shares["uniform"] = fmean(
            program["share_on"](pieces, f.begin, f.end, True) for pieces, f in zip(equal, flawed, strict=True)
        )
    assert shares["trained"] > shares["uniform"] + 0.15 and shares["trained"] > 0.5
    assert shares["random"] < shares["uniform"] + 0.1
