"""Online, semi-online and iterative preference optimization, and XPO: which pairs, from whose replies, at what cost."""

from __future__ import annotations

import dataclasses
import json
import math
import random
from typing import Any

import pytest
import torch
from transformers import LlamaModel

import prefzoo
from conftest import worded
from prefzoo import registry
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.interface import Bench
from prefzoo.judges.build_judge import RandomJudge
from prefzoo.judges.judge import Judge
from prefzoo.judges.pair_labels import chosen_and_rejected, labelled
from prefzoo.lab import MODEL_DIR
from prefzoo.models import shared_beginnings
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.recipe.check_recipe import load
from prefzoo.settings import Generation
from prefzoo.trainers import online_pairs
from prefzoo.trainers.pairwise_trainer import ReplyBatch
from prefzoo.types import Completion
from test_parity import OF_20_STEPS, raw_trl

EVERY_STEP = {"logging_steps": 1}
ONLINE = ["iterative_dpo", "online_dpo", "xpo"]
FAST = [("online_dpo", "qlora"), ("xpo", "full")]


def curve(bench: Bench, training: int = -1) -> list[dict[str, Any]]:
    return [entry for entry in json.loads((bench.out / "curves.json").read_text())[training] if "loss" in entry]


def weights(policy: Any) -> torch.Tensor:
    return torch.cat([w.flatten() for name, w in policy.model.named_parameters() if "lora_" in name])


def of_replies(prompts, completions) -> list[float]:
    """Another score for nearly every reply."""
    return [(sum(map(ord, text)) % 97) / 10 for text in completions]


@pytest.mark.parametrize(
    ("scores", "rule", "expected"),
    [
        ([1.0, 5.0, 3.0, 2.0], "best_worst", (1, 0)),
        ([1.0, 5.0, 1.0, 5.0], "best_worst", (1, 0)),  # the first of several
        ([1.0, 5.0], "mu_minus_2sigma", (1, 0)),
        # mean 145 / 16 = 9.0625, variance 1425 / 16 - 9.0625^2 = 6.934, so that mean - 2 * 2.633 = 3.796
        ([*[10.0] * 7, 0.0, *[10.0] * 7, 5.0], "mu_minus_2sigma", (0, 15)),
        ([*[10.0] * 7, 0.0, *[10.0] * 7, 5.0], "best_worst", (0, 7)),
        # mean 0, standard deviation 10: nearest to -20 are the best themselves
        ([*[1.0] * 100, -100.0], "mu_minus_2sigma", (0, 100)),
        ([2.0, 2.0, 2.0], "mu_minus_2sigma", None),
        ([2.0, 2.0], "best_random", None),
    ],
)
def test_which_reply_is_chosen_and_which_rejected_by_hand(scores, rule, expected) -> None:
    assert chosen_and_rejected(scores, rule, random.Random(0)) == expected


def test_the_best_against_a_random_one_takes_each_worse_reply_as_often() -> None:
    rng = random.Random(0)
    drawn = [chosen_and_rejected([1.0, 4.0, 4.0, 2.0, 3.0], "best_random", rng) for _ in range(600)]
    assert {chosen for chosen, _ in drawn} == {1}
    counts = [sum(rejected == i for _, rejected in drawn) for i in range(5)]
    assert counts[1] == counts[2] == 0 and all(160 < counts[i] < 240 for i in (0, 3, 4))


