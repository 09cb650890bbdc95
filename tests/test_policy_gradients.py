"""The losses of policy gradients by name, beside the formulas of their papers in plain arithmetic; their settings,
reward shaping, and what reports say of them."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import LlamaConfig, LlamaForCausalLM
from trl import GRPOTrainer
from trl.rewards import get_soft_overlong_punishment

import prefzoo
from conftest import worded
from prefzoo import registry
from prefzoo.errors import RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.settings import Generation, RewardShaping, Shaping
from prefzoo.trainers import online
from prefzoo.trainers.advantages import generalized_advantages, less_group_mean, potential_rewards, returns_to_go
from prefzoo.trainers.moving_reference import MovingReference
from prefzoo.trainers.on_policy import OnPolicyTrainer
from prefzoo.trainers.reward_shaping import length_terms, prefix_lengths, shaped
from test_parity import losses

CRITIC = ("a2c", "ppo")
TOKENS = (*CRITIC, "reinforce", "reinforce_plus_plus", "reinforce_plus_plus_baseline")

# Two replies, of 2 and 3 tokens: the advantage, and by how much the log-probability of each token has changed.
REPLIES = [(1.5, [0.3, -0.1]), (-2.0, [-0.4, 0.2, 0.05])]
NOW = [[-0.7, -1.1], [-2.0, -0.4, -1.3]]
"""Log-probabilities of their tokens under the policy."""
KL = 0.1
REFERENCE = [[-0.5, -1.0], [-1.5, -0.9, -1.3]]
LONGEST = 8

Term = Callable[[float, float, float], float]


def clipped(low: float, high: float) -> Term:
    return lambda a, r, now: -min(r * a, min(max(r, 1 - low), 1 + high) * a)


def sapo(a: float, r: float, now: float) -> float:
    tau = 1.2 if a > 0 else 1.6
    return -a * 4 / tau / (1 + math.exp(-tau * (r - 1)))


def k3(i: int, t: int) -> float:
    gap = REFERENCE[i][t] - NOW[i][t]
    return math.exp(gap) - gap - 1


def of_tokens(term: Term) -> list[list[float]]:
    return [[term(a, math.exp(d), NOW[i][t]) for t, d in enumerate(row)] for i, (a, row) in enumerate(REPLIES)]


def of_replies(term: Term) -> list[list[float]]:
    """With the geometric mean of a reply's ratios."""
    means = [(a, math.exp(sum(row) / len(row)), row) for a, row in REPLIES]
    return [[term(a, mean, NOW[i][t]) for t in range(len(row))] for i, (a, mean, row) in enumerate(means)]


def with_kl(rows: list[list[float]], ratios: bool = True) -> list[list[float]]:
    """TRL weighs a token's KL with its ratio."""
    changes = [row for _, row in REPLIES]
    return [
        [x + KL * k3(i, t) * (math.exp(changes[i][t]) if ratios else 1) for t, x in enumerate(row)]
        for i, row in enumerate(rows)
    ]


def vespo_terms() -> list[list[float]]:
    rows = []
    for i, (a, changes) in enumerate(REPLIES):
        k, weight = (2.0, 3.0) if a >= 0 else (1.5, 2.5)
        w = math.exp(sum(changes))
        rows.append([-math.exp(weight) * w**k * math.exp(-weight * w) * a * now for now in NOW[i]])
    return rows


def by_reply(rows: list[list[float]]) -> float:
    return sum(sum(row) / len(row) for row in rows) / len(rows)


def by_token(rows: list[list[float]]) -> float:
    return sum(map(sum, rows)) / sum(map(len, rows))


LOSSES: dict[str, tuple[dict[str, Any], float]] = {
    "grpo": ({"clip": 0.1, "kl_coefficient": KL}, by_reply(with_kl(of_tokens(clipped(0.1, 0.1))))),
    "dr_grpo": ({"clip": 0.1}, sum(map(sum, of_tokens(clipped(0.1, 0.1)))) / (2 * LONGEST)),
    "bnpo": ({"clip": 0.1, "clip_high": 0.3}, by_token(of_tokens(clipped(0.1, 0.3)))),
    "dapo": ({}, by_token(of_tokens(clipped(0.2, 0.28)))),
    "cispo": ({"largest_ratio": 1.1}, by_token(of_tokens(lambda a, r, now: -min(r, 1.1) * a * now))),
    "sapo": ({"temperature_positive": 1.2, "temperature_negative": 1.6}, by_reply(of_tokens(sapo))),
    "gspo": ({"clip": 0.01, "clip_high": 0.02}, by_reply(of_replies(clipped(0.01, 0.02)))),
    "luspo": ({"clip": 0.01, "clip_high": 0.02}, sum(map(sum, of_replies(clipped(0.01, 0.02)))) / 2),
    "vespo": ({"k_negative": 1.5, "lambda_negative": 2.5}, by_token(vespo_terms())),
}
"""Settings, and the loss of `REPLIES` as one step."""
OF_GRPO = [name for name in LOSSES if name != "grpo"]


