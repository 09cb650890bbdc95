"""Reward models of any architecture, ours and given ones: what they read, where they score, whose code runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

import prefzoo
from prefzoo import get
from prefzoo.data.formats import Row
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.loading import load_model, load_tokenizer
from prefzoo.models.policy_kinds import POLICY_FILE, load_policy
from prefzoo.models.score_head import backbone, hidden_width, load_score_model, with_score_head
from prefzoo.recipe import check_recipe as recipes
from prefzoo.rewards.reward_files import relative_path, reward_label
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.reward_text import pair_of_texts
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.run.stages.given_rewards import given_reward_problems
from prefzoo.scoring_function import FunctionReward
from prefzoo.settings import Adapter
from prefzoo.stored_code import allowing, check_code, code_in

PROMPTS = [
    [{"role": "user", "content": text}] for text in ("Is it open?", "How much is the red lamp, and the book?", "Hi")
]
REPLIES = ["Yes.", "The lamp is nine euros and the book is four euros.", "Hello, what can I do?"]
LIKE_LLAMA = {"num_key_value_heads": 2, "head_dim": 16}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "granite": LIKE_LLAMA,
    "olmoe": {"num_experts": 4, "num_experts_per_tok": 2, **LIKE_LLAMA},
    "gemma4_text": LIKE_LLAMA,
    "llama4_text": {"num_local_experts": 2, "num_experts_per_tok": 1, "intermediate_size_mlp": 64, **LIKE_LLAMA},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "opt": {"word_embed_proj_dim": 32, "ffn_dim": 64},
}
"""Causal language models; transformers has no classifier for the first four, and OPT's last states are narrow."""


@pytest.fixture
def language_model(tmp_path):
    """Makes a tiny language model of an architecture, with the lab's tokenizer or another one."""

    def make(kind: str, tokenizer: Any = None, **more: Any) -> str:
        tokenizer = tokenizer or load_tokenizer(str(MODEL_DIR))
        sizes = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
        ids = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
        own = {
            **sizes,
            **ids,
            "max_position_embeddings": 512,
            "vocab_size": len(tokenizer),
            **ARCHITECTURES.get(kind, {}),
        }
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **{**own, **more}))
        for weight in model.parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.15)
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return str(tmp_path / kind)

    return make