def test_replies_that_make_no_pair_are_told_apart(make_bench) -> None:
    def reply(text: str, finished: bool = True) -> Completion:
        return Completion(text, (1, 2), finished)

    drawn = [
        [reply("aa"), reply("b"), reply("cccc")],
        [reply("aa"), reply("bb"), reply("cc")],
        [reply("aa"), reply("aa"), reply("cccc", False)],
        [reply("aa"), reply("b", False), reply("cccc", False)],
        [reply("aa"), reply(" "), reply("cccc", False)],
    ]
    prompts = [[{"role": "user", "content": str(i)}] for i in range(5)]
    bench = make_bench().replace(reward=lambda prompts, texts: [float(len(text)) for text in texts])
    found = labelled(bench, "reward", prompts, drawn)
    assert found == [(2, 1, 3.0), "tied_replies", "identical_pair", "unfinished_reply", "empty_reply"]
    assert bench.ledger.reward_calls == 15
    bench = bench.replace(generation=Generation(unfinished="keep"))
    assert labelled(bench, "reward", prompts, drawn)[2:4] == [(2, 0, 2.0), (2, 1, 3.0)]

    def longer(prompts, first, second, questions):
        return [float(len(a) > len(b)) if len(a) != len(b) else 0.5 for a, b in zip(first, second, strict=True)]

    bench = bench.replace(judge=Judge(longer))
    two = [[each[1], each[2]] for each in drawn[:2]]
    assert labelled(bench, "judge", prompts[:2], two) == [(1, 0, None), "tied_replies"]


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("online_dpo", {"learner": "kto"}, "'kto' is no loss on pairs.*iterative_dpo: {learner: kto}"),
        ("online_dpo", {"learner": "ppo"}, "'ppo' does not learn from pairs"),
        ("online_dpo", {"learner": "simpoo"}, "Did you mean 'simpo'"),
        ("online_dpo", {"learner_settings": {"beta": -1}}, "learner_settings.beta: must be above 0"),
        ("online_dpo", {"learner_settings": {"trainer": {}}}, "learner_settings.trainer: there is one training"),
        ("online_dpo", {"trainer": {"beta": 0.2}}, "trainer.beta: cannot be set here .*the loss is the learner's"),
        ("online_dpo", {"trainer": {"precompute_ref_log_probs": True}}, "scores new pairs in each step"),
        ("online_dpo", {"sync": 0}, "sync: must be 1 or more optimizer steps, or once"),
        ("online_dpo", {"sync": "never"}, "sync: .*got 'never'"),
        ("online_dpo", {"n": 1}, "n: must be at least 2"),
        ("online_dpo", {"labeller": "judge", "n": 4}, "n: 4 ranks several replies, and labeller: judge compares two"),
        ("online_dpo", {"labeller": "judge", "pairs": "best_random"}, "pairs: 'best_random' ranks several"),
        ("online_dpo", {"labeller": "judge", "learner": "odpo"}, "labeller: judge gives none"),
        ("iterative_dpo", {"learner": "rlaif"}, "needs judge"),
        ("iterative_dpo", {"learner": "grpo"}, "'grpo' does not learn from pairs"),
        ("xpo", {"trainer": {"loss_type": "ipo"}}, "the loss is the algorithm's own"),
        ("xpo", {"alpha": -1}, "alpha: must be at least 0"),
    ],
)
def test_mistakes_are_told_before_anything_is_loaded(name, settings, says) -> None:
    with pytest.raises(RecipeError, match=says):
        prefzoo.get(name, **settings)


def test_what_is_drawn_on_depends_on_the_labeller_and_the_loss() -> None:
    for name in ONLINE:
        assert prefzoo.get(name).required == {"prompts", "reward"}
        assert prefzoo.get(name, labeller="judge").required == {"prompts", "judge"}
    odpo = {"learner": "odpo", "learner_settings": {"margins": "reward"}}
    assert prefzoo.get("online_dpo", labeller="judge", **odpo).required == {"prompts", "judge", "reward"}


@pytest.mark.parametrize("name", ONLINE)
def test_what_tuning_tries_is_allowed_and_holds_the_default(name) -> None:
    algorithm = prefzoo.get(name)
    assert algorithm.family == "online preferences"
    for setting, tried in algorithm.space.items():
        assert tried.holds(getattr(algorithm, setting)) and tried.source
        for end in (tried.low, tried.high):
            prefzoo.get(name, **{setting: end})
    learner = set() if name == "xpo" else {"learner_settings.beta"}
    rate = "learner_settings.trainer.learning_rate" if name == "iterative_dpo" else "trainer.learning_rate"
    assert set(algorithm.tunable) == {*algorithm.space, *learner, rate}
    assert "n" not in prefzoo.get(name, labeller="judge").tunable


def test_a_recipe_that_does_not_sample_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"generation.temperature: 0 is greedy, and online_dpo, xpo must sample"):
        load({"extends": "base", "algorithms": {"online_dpo": {}, "xpo": {}}}, ["generation.temperature=0"])