@pytest.fixture
def caught(monkeypatch) -> list[tuple[Any, Any, dict[str, Any], dict[str, Any]]]:
    """What `fit_online` hands on, which trains nothing."""
    calls: list[Any] = []

    def fit(bench: Any, trainer: Any, config: Any, rows: Any, settings: dict[str, Any], **more: Any) -> None:
        calls.append((trainer, config, settings, more))

    monkeypatch.setattr(online, "fit", fit)
    return calls


def padded(rows: list[list[float]]) -> torch.Tensor:
    return torch.nn.utils.rnn.pad_sequence([torch.tensor(row) for row in rows], batch_first=True)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_it_is_the_formula_of_its_paper(name, caught, make_bench, tmp_path, monkeypatch) -> None:
    from datasets import Dataset
    from transformers import AutoTokenizer

    settings, expected = LOSSES[name]
    bench = make_bench().replace(generation=Generation(max_new_tokens=LONGEST))
    prefzoo.get(name, **settings, generations=2).train(bench)
    trainer_class, config_class, given, _ = caught[0]
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR), padding_side="left")
    tiny = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2
    )
    plain = {"use_cpu": True, "bf16": False, "report_to": "none", "per_device_train_batch_size": 2}
    trainer = trainer_class(
        model=LlamaForCausalLM(tiny),
        args=config_class(output_dir=str(tmp_path), **plain, **{**given, "beta": 0.0}),  # it loads no reference
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "?"}]}]),
        processing_class=tokenizer,
        reward_funcs=worded,
    )
    now, changes = padded(NOW), padded([row for _, row in REPLIES])
    monkeypatch.setattr(
        trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: (now, torch.zeros_like(now), None)
    )
    trainer.beta, trainer.current_gradient_accumulation_steps = given["beta"], 1
    monkeypatch.setattr(trainer.args, "steps_per_generation", 1)
    ids = torch.ones(2, 3, dtype=torch.long)
    batch = {
        "prompt_ids": ids,
        "prompt_mask": ids,
        "completion_ids": ids,
        "completion_mask": torch.tensor([[1, 1, 0], [1, 1, 1]]),
        "advantages": torch.tensor([a for a, _ in REPLIES]),
        "old_per_token_logps": now - changes,
        "ref_per_token_logps": padded(REFERENCE),
        "num_items_in_batch": torch.tensor(5.0),
    }
    assert trainer._compute_loss(trainer.model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_every_algorithm_of_the_family_is_in_a_table_and_on_the_page() -> None:
    family = {name for name in registry.BUILT_IN if registry.load(name).family == registry.load("ppo").family}
    assert family == {*LOSSES, *TOKENS, "rloo"}
    page = (Path(__file__).parents[1] / "docs" / "algorithms.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in family)


@pytest.mark.parametrize("name", [*LOSSES, *TOKENS, "rloo"])
def test_what_tuning_tries_is_allowed_and_holds_the_default(name) -> None:
    default = prefzoo.get(name)
    assert default.space
    for setting, tried in default.space.items():
        assert tried.holds(getattr(default, setting)) and tried.source
        for end in (tried.low, tried.high):
            prefzoo.get(name, **{setting: end})


BY_TOKEN, BY_REPLY = "over all tokens of an optimizer step", "over the tokens of each reply, then over replies"
SAID = {
    "grpo": ("TRL's grpo", BY_REPLY, "of a token, 1 throughout: a rollout is used in one step"),
    "dapo": ("TRL's dapo", BY_TOKEN, "of a token, clipped to 0.8 .. 1.28"),
    "cispo": ("TRL's cispo", BY_TOKEN, "of a token, a constant weight of at most 5"),
    "sapo": ("TRL's sapo", BY_REPLY, "of a token, a sigmoid, temperatures 1, 1.05"),
    "gspo": ("TRL's grpo", BY_REPLY, "of a reply, clipped to 0.9997 .. 1.0004"),
    "vespo": ("TRL's vespo", BY_TOKEN, "of a reply, a constant weight that fades away from 1"),
    "ppo": ("clipped policy gradient", BY_TOKEN, "of a token, clipped to 0.8 .. 1.2"),
    "rloo": (
        "clipped policy gradient",
        "over replies, each the sum over its tokens",
        "of a reply, 1 throughout: a rollout is used in one step",
    ),
}


@pytest.mark.parametrize("name", [*LOSSES, *TOKENS, "rloo"])
def test_the_report_says_which_loss_it_was(name, caught, make_bench) -> None:
    bench = make_bench()
    prefzoo.get(name).train(bench)
    said = bench.report["loss"]
    assert {"loss", "averaged", "advantage", "ratio", "updates_a_rollout", "kl"} <= said.keys()
    assert (said["loss"], said["averaged"], said["ratio"]) == SAID.get(
        name, (said["loss"], said["averaged"], said["ratio"])
    )
    assert (said["kl"] == "none") == (prefzoo.get(name).kl_coefficient == 0) == ("reference" not in said)
    divided = "divided by the group's standard deviation" in said["advantage"]
    assert divided == (name in LOSSES and name != "dr_grpo")
    assert all(isinstance(value, str | int | float | bool) for value in said.values())
    assert bench.report.get("shaping") == ({"overlong": 0.2} if name == "dapo" else None)


def test_the_report_says_what_the_recipe_changed_of_it(caught, make_bench) -> None:
    bench = make_bench()
    trainer = {"loss_type": "dr_grpo", "scale_rewards": "none", "use_bias_correction_kl": False}
    trainer["top_entropy_quantile"] = 0.2
    prefzoo.get("grpo", trainer=trainer, entropy_bonus=0.01, epochs=2).train(bench)
    assert bench.report["loss"] == {
        "loss": "TRL's dr_grpo",
        "averaged": "over replies, each the sum over its tokens divided by generation.max_new_tokens",
        "advantage": "reward less the mean of its group",
        "ratio": "of a token, clipped to 0.8 .. 1.2",
        "updates_a_rollout": 2,
        "kl": "0.05 x k3 of a token, in the loss",
        "reference": "the start",
        "entropy_bonus": 0.01,
        "top_entropy_quantile": 0.2,
    }
    prefzoo.get("ppo", reference_decay=0.99).train(bench)
    assert bench.report["loss"]["reference"] == "moving average of the policy, 0.99 of itself a rollout"


def test_settings_are_plain_values_for_trackers_and_exports() -> None:
    settings = {name: registry.settings_of(prefzoo.get(name)) for name in (*LOSSES, *TOKENS, "rloo", "dpo")}
    assert json.loads(json.dumps(settings)) == settings
    assert settings["dapo"]["shaping"] == {"length": 0.0, "overlong": 0.2, "potential": None, "every": 1}
    assert settings["dapo"]["clip_high"] == 0.28


@pytest.mark.parametrize("name", [*LOSSES, *TOKENS])
def test_an_entropy_bonus_reaches_the_trainer_and_none_leaves_what_the_recipe_says(name, caught, make_bench) -> None:
    for settings in ({}, {"entropy_bonus": 0.02}, {"trainer": {"entropy_coef": 0.03}}):
        prefzoo.get(name, **settings).train(make_bench())
    assert [settings.get("entropy_coef") for _, _, settings, _ in caught] == [None, 0.02, 0.03]


def test_a_potential_and_settings_without_a_meaning_are_refused() -> None:
    whole = "shaping.potential: 'prefix_scores' adds up to the same for every reply .* Allowed in ppo, a2c"
    for name, settings, says in (
        ("grpo", {"shaping": {"potential": "prefix_scores"}}, whole),
        ("rloo", {"shaping": {"potential": "prefix_scores"}}, whole),
        ("dapo", {"shaping": {"potential": "prefix_scores"}}, whole),
        ("reinforce", {"shaping": {"potential": "prefix_scores"}}, whole),
        ("ppo", {"shaping": {"every": 4}}, "shaping.every: 4 has no meaning without potential"),
        ("ppo", {"shaping": {"lenght": 1}}, "shaping.lenght: .*Did you mean 'length'"),
        ("ppo", {"reference_decay": 0.9, "kl_coefficient": 0}, "reference_decay moves the reference of the KL"),
        ("cispo", {"clip": 0.2}, "clip: unknown key"),
        ("gspo", {"trainer": {"loss_type": "dapo"}}, "trainer.loss_type: .* the loss is the algorithm's own"),
        ("vespo", {"trainer": {"epsilon": 0.2}}, "trainer.epsilon: .* nothing is clipped in this loss"),
        ("dapo", {"trainer": {"epsilon_high": 0.2}}, "trainer.epsilon_high: .* say `clip_high`"),
    ):
        with pytest.raises(RecipeError, match=says):
            prefzoo.get(name, **settings)


def test_length_terms_by_hand_and_beside_trl() -> None:
    """Of at most 20 tokens, the last fifth are 17 to 20: 16 lose nothing, 18 lose a half, 20 lose 1; 0.01 a token."""
    shaping = RewardShaping(length=0.01, overlong=0.2)
    found = [length_terms(tokens, 20, shaping) for tokens in (3, 16, 17, 18, 20)]
    assert found == pytest.approx([0.03, 0.16, 0.17 + 0.25, 0.18 + 0.5, 0.2 + 1])
    theirs = get_soft_overlong_punishment(max_completion_len=20, soft_punish_cache=4)
    ids = [[1] * tokens for tokens in range(1, 21)]
    ours = [-length_terms(len(row), 20, RewardShaping(overlong=0.2)) for row in ids]
    assert ours == pytest.approx(theirs(prompts=[], completions=[], completion_ids=ids))
    assert length_terms(20, 20, RewardShaping()) == 0


@pytest.mark.parametrize(("unfinished", "name"), [("drop", "grpo"), ("drop", "reinforce"), ("keep", "dapo")])
def test_what_is_taken_off_is_in_the_reward_that_is_learned_from(unfinished, name, adapted) -> None:
    """A score of 0 less 0.1 a token; where cut replies are dropped, also up to 1 in the last half of 6 tokens:
    4 are a third into it, 6 all of it."""
    bench = adapted("lora")
    generation = bench.generation.model_copy(update={"unfinished": unfinished})
    lengths: list[int] = []

    def nothing(prompts: Any, replies: Any) -> list[float]:
        return [0.0] * len(replies)

    own = online.length_terms

    def note(tokens: int, longest: int, shaping: RewardShaping) -> float:
        lengths.append(tokens)
        return own(tokens, longest, shaping)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(online, "length_terms", note)
        settings = {"shaping": {"length": 0.1, "overlong": 0.5}, "missing_eos_penalty": 0}
        settings["trainer"] = {"max_steps": 1, "logging_steps": 1}
        prefzoo.get(name, **settings).train(bench.replace(reward=nothing, generation=generation))
    entry = json.loads((bench.out / "curves.json").read_text())[-1][0]
    punished = {4: 1 / 3, 5: 2 / 3, 6: 1.0} if unfinished == "drop" else {}
    expected = [-0.1 * n - punished.get(n, 0) for n in lengths]
    assert entry["rewards/reward/mean"] == pytest.approx(sum(expected) / len(expected), abs=1e-5)
    assert bench.report["shaping"] == ({"length": 0.1, "overlong": 0.5} if punished else {"length": 0.1})


@pytest.mark.parametrize("gamma", [1.0, 0.9])
def test_a_potential_adds_up_to_what_the_reply_has_no_part_in(gamma) -> None:
    """F is 3, 5, -1, then 0 beyond the end: 5 - 3, -1 - 5, 0 + 1 add up to -3; with gamma 0.9 likewise, discounted.
    The padding's 99 is not among them."""
    potentials = torch.tensor([[3.0, 5.0, -1.0, 99.0], [3.0, 99.0, 99.0, 99.0]])
    mask = torch.tensor([[1.0, 1.0, 1.0, 0.0], [1.0, 0.0, 0.0, 0.0]])
    found = potential_rewards(potentials, mask, gamma)
    torch.testing.assert_close(found[0], torch.tensor([5 * gamma - 3, -gamma - 5, 1.0, 0.0]))
    discounts = gamma ** torch.arange(4.0)
    torch.testing.assert_close((discounts * found).sum(-1), torch.tensor([-3.0, -3.0]))


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 0.3), (0.7, 0.0)])
def test_a_potential_is_a_critic_that_knows_it_already(gamma, lam) -> None:
    """Wiewiora 2003: what is learned with it is what is learned without it by a critic that begins higher by F."""
    draw = torch.Generator().manual_seed(0)
    rewards, values, potentials = torch.randn(3, 5, 6, generator=draw)
    mask = (torch.arange(6) < torch.tensor([6, 5, 4, 2, 1])[:, None]).float()
    added = rewards * mask + potential_rewards(potentials, mask, gamma)
    shaped_ones, _ = generalized_advantages(added, values - potentials, mask, gamma, lam)
    plain, _ = generalized_advantages(rewards * mask, values, mask, gamma, lam)
    torch.testing.assert_close(shaped_ones, plain)