@pytest.fixture
def one_special_token(tmp_path):
    """A tokenizer whose only special token is bos, eos, unk and pad; its template ends each turn with it."""
    content = json.loads((MODEL_DIR / "tokenizer.json").read_text())
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] == "<|end|>"]
    (tmp_path / "one.json").write_text(json.dumps(content))
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token", "pad_token"), "<|end|>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "one.json"), **names)
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"
    return tokenizer


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_score_is_the_head_on_the_last_attended_state_for_every_architecture(kind, language_model, tmp_path) -> None:
    folder = language_model(kind)
    torch.manual_seed(1)
    scorer = load_score_model(folder).eval()
    ids = torch.randint(5, 600, (3, 9))
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    with torch.no_grad():
        causal = load_model(folder).eval()
        states = backbone(causal)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        assert states.shape[-1] == hidden_width(causal.config)
        expected = torch.stack([states[0, 8], states[1, 5], states[2, 8]]) @ scorer.score.weight[0]
        scores = scorer(ids, mask).logits[:, 0]
        torch.testing.assert_close(scores, expected, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(scorer(ids[1:2, :6]).logits[0, 0], scores[1], atol=1e-5, rtol=1e-5)
        shared = with_score_head(causal)
        shared.score.weight.copy_(scorer.score.weight)
        torch.testing.assert_close(shared(ids, mask).logits[:, 0], scores, atol=1e-6, rtol=1e-6)
        scorer.save_pretrained(tmp_path / "saved")
        again = load_score_model(str(tmp_path / "saved"), draw_head=False).eval()
        torch.testing.assert_close(again(ids, mask).logits[:, 0], scores, atol=1e-6, rtol=1e-6)
    with pytest.raises(PrefzooError, match=r"has no weights for score\.weight"):
        load_score_model(folder, draw_head=False)


@pytest.mark.parametrize(("kind", "adapter"), [("olmoe", "lora"), ("llama4_text", "qlora"), ("granite", "full")])
def test_a_reward_model_is_trained_and_comes_back_without_a_classifier_class(
    kind, adapter, language_model, make_bench
) -> None:
    block = Adapter(type=adapter, **({} if adapter == "full" else {"r": 4, "alpha": 8, "target_modules": ["q_proj"]}))
    loading = {"dtype": "float32", "quantization": block.quantization}
    bench = make_bench(learning_rate=5e-3).replace(start=language_model(kind), adapter=block, loading=loading)
    model = train_reward_model(bench, {"max_steps": 1})
    scores = model(PROMPTS, REPLIES)
    assert len(set(scores)) == 3
    assert RewardModel.load(str(model.folder), loading)(PROMPTS, REPLIES) == pytest.approx(scores, abs=1e-6)
    critic, _ = model.critic(model.tokenizer)  # is trained whole, which 4 bits do not allow
    assert all(weight.is_floating_point() for weight in critic.parameters())


def test_it_is_scored_where_it_was_trained_though_the_pad_token_ends_its_turns(
    language_model, one_special_token, make_bench
) -> None:
    bench = make_bench(learning_rate=0.0).replace(start=language_model("gpt2", one_special_token))
    model = train_reward_model(bench, {"logging_steps": 1})
    assert model.tokenizer.pad_token_id == model.tokenizer.eos_token_id
    curves = json.loads((bench.out / "curves.json").read_text())[-1]
    losses = [entry["loss"] for entry in curves if "loss" in entry]
    pairs = bench.data.preferences
    good, bad = (
        torch.tensor(model([p["prompt"] for p in pairs], [p[side][0]["content"] for p in pairs]))
        for side in ("chosen", "rejected")
    )
    by_scores = -torch.nn.functional.logsigmoid(good - bad).mean().item()
    assert sum(losses) / len(losses) == pytest.approx(by_scores, abs=1e-5)
    scores = model(PROMPTS, REPLIES)
    assert [model([p], [r])[0] for p, r in zip(PROMPTS, REPLIES, strict=True)] == pytest.approx(scores, abs=1e-5)
    model.tokenizer.pad_token = "a"
    assert model(PROMPTS, REPLIES) == pytest.approx(scores, abs=1e-6)


def test_the_head_is_drawn_on_the_cpu_whatever_the_device_would_draw(monkeypatch) -> None:
    from transformers.models.llama.modeling_llama import LlamaPreTrainedModel

    def of_the_device(self, module) -> None:
        if isinstance(module, torch.nn.Linear):
            module.weight.data.fill_(99.0)
            torch.rand(7)

    monkeypatch.setattr(LlamaPreTrainedModel, "_init_weights", of_the_device)
    torch.manual_seed(3)
    drawn = load_score_model(str(MODEL_DIR)).score.weight
    after = torch.rand(1)
    torch.manual_seed(3)
    expected = torch.empty(drawn.shape).normal_(0.0, AutoConfig.from_pretrained(MODEL_DIR).initializer_range)
    assert torch.equal(drawn, expected) and torch.equal(after, torch.rand(1))


def test_ppo_learns_on_narrow_hidden_states(language_model, make_bench) -> None:
    bench = make_bench().replace(start=language_model("opt"), adapter=Adapter(r=4, alpha=8, target_modules=["q_proj"]))
    reward = train_reward_model(bench, {"max_steps": 1})
    for value_model in ("shared", "reward"):
        trial = bench.replace(reward=reward, out=bench.out / value_model)
        get("ppo", value_model=value_model, trainer={"max_steps": 1}).train(trial)


ENCODERS_WORDS = "yes no red blue lamp open closed the is it a book how much euros"


@pytest.fixture
def encoder(tmp_path):
    """Makes a tiny classifier on an encoder, whose tokenizer knows pairs of texts and has no chat template."""

    def make(kind: str, **more: Any) -> Path:
        words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *ENCODERS_WORDS.split()]
        raw = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
        raw.pre_tokenizer = pre_tokenizers.Whitespace()
        raw.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
        inputs = ["input_ids", "token_type_ids", "attention_mask"][:: 1 if kind != "distilbert" else 2]
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, model_input_names=inputs, **names)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
        sizes |= {"max_position_embeddings": 48, "vocab_size": len(words), "pad_token_id": 0, "type_vocab_size": 2}
        if kind == "distilbert":
            sizes = {
                "dim": 16,
                "n_layers": 1,
                "n_heads": 2,
                "hidden_dim": 16,
                "vocab_size": len(words),
                "pad_token_id": 0,
            }
        if kind == "deberta-v2":
            sizes |= {"relative_attention": True, "position_biased_input": False, "pos_att_type": ["p2c", "c2p"]}
        torch.manual_seed(0)
        config = AutoConfig.for_model(kind, **{"num_labels": 1, **sizes, **more})
        model = AutoModelForSequenceClassification.from_config(config)
        for weight in model.parameters():
            torch.nn.init.normal_(weight, std=0.5)
        model.save_pretrained(tmp_path / kind)
        tokenizer.save_pretrained(tmp_path / kind)
        return tmp_path / kind

    return make