@pytest.mark.parametrize("learner", ["dpo", pytest.param("kto", marks=pytest.mark.slow)])
def test_the_start_is_the_reference_of_every_round_of_a_whole_model(learner, make_bench) -> None:
    """The second round begins where the first one ended, away from the start."""
    bench = make_bench("full", learning_rate=3e-4).replace(reward=of_replies)
    settings = {"learner": learner, "learner_settings": {"trainer": EVERY_STEP}}
    prefzoo.get("iterative_dpo", rounds=2, **settings).train(bench)
    first, second = (curve(bench, training)[0]["rewards/chosen"] for training in (0, 1))
    assert abs(first) < 1e-5 < 1e-3 < abs(second)


@pytest.mark.parametrize(
    ("learner", "adapter"),
    [("sppo", "lora"), *(pytest.param("dpo", a, marks=pytest.mark.slow) for a in ("qlora", "full"))],
)
def test_in_self_play_the_policy_of_the_round_before_is_the_reference(learner, adapter, adapted) -> None:
    """Each round begins at log-ratios of 0, and moves the policy, not the reference."""
    settings = {"learner": learner, "learner_settings": {"beta": 0.1, "trainer": {**EVERY_STEP, "learning_rate": 0.01}}}
    benches = {reference: adapted(adapter, name=reference, batch_size=2) for reference in ("latest", "start")}
    for reference, bench in benches.items():
        prefzoo.get("iterative_dpo", rounds=2, reference=reference, **settings).train(bench)
    first = {name: [curve(bench, i)[0]["rewards/chosen"] for i in (0, 1)] for name, bench in benches.items()}
    assert first["latest"] == pytest.approx([0, 0], abs=1e-5)
    assert first["start"][0] == pytest.approx(0, abs=1e-5) and abs(first["start"][1]) > 1e-4
    assert abs(curve(benches["latest"], 1)[-1]["rewards/chosen"]) > 1e-5
    one, other = (dataclasses.replace(bench.ledger, seconds=0) for bench in benches.values())
    assert one.prompts == other.prompts and one.flops == pytest.approx(other.flops, rel=0.2)
    assert benches["latest"].report["model"]["differs"] == []
    assert not (benches["latest"].out / "policy" / "ref").exists(), "where peft would save that adapter"
    sizes = {bench.report["model"]["used"]["parameters"] for bench in benches.values()}
    assert len(sizes) == 1, "without the reference"


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"learner": "simpo"}, "no meaning for learner 'simpo'"),
        ({"learner": "kto"}, "no meaning for learner 'kto'"),
        ({"rounds": 1}, "the start in a single round"),
        ({"learner_settings": {"trainer": {"sync_ref_model": True}}}, "sync_ref_model: the reference is the policy"),
    ],
)
def test_self_play_that_would_be_none_is_refused(settings, says) -> None:
    with pytest.raises(RecipeError, match=says):
        prefzoo.get("iterative_dpo", reference="latest", **settings)


ADAPTED = [
    pytest.param(name, adapter, marks=() if (name, adapter) in FAST else pytest.mark.slow)
    for name in ONLINE
    for adapter in ("lora", "qlora", "full")
]


@pytest.mark.parametrize(("name", "adapter"), ADAPTED)
def test_it_trains_an_adapter_a_quantized_base_and_a_whole_model(name, adapter, adapted) -> None:
    bench = adapted(adapter).replace(generation=Generation(max_new_tokens=6, unfinished="keep"))
    trainer = {"trainer": {"max_steps": 2, "logging_steps": 1}}
    prefzoo.get(name, **({"learner_settings": trainer} if name == "iterative_dpo" else trainer)).train(bench)
    assert bench.report["model"]["differs"] == [] and len(curve(bench)) == 2
    assert all(math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in curve(bench))
    if name != "iterative_dpo":
        assert curve(bench)[0]["rewards/chosen"] == pytest.approx(0, abs=1e-4), "the reference is the start"