def test_returns_and_group_means_by_hand() -> None:
    mask = torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]])
    found = returns_to_go(torch.tensor([[-0.1, -0.2, 5.0], [1.0, 2.0, 9.0]]), mask)
    torch.testing.assert_close(found, torch.tensor([[4.7, 4.8, 5.0], [3.0, 2.0, 0.0]]))
    found = less_group_mean(torch.tensor([1.0, 3.0, 10.0, 4.0]), 2)
    torch.testing.assert_close(found, torch.tensor([-1.0, 1.0, 3.0, -3.0]))


def test_scores_of_prefixes_are_on_the_scale_of_whole_replies_and_move_it_by_nothing() -> None:
    memory: dict[str, Any] = {}
    shaped([1.0, 3.0], Shaping(normalize=True), memory)  # mean 2, standard deviation 1
    kept = dict(memory)
    assert shaped([5.0, 2.0], Shaping(normalize=True, clip=2.5), memory, learn=False) == [2.5, 0.0]
    assert memory == kept
    assert prefix_lengths(5, 2) == [0, 0, 2, 2, 4] and prefix_lengths(2, 1) == [0, 1]


def noted(monkeypatch, cls: Any, method: str) -> list[Any]:
    """What a method returned each time."""
    kept: list[Any] = []
    own = getattr(cls, method)

    def note(self: Any, *args: Any, **more: Any) -> Any:
        kept.append((self, own(self, *args, **more)))
        return kept[-1][1]

    monkeypatch.setattr(cls, method, note)
    return kept