def by_its_own_forward(folder: Path, prompt, reply: str) -> list[float]:
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        return model(**tokenizer(prompt[0]["content"], reply, return_tensors="pt")).logits[0].tolist()


@pytest.mark.parametrize("labels", [1, 2])
@pytest.mark.parametrize("kind", ["bert", "roberta", "deberta-v2", "distilbert"])
def test_an_encoder_scores_a_pair_of_texts_as_its_own_forward_does(kind, labels, encoder) -> None:
    folder = encoder(kind, num_labels=labels)
    prompts = [[{"role": "user", "content": text}] for text in ("is it open", "how much is the red lamp")]
    replies = ["yes", "the lamp is a book no red blue euros"]
    reward = RewardModel.load(str(folder))
    scores = reward(prompts, replies)
    logits = [by_its_own_forward(folder, p, r) for p, r in zip(prompts, replies, strict=True)]
    expected = [row[0] if labels == 1 else row[1] - row[0] for row in logits]
    assert scores == pytest.approx(expected, abs=1e-4) and abs(scores[0] - scores[1]) > 1e-3
    assert reward(prompts[:1], replies[:1]) == pytest.approx(scores[:1], abs=1e-4)
    with pytest.raises(PrefzooError, match="has no single head on the last token"):
        reward.critic(reward.tokenizer)


@pytest.mark.parametrize(("kind", "limit"), [("bert", 48), ("roberta", 47)])
def test_an_encoder_reads_as_much_as_it_has_positions(kind, limit, encoder) -> None:
    """RoBERTa numbers its first token one above the pad token's id, which is 0 here."""
    reward = RewardModel.load(str(encoder(kind)))
    prompt = [{"role": "user", "content": "red " * (limit - 4)}]  # [CLS], two [SEP] and the reply's word
    assert len(reward([prompt], ["yes"])) == 1
    with pytest.raises(PrefzooError, match=f"has {limit} positions, and a prompt with its reply takes {limit + 1}"):
        reward([prompt], ["yes no"])


def test_several_turns_are_one_text_with_the_speakers_before_them() -> None:
    turns = [("system", "Be kind."), ("user", "Hi"), ("assistant", "Hello"), ("user", "Open?")]
    prompt = [{"role": role, "content": text} for role, text in turns]
    assert pair_of_texts(prompt, "Yes.") == ("Be kind.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Open?", "Yes.")