@pytest.mark.parametrize(
    ("sync", "sampled_at"), [(1, range(6)), (4, [0, 4]), pytest.param("once", [0], marks=pytest.mark.slow)]
)
def test_the_policy_that_samples_is_as_old_as_it_may_be_and_costs_are_counted(
    sync, sampled_at, make_bench, monkeypatch
) -> None:
    """Each value of `sync` takes as many samples and as many steps. Tokens are counted at the model itself."""
    passed = {True: 0, False: 0}  # with a gradient, and without
    forward, made = LlamaModel.forward, online_pairs.OnlinePairs._made
    moments, asked = [], []

    def counted(self, *args, **more):
        if more.get("past_key_values") is None:
            passed[torch.is_grad_enabled()] += int(more["attention_mask"].sum())
        return forward(self, *args, **more)

    def watched(self, prompts, step):
        moments.append((step, sum(w.double().sum().item() for n, w in self.model.named_parameters() if "lora_B" in n)))
        asked.extend(prompt[0]["content"] for prompt in prompts)
        return made(self, prompts, step)

    bench = make_bench(epochs=2.0).replace(reward=of_replies)
    with monkeypatch.context() as patch:
        patch.setattr(LlamaModel, "forward", counted)
        patch.setattr(online_pairs.OnlinePairs, "_made", watched)
        patch.setattr(shared_beginnings, "put_together", lambda ids, mask: None)  # charged are rows, as if each alone
        prefzoo.get("online_dpo", sync=sync, trainer=EVERY_STEP).train(bench)
    assert [step for step, _ in moments] == list(sampled_at)
    assert len({moved for _, moved in moments}) == len(moments) and moments[0][1] == 0, "as the weights then are"
    everyone = sorted(prompt[0]["content"] for prompt in bench.data.prompts)
    assert sorted(asked[:24]) == sorted(asked[24:]) == everyone and asked[:24] != asked[24:]
    ledger, start = bench.ledger, LanguageModelPolicy.start_of(bench)
    read = 2 * sum(len(start.render([{"role": "user", "content": prompt}])) for prompt in asked)
    assert (ledger.prompts, ledger.reward_calls) == (48, 96)
    assert ledger.trained_tokens == passed[True] > 0 == ledger.judge_calls
    assert ledger.forward_tokens == passed[False] + read and passed[False] == passed[True], "reference; prompts read"
    (counts,) = bench.report["sampled_pairs"]
    assert (
        counts["prompts"] == 48 == sum(n for key, n in counts.items() if key not in ("prompts", "steps_without_pairs"))
    )
    assert len(curve(bench)) == 6 and curve(bench)[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert (bench.machinery.memory, "judge" in bench.report) == ({}, False)


PAIRWISE = [name for name in registry.BUILT_IN if registry.load(name).family == registry.load("dpo").family]


@pytest.mark.slow
@pytest.mark.parametrize("learner", PAIRWISE)
def test_any_loss_on_pairs_learns_online(learner, adapted) -> None:
    bench = adapted("lora").replace(generation=Generation(max_new_tokens=6, unfinished="keep"))
    prefzoo.get("online_dpo", learner=learner, trainer={"max_steps": 2, **EVERY_STEP}).train(bench)
    assert [math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in curve(bench)] == [True, True]
    (counts,) = bench.report["sampled_pairs"]
    assert counts["prompts"] == 16 and counts["pairs"] > 8


def tying(prompts, completions) -> list[float]:
    """Half of the prompts have no better reply."""
    return [
        0.0 if len(p[-1]["content"]) % 2 else s for p, s in zip(prompts, of_replies(prompts, completions), strict=True)
    ]


def test_a_step_is_the_mean_over_its_pairs_however_they_are_divided(make_bench, monkeypatch) -> None:
    trained = {}
    for accumulation in (1, 8):
        bench = make_bench(name=str(accumulation), accumulation=accumulation).replace(reward=tying)
        trained[accumulation] = weights(prefzoo.get("online_dpo", sync="once", trainer=EVERY_STEP).train(bench))
        (counts,) = bench.report["sampled_pairs"]
        assert 0 < counts["tied_replies"] < counts["prompts"] == 24 and len(curve(bench)) == 3
    torch.testing.assert_close(trained[8], trained[1], atol=2e-5, rtol=0)


def test_where_no_reply_is_better_nothing_is_learned_and_that_is_an_error(make_bench) -> None:
    bench = make_bench().replace(reward=lambda prompts, texts: [1.0] * len(texts))
    for name in ("iterative_dpo", "online_dpo"):
        with pytest.raises(PrefzooError, match=r"no pair could be made.*tied_replies"):
            prefzoo.get(name).train(bench.replace(report={}))
    bench = bench.replace(generation=Generation(temperature=0))
    with pytest.raises(PrefzooError, match=r"generation.temperature is 0"):
        prefzoo.get("online_dpo").train(bench)


def test_the_gap_of_rewards_is_the_margin_of_a_loss_that_takes_one(make_bench) -> None:
    """ODPO's first loss is -log sigmoid(-margin), all log-ratios being 0."""
    bench = make_bench(batch_size=24).replace(reward=of_replies)
    gaps: list[float] = []
    rows = registry.load("odpo").rows

    def seen(self, bench):
        gaps.extend(pair["margin"] for pair in bench.data.preferences)
        return rows(self, bench)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.load("odpo"), "rows", seen)
        settings = {"learner": "odpo", "learner_settings": {"scale": "linear"}}
        prefzoo.get("online_dpo", **settings, n=3, pairs="best_random", trainer=EVERY_STEP).train(bench)
    expected = sum(math.log(1 + math.exp(gap)) for gap in gaps) / len(gaps)
    assert min(gaps) > 0 and curve(bench)[0]["loss"] == pytest.approx(expected, abs=1e-4)
    assert bench.ledger.reward_calls == 72