def test_advantages_of_reinforce_plus_plus_are_whitened_over_the_rollout(make_bench, monkeypatch) -> None:
    """Of a rollout of 2 batches of 8 prompts: mean 0, variance 1; every token's is that of its score less its group's
    mean and less the KL from there on, which is 0 in the first rollout."""
    kept = noted(monkeypatch, OnPolicyTrainer, "_generate_and_score_completions")
    bench = make_bench().replace(reward=worded)
    settings = {"generations": 2, "minibatches": 2, "trainer": {"max_steps": 1}}
    prefzoo.get("reinforce_plus_plus_baseline", **settings).train(bench)
    trainer, batch = kept[0]
    mask = batch["completion_mask"].bool()
    advantages = batch["advantages"][mask].double()
    assert len(mask) == 2 * 2 * 8
    assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
    assert advantages.std(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    scores = trainer._scores[:, 0].double()
    relative = (scores.view(-1, 2) - scores.view(-1, 2).mean(1, keepdim=True)).flatten()[:, None].expand(mask.shape)
    tokens = relative[mask]
    assert ((tokens - tokens.mean()) / tokens.std(unbiased=False)).tolist() == pytest.approx(
        advantages.tolist(), abs=1e-3
    )


def far(prompts, completions) -> list[float]:
    return [5.0 + score for score in worded(prompts, completions)]


def test_ppo_learns_from_the_scores_of_prefixes_and_pays_for_them(make_bench, monkeypatch) -> None:
    """A reply of no tokens scores 5, and is what every return is less by."""
    kept = noted(monkeypatch, OnPolicyTrainer, "_generate_and_score_completions")
    bench = make_bench().replace(reward=far)
    shaping = {"potential": "prefix_scores", "every": 3}
    one_step = {"max_steps": 1, "logging_steps": 1, "learning_rate": 0.0}
    prefzoo.get("ppo", shaping=shaping, missing_eos_penalty=0, epochs=1, trainer=one_step).train(bench)
    first = json.loads((bench.out / "curves.json").read_text())[-1][0]
    assert first["rollout/returns"] == pytest.approx(first["rollout/score"] - 5, abs=1e-4)
    lengths = kept[0][1]["completion_mask"].sum(-1).tolist()
    assert bench.ledger.reward_calls == sum(1 + math.ceil(n / 3) for n in lengths) and len(lengths) == 8
    assert bench.report["shaping"] == shaping
    trainer, batch = kept[0]
    ids = batch["completion_ids"][0, : int(lengths[0])].tolist()
    (row,) = trainer.potential([bench.data.prompts[0]], [ids])
    start = LanguageModelPolicy.from_start(bench.start)
    texts = [start.reply_text(bench.data.prompts[0], ids[: t // 3 * 3]) for t in range(len(ids))]
    assert row == far([], texts)


def adapter_of(bench: Any) -> dict[str, torch.Tensor]:
    return load_file(bench.out / "policy" / "adapter_model.safetensors")


def test_a_larger_batch_is_that_batch(adapted) -> None:
    scaled, plain = adapted("lora", name="scaled"), adapted("lora", name="plain", batch_size=24, accumulation=3)
    for bench, scale in ((scaled, 3), (plain, 1)):
        prefzoo.get("ppo", batch_scale=scale, epochs=2).train(bench)
    one, other = adapter_of(scaled), adapter_of(plain)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert scaled.report["trainings"][0]["training.batch_size"] == 24


@pytest.mark.parametrize("adapter", ["lora", "full", "qdora"])
def test_the_reference_follows_the_policy_before_each_rollout_but_the_first(adapter, adapted, monkeypatch) -> None:
    moved = []
    own = MovingReference.move_reference

    def note(self: Any) -> None:
        before = {name: reference.clone() for name, reference, _ in self._pairs()}
        own(self)
        moved.append([(before[n], ours.clone(), policy.detach().clone()) for n, ours, policy in self._pairs()])

    monkeypatch.setattr(MovingReference, "move_reference", note)
    bench = adapted(adapter)
    log = {"logging_steps": 1}
    policy = prefzoo.get("ppo", reference_decay=0.75, epochs=1, trainer=log).train(bench)
    assert len(moved) == 3
    assert all(torch.equal(before, after) for before, after, _ in moved[0])
    for rollout in moved[1:]:
        for before, after, learned in rollout:
            torch.testing.assert_close(after, 0.75 * before + 0.25 * learned.to(before.dtype))
    assert any(not torch.equal(before, after) for before, after, _ in moved[2])
    curve = [entry for entry in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in entry]
    assert curve[0]["rollout/kl"] == pytest.approx(0, abs=1e-5)
    prompts = bench.data.prompts[:2]
    replies = [each[0] for each in policy.sample(prompts, bench.generation, seed=0)]
    with policy.as_start() as start:
        plain = LanguageModelPolicy.from_start(bench.start, **bench.loading)
        assert start.log_probabilities(prompts, replies) == plain.log_probabilities(prompts, replies)
    assert not [name for name, _ in policy.model.named_parameters() if ".ref." in name]
    assert bench.report["model"]["differs"] == []


def test_a_reference_that_hardly_follows_is_the_start(adapted) -> None:
    """To rounding, what is learned with the start as reference is learned with one that stays there."""
    still, moving = adapted("lora", name="still"), adapted("lora", name="moving")
    prefzoo.get("ppo", epochs=1).train(still)
    prefzoo.get("ppo", epochs=1, reference_decay=1 - 1e-9).train(moving)
    one, other = adapter_of(still), adapter_of(moving)
    assert all(torch.allclose(one[name], other[name], atol=1e-5) for name in one)
    first, last = (losses(json.loads((b.out / "curves.json").read_text())[-1]) for b in (still, moving))
    assert first == pytest.approx(last, abs=1e-5)


@pytest.mark.parametrize("minibatches", [1, 3])
def test_losses_that_differ_in_their_ratios_alone_are_one_where_those_are_1(minibatches, adapted) -> None:
    """Which is why they have several minibatches: all but the first see other ratios."""
    found = []
    for name in ("grpo", "gspo", "sapo"):
        bench = adapted("lora", name=name)
        settings = {"kl_coefficient": 0.0, "generations": 2, "minibatches": minibatches}
        prefzoo.get(name, **settings, trainer={"learning_rate": 1e-2}).train(bench)
        found.append(adapter_of(bench))
    for other in found[1:]:
        alike = all(torch.allclose(found[0][key], other[key], atol=1e-5) for key in other)
        assert alike == (minibatches == 1)


def test_nothing_of_trls_experiments_is_imported() -> None:
    zoo = Path(prefzoo.__file__).parent
    assert not [path for path in zoo.rglob("*.py") if "trl.experimental" in path.read_text(encoding="utf-8")]
    assert issubclass(OnPolicyTrainer, GRPOTrainer)
    assert {field.name for field in dataclasses.fields(registry.load("ppo"))} >= {"batch_scale", "reference_decay"}