@pytest.mark.parametrize(
    ("config", "good"),
    [
        ({"id2label": {"0": "LABEL_0"}}, None),
        ({"num_labels": 1}, None),
        ({}, 1),
        ({"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}, 1),
        ({"id2label": {"0": "Chosen", "1": "Rejected"}}, 0),
        ({"id2label": {"0": "NEGATIVE", "1": "POSITIVE"}}, 1),
        ({"id2label": {"0": "neutral", "1": "toxic"}}, "of which the good one is not known"),
        ({"id2label": {"0": "good", "1": "better"}}, "of which the good one is not known"),
        ({"id2label": {"0": "a", "1": "b", "2": "c"}}, "has 3 labels"),
        ({"num_labels": 5}, "has 5 labels"),
        ({"problem_type": "multi_label_classification"}, "that are no alternatives"),
    ],
    ids=str,
)
def test_which_label_of_a_classifier_is_the_good_one(config, good, tmp_path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = {"algorithms": {"ppo": {}}, "reward": {"type": "path", "path": str(tmp_path)}}
    if not isinstance(good, str):
        assert reward_label(config) == good
        return
    with pytest.raises(ValueError, match=good):
        reward_label(config)
    with pytest.raises(RecipeError, match=f"reward.path: '{tmp_path}' .*{good}"):
        recipes.check(recipe)


@pytest.mark.parametrize("pad", ["the end", "none", "another"])
def test_a_decoder_that_was_trained_elsewhere_scores_as_its_own_forward_does_alone(
    pad, language_model, one_special_token, tmp_path
) -> None:
    folder = language_model("gpt2", one_special_token)
    torch.manual_seed(0)
    ids = {"the end": one_special_token.eos_token_id, "none": None, "another": 7}
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1, pad_token_id=ids[pad]).eval()
    model.save_pretrained(tmp_path / "given")
    one_special_token.save_pretrained(tmp_path / "given")
    alone = []
    for prompt, reply in zip(PROMPTS, REPLIES, strict=True):
        turns = [*prompt, {"role": "assistant", "content": reply}]
        row = torch.tensor([one_special_token.apply_chat_template(turns, return_dict=False)])
        with torch.no_grad():
            alone.append(model(input_ids=row).logits[0, 0].item())
    assert RewardModel.load(str(tmp_path / "given"))(PROMPTS, REPLIES) == pytest.approx(alone, abs=1e-5)


def test_rows_that_a_given_models_chat_template_refuses_are_named(language_model, tmp_path) -> None:
    tokenizer = load_tokenizer(str(MODEL_DIR))
    tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{% for m in messages %}{{ m.content + eos_token }}{% endfor %}"
    )
    folder = language_model("gpt2", tokenizer)
    rows = [Row(f"pairs.jsonl line {i + 1}", prompt, "Yes.", "No.") for i, prompt in enumerate(PROMPTS)]
    recipe = recipes.check({"algorithms": {"dpo": {}}}).model_copy()
    recipe = recipe.model_copy(update={"reward": recipe.reward.model_copy(update={"type": "path", "path": folder})})
    assert given_reward_problems(recipe, rows, {}, 40, 200, "Lower it.") == []
    with_system = [{"role": "system", "content": "Be kind."}, *PROMPTS[2]]
    (problem,) = given_reward_problems(recipe, [*rows[:2], Row(rows[2].id, with_system)], {}, 40, 200, "Lower it.")
    assert problem.startswith(
        f"reward.path: the chat template of {folder!r} refuses 1 of 3 prompts, first that of pairs.jsonl line 3 "
        "(turns of system, user): System role not supported."
    )
    long = Row("line 4", [{"role": "user", "content": "lamp " * 600}])
    (problem,) = given_reward_problems(recipe, [long], {}, 40, 9000, "Lower it.")
    assert "has 512 positions, and a prompt with a reply to it takes up to" in problem


TRAP = "import pathlib\npathlib.Path({!r}).touch()\n"


@pytest.fixture
def trapped(tmp_path):
    """A copy of the lab's model whose tokenizer is code of its own, which writes a file when it runs."""
    import shutil

    folder, written = tmp_path / "trapped", tmp_path / "written"
    shutil.copytree(MODEL_DIR, folder)
    (folder / "trap.py").write_text(
        TRAP.format(str(written)) + "from transformers import PreTrainedTokenizerFast\n"
        "class Trap(PreTrainedTokenizerFast):\n    pass\n"
    )
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings |= {"tokenizer_class": "Trap", "auto_map": {"AutoTokenizer": [None, "trap.Trap"]}}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return folder, written


def test_a_reward_models_folder_does_not_switch_remote_code_on(trapped) -> None:
    folder, written = trapped
    load_score_model(str(folder)).save_pretrained(folder)
    (folder / "reward.json").write_text(json.dumps({"loading": {"trust_remote_code": True}}))
    for loading in (None, {"trust_remote_code": False}):
        try:
            RewardModel.load(str(folder), loading)
        except ValueError as error:
            assert "trust_remote_code" in str(error)
        assert not written.exists()
    RewardModel.load(str(folder), {"trust_remote_code": True})
    assert written.exists()


def test_a_policys_folder_runs_code_only_where_the_caller_says_so(trapped, tmp_path) -> None:
    start, written = trapped
    function = tmp_path / "score.py"
    function.write_text(
        TRAP.format(str(written)) + "def score(prompts, completions):\n    return [0.0] * len(prompts)\n"
    )
    reward = {"type": "sum", "of": [{"type": "function", "path": f"{function}:score"}], "weights": [1.0]}
    judged = {"type": "judge", "by": "grade", "judge": {"settings": {"type": "gold"}, "gold": f"{function}:score"}}
    contents = [
        {"kind": "model", "start": str(start), "loading": {"trust_remote_code": True}},
        {"kind": "best_of_n", "start": str(MODEL_DIR), "n": 2, "loading": {}, "reward": reward},
        {"kind": "best_of_n", "start": str(MODEL_DIR), "n": 2, "loading": {}, "reward": judged},
    ]
    for content in contents:
        (start / POLICY_FILE).write_text(json.dumps({**content, "start_is_relative": False}))
        named = "trust_remote_code" if content["kind"] == "model" else f"{function}:score"
        with pytest.raises(PrefzooError, match=r"would run code: .*--run-code .*run_code=True") as told:
            load_policy(start)
        assert named in str(told.value) and not written.exists()
        with allowing(code_in({"reward": {"path": f"{function}:other"}})), pytest.raises(PrefzooError):
            prefzoo.load_policy(start)
    for content in contents[:2]:
        (start / POLICY_FILE).write_text(json.dumps({**content, "start_is_relative": False}))
        load_policy(start, run_code=True)
        assert written.exists()
        written.unlink()
    with allowing(code_in({"reward": {"path": f"{function}:score"}})):  # as in a stage of a recipe that names it
        load_policy(start)
    assert written.exists()


def test_sample_and_export_have_the_option(tmp_path, monkeypatch) -> None:
    from typer.testing import CliRunner

    from prefzoo.cli import app
    from prefzoo.run.stage_graph import make_plan

    recipe = recipes.check({"algorithms": {"dpo": {}}, "model": {"path": "lab", "trust_remote_code": True}})
    plan = make_plan(recipe, tmp_path)
    plan.save()
    plan.stages["start"].folder.mkdir(parents=True)
    for command in (["sample", str(tmp_path), "Hi"], ["export", str(tmp_path), "start", "--to", str(tmp_path / "x")]):
        refused = CliRunner().invoke(app, command)
        assert refused.exit_code and "would run code: trust_remote_code" in str(refused.exception or refused.output)
        allowed = CliRunner().invoke(app, [*command, "--run-code"])
        assert "would run code" not in str(allowed.exception or allowed.output)


def test_code_is_found_wherever_a_description_names_it() -> None:
    found = code_in({"a": [{"gold": "x.py:f"}, {"b": {"attn_implementation": "someone/kernel"}}], "path": "data.py"})
    assert found == {"x.py:f", "attn_implementation someone/kernel"}
    check_code({"loading": {"trust_remote_code": False, "attn_implementation": "sdpa"}, "path": "lab"}, "here")


def test_a_path_is_relative_to_the_folder_that_a_link_leads_to(tmp_path) -> None:
    (tmp_path / "disk" / "deep" / "run" / "policy").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "reward").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "disk" / "deep")
    for reward in (tmp_path / "link" / "reward", tmp_path / "disk" / "deep" / "reward"):
        for folder in (tmp_path / "link" / "run" / "policy", tmp_path / "disk" / "deep" / "run" / "policy"):
            written = relative_path(reward, folder)
            assert written == "../../reward" and (folder / written).resolve() == reward.resolve()


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('bad luck')", "score raised ValueError: bad luck"),
        ("import sys; sys.exit(3)", "score raised SystemExit: 3"),
        (
            "return None",
            r"score returned 'None', of type NoneType; it must return one number for each of 1 completions",
        ),
        ("return ['much']", r"score returned \"\['much'\]\", of type list"),
        ("return [1, 2]", "score returned 2 scores for 1 completions"),
        ("return [float('nan')]", "score returned nan for the completion 'x'"),
    ],
)
def test_a_function_that_is_no_reward_is_told_in_one_sentence(body, says, tmp_path) -> None:
    file = tmp_path / "own.py"
    file.write_text(f"def score(prompts, completions):\n    {body}\n")
    with pytest.raises(PrefzooError, match=says):
        FunctionReward(f"{file}:score")(PROMPTS[:1], ["x"])
    file.write_text("import nowhere_at_all\ndef score(p, c):\n    return []\n")
    with pytest.raises(PrefzooError, match=r"reward\.path: .*own\.py could not be run: ModuleNotFoundError"):
        FunctionReward(f"{file}:score")


def test_ppo_at_a_mad_learning_rate_says_that_it_diverged(make_bench) -> None:
    class Longest:
        def __call__(self, prompts, completions):
            return [float(len(text)) for text in completions]

    bench = make_bench(learning_rate=1e30).replace(reward=Longest())
    with pytest.raises(PrefzooError, match=r"training diverged: .*; a lower learning_rate usually helps"):
        get("ppo", trainer={"max_steps": 8}).train(bench)