def test_a_judge_labels_pairs_and_is_asked_on_from_where_it_was(make_bench) -> None:
    bench = make_bench().replace(judge=RandomJudge(0))
    prefzoo.get("xpo", labeller="judge").train(bench)
    assert bench.report["judge"]["questions"] == bench.ledger.judge_calls == 48 and bench.ledger.reward_calls == 0
    asked = ([[{"role": "user", "content": "q"}]] * 3, ["a"] * 3, ["b"] * 3)
    one, other = RandomJudge(3), RandomJudge(3)
    one(*asked)
    other.restore(one.state())
    assert other(*asked) == one(*asked) and other.report() == one.report()


def test_the_loss_of_xpo_by_hand() -> None:
    """0.5 * (-3 of the chosen reply, which the start wrote) + ln(1 + e^-(0.2 * (1 - -1))); then of the rejected one."""
    ones = torch.tensor([1.0, 0.0])
    chosen = ReplyBatch(torch.tensor([-3.0, -3.0]), torch.tensor([-4.0, -4.0]), torch.tensor([2, 2]), by_start=ones)
    rejected = ReplyBatch(
        torch.tensor([-6.0, -6.0]), torch.tensor([-5.0, -5.0]), torch.tensor([4, 4]), by_start=1 - ones
    )
    loss = prefzoo.get("xpo", beta=0.2, alpha=0.5).loss(chosen, rejected)
    dpo = math.log(1 + math.exp(-0.4))
    assert loss.tolist() == pytest.approx([dpo - 1.5, dpo - 3.0])


@pytest.mark.parametrize("adapter", ["lora", pytest.param("full", marks=pytest.mark.slow)])
def test_xpo_keeps_the_policy_off_the_reply_of_the_start(adapter, make_bench) -> None:
    """The bonus is on what the start said, whether it was chosen or not; the other reply is the policy's own."""
    bench = make_bench(adapter, batch_size=24, learning_rate=1e-2 if adapter == "lora" else 1e-3, epochs=2.0)
    bench, start = bench.replace(reward=of_replies), LanguageModelPolicy.start_of(bench)
    sample = LanguageModelPolicy.sample
    drawn: list[tuple[Any, ...]] = []
    pairs: list[dict[str, Any]] = []
    rows = registry.load("xpo").rows

    def seen(self, bench):
        pairs.append(bench.data.preferences)
        return rows(self, bench)

    def draw(self, prompts, generation, seed, n=1, ledger=None, progress=None):
        drawn.append((prompts, seed, self.parameters, sample(self, prompts, generation, seed, n, ledger)))
        return drawn[-1][-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry.load("xpo"), "rows", seen)
        patch.setattr(LanguageModelPolicy, "sample", draw)
        prefzoo.get("xpo", alpha=0.5, trainer={**EVERY_STEP, "lr_scheduler_type": "constant"}).train(bench)

    def said(pair: dict[str, Any], by_start: bool) -> float:
        turn = pair["chosen" if (pair["chosen_by_start"] == 1) == by_start else "rejected"][0]
        reply = Completion(turn["content"], tuple(turn["token_ids"]), True)
        return sum(start.log_probabilities([pair["prompt"]], [reply])[0])

    bonus = sum(said(pair, True) for pair in pairs[0]) / len(pairs[0])
    assert curve(bench)[0]["loss"] == pytest.approx(math.log(2) + 0.5 * bonus, abs=1e-3)
    assert {pair["chosen_by_start"] for pair in pairs[0]} == {0.0, 1.0}
    assert bench.ledger.prompts == 48 and bench.ledger.reward_calls == 96
    by_start = [replies == start.sample(prompts, bench.generation, seed) for prompts, seed, _, replies in drawn]
    assert by_start == [True, True, False, True], "before its first step the policy is the start"
    assert [size == start.parameters for _, _, size, _ in drawn] == [adapter == "full", True] * 2, "what is charged"


@pytest.mark.slow
def test_20_online_steps_are_those_of_trls_experimental_trainer(make_bench, tmp_path, monkeypatch) -> None:
    """TRL is given the replies that ours sampled in each step: had the two policies parted, so would the losses."""
    from transformers import AutoModelForCausalLM, set_seed
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer
    from trl.trainer.utils import pad

    steps: list[list[dict[str, Any]]] = []
    batch = online_pairs.OnlinePairs._pass

    def kept(self, rows, pairs, i, passes):
        steps.append(rows)
        assert pairs == len(rows)
        return batch(self, rows, pairs, i, passes)

    monkeypatch.setattr(online_pairs.OnlinePairs, "_pass", kept)
    monkeypatch.setattr(shared_beginnings, "put_together", lambda ids, mask: None)
    bench = make_bench(epochs=10.0).replace(reward=worded)
    ours = prefzoo.get("online_dpo", learner_settings={"beta": 1.0}, trainer=OF_20_STEPS).train(bench)

    class Given(OnlineDPOTrainer):
        def training_step(self, model, inputs, num_items_in_batch=None):
            self.rows = steps[self.state.global_step]
            return super().training_step(model, {"prompt": inputs["prompt"][: len(self.rows)]}, num_items_in_batch)

        def _generate(self, model, prompts, images=None):
            def padded(name: str, side: str) -> list[torch.Tensor]:
                ids = [torch.tensor(row[name]) for row in self.rows]
                return [pad(each, value, side) for each, value in ((ids, 0), ([torch.ones_like(i) for i in ids], 0))]

            prompt, mask = padded("prompt_ids", "left")
            replies = [torch.tensor(row[side]) for side in ("chosen_ids", "rejected_ids") for row in self.rows]
            ones = [torch.ones_like(reply) for reply in replies]
            return prompt.repeat(2, 1), mask.repeat(2, 1), pad(replies, 0), pad(ones, 0), None

    def first_half(prompts, **more):
        return [float(2 * i < len(prompts)) for i in range(len(prompts))]

    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(str(MODEL_DIR), dtype=torch.float32)
    rows = [{"prompt": prompt} for prompt in bench.data.prompts]
    config = {"beta": 1.0, "disable_dropout": False, "missing_eos_penalty": None}
    classes = {"trainer_class": Given, "config_class": OnlineDPOConfig}
    trained = raw_trl(
        "OnlineDPO", model, rows, str(tmp_path / "raw"), config, first_half, **classes, task_type="CAUSAL_LM"
    )
    theirs = [entry["loss"] for entry in trained.state.log_history if "loss" in entry]
    assert [entry["loss"] for entry in curve(bench)] == pytest.approx(theirs, abs=6e-5)  # theirs have four digits
    assert len(theirs) == 20 and max(theirs) - min(theirs) > 1e-2
    assert torch.allclose(weights(ours), weights(trained), atol=1e-5)
