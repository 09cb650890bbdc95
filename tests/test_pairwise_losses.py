"""Every loss on pairs, by name, beside the formula of its paper written out in plain arithmetic; and beside TRL."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import prefzoo
from conftest import worded
from data_files import save
from prefzoo import registry
from prefzoo.data.read_rows import read_rows
from prefzoo.data.row_views import views_of
from prefzoo.data.splits import sha256_of
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.interface import Bench
from prefzoo.lab import MODEL_DIR
from prefzoo.models import shared_beginnings
from prefzoo.rewards.train_reward import train_reward_model
from test_parity import OF_20_STEPS, assert_alike, raw_trl


@dataclass(frozen=True)
class Reply:
    """Log-probabilities of a reply's tokens under the policy and the reference, and the logarithm of the policy's sum
    of squared probabilities at each token."""

    tokens: list[float]
    reference: list[float]
    squares: list[float]

    @property
    def n(self) -> int:
        return len(self.tokens)

    @property
    def p(self) -> float:
        return sum(self.tokens)

    @property
    def ratio(self) -> float:
        return sum(self.tokens) - sum(self.reference)


def nls(x: float) -> float:
    """-log sigmoid(x)."""
    return math.log(1 + math.exp(-x))


def sig(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def exo(c: Reply, r: Reply) -> float:
    q = sig(0.3 * (c.ratio - r.ratio))
    return q * math.log(q / 0.98) + (1 - q) * math.log((1 - q) / 0.02)


def discopop(c: Reply, r: Reply) -> float:
    m = 0.1 * (c.ratio - r.ratio)
    return (1 - sig(m / 0.5)) * nls(m) + sig(m / 0.5) * math.exp(-m)


def ldpo(c: Reply, r: Reply) -> float:
    def ratio(reply: Reply) -> float:
        both = min(c.n, r.n)
        gain = [one - other for one, other in zip(reply.tokens, reply.reference, strict=True)]
        return sum(gain[:both]) + 0.25 * sum(gain[both:])

    return nls(0.2 * (ratio(c) - ratio(r)))


def wpo(c: Reply, r: Reply) -> float:
    weights = [math.exp((x.p - sum(x.squares)) / x.n) for x in (c, r)]
    return weights[0] * weights[1] * nls(0.2 * (c.ratio - r.ratio))


def odds(x: Reply) -> float:
    p = math.exp(x.p / x.n)
    return p / (1 - p)


Pair = Callable[[Reply, Reply], float]
LOSSES: dict[str, tuple[dict[str, Any], Pair]] = {
    "apo_down": ({"beta": 0.2}, lambda c, r: sig(0.2 * c.ratio) + 1 - sig(0.2 * (c.ratio - r.ratio))),
    "apo_zero": ({"beta": 0.2}, lambda c, r: 1 - sig(0.2 * c.ratio) + sig(0.2 * r.ratio)),
    "bco_pair": ({"beta": 0.2}, lambda c, r: nls(0.2 * c.ratio) + nls(-0.2 * r.ratio)),
    "cal_dpo": ({"beta": 0.25}, lambda c, r: nls(c.ratio - r.ratio) + (c.ratio - 2) ** 2 + (r.ratio + 2) ** 2),
    "cdpo": (
        {"beta": 0.2, "label_smoothing": 0.1},
        lambda c, r: 0.9 * nls(0.2 * (c.ratio - r.ratio)) + 0.1 * nls(-0.2 * (c.ratio - r.ratio)),
    ),
    "cpo": ({"beta": 0.2, "cpo_alpha": 0.5}, lambda c, r: nls(0.2 * (c.p - r.p)) - 0.5 * c.p / c.n),
    "discopop": ({"beta": 0.1, "discopop_tau": 0.5}, discopop),
    "dpo": ({"beta": 0.2}, lambda c, r: nls(0.2 * (c.ratio - r.ratio))),
    "dpo_norm": ({"beta": 5}, lambda c, r: nls(5 * (c.ratio / c.n - r.ratio / r.n))),
    "dpop": ({"beta": 0.2, "penalty": 3}, lambda c, r: nls(0.2 * (c.ratio - r.ratio - 3 * max(0, -c.ratio)))),
    "exo": ({"beta": 0.3, "label_smoothing": 0.02}, exo),
    "fdpo": (  # f(t) = t log t - (t + 1) log((t + 1) / 2) has the derivative log(2 t / (t + 1)), t the ratio
        {"beta": 0.4},
        lambda c, r: nls(0.4 * (math.log(2 * sig(c.ratio)) - math.log(2 * sig(r.ratio)))),
    ),
    "hdpo": (
        {"beta": 0.2, "alpha": 0.9},
        lambda c, r: nls(0.2 * (0.9 * (c.p - r.p) - (sum(c.reference) - sum(r.reference)))),
    ),
    "ipo": ({"beta": 0.5}, lambda c, r: (c.ratio / c.n - r.ratio / r.n - 1) ** 2),
    "ldpo": ({"beta": 0.2, "ld_alpha": 0.25}, ldpo),
    "nca": (
        {"beta": 0.2},
        lambda c, r: nls(0.2 * c.ratio) + 0.5 * nls(-0.2 * c.ratio) + 0.5 * nls(-0.2 * r.ratio),
    ),
    "orpo": ({"beta": 0.5}, lambda c, r: -c.p / c.n + 0.5 * nls(math.log(odds(c) / odds(r)))),
    "rdpo": ({"beta": 0.2, "alpha": 0.3}, lambda c, r: nls(0.2 * (c.ratio - r.ratio) + 0.3 * (c.n - r.n))),
    "robust": (
        {"beta": 0.2, "label_smoothing": 0.1},
        lambda c, r: (0.9 * nls(0.2 * (c.ratio - r.ratio)) - 0.1 * nls(-0.2 * (c.ratio - r.ratio))) / 0.8,
    ),
    "rpo": ({"beta": 0.2, "alpha": 0.5}, lambda c, r: nls(0.2 * (c.ratio - r.ratio)) - 0.5 * c.p / c.n),
    "simpo": ({"beta": 2.5, "gamma_beta_ratio": 0.4}, lambda c, r: nls(2.5 * c.p / c.n - 2.5 * r.p / r.n - 1)),
    "slic": ({"delta": 2, "weight": 0.1}, lambda c, r: max(0, 2 - c.p + r.p) - 0.1 * c.p),
    "sppo": ({"beta": 0.25}, lambda c, r: (c.ratio - 2) ** 2 + (r.ratio + 2) ** 2),
    "wpo": ({"beta": 0.2}, wpo),
}


def aot(pairs: list[tuple[Reply, Reply]]) -> float:
    gaps = sorted(c.p - r.p for c, r in pairs)
    reference = sorted(sum(c.reference) - sum(r.reference) for c, r in pairs)
    return sum(nls(0.2 * (x - y)) for x, y in zip(gaps, reference, strict=True)) / len(pairs)


def mpo(pairs: list[tuple[Reply, Reply]]) -> float:
    imitation = -sum(c.p for c, _ in pairs) / sum(c.n for c, _ in pairs)
    others = [0.7 * nls(0.2 * (c.ratio - r.ratio)) + 0.4 * (nls(0.2 * c.ratio) + nls(-0.2 * r.ratio)) for c, r in pairs]
    return sum(others) / len(pairs) + 0.5 * imitation


OF_BATCHES: dict[str, tuple[dict[str, Any], Callable[[list[tuple[Reply, Reply]]], float]]] = {
    "aot": ({"beta": 0.2}, aot),
    "mpo": ({"beta": 0.2, "loss_weights": [0.7, 0.4, 0.5]}, mpo),
}
"""Losses that are no means over pairs."""
PAIRS = [("2 + 2?", "4", "no idea, sorry"), ("capital of France?", "It is Paris.", "Rome"), ("bye", "Bye!", "Go.")]


@pytest.fixture(scope="module")
def models() -> list[LlamaForCausalLM]:
    """A policy and a reference that differ by nats a token."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR))
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        initializer_range=0.3,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    made = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        made.append(LlamaForCausalLM(config).eval())
    return made


@pytest.fixture(scope="module")
def replies(models) -> list[tuple[Reply, Reply]]:
    """Those of `PAIRS`, scored one by one, without padding."""
    tokenizer = AutoTokenizer.from_pretrained(str(MODEL_DIR))

    def scored(prompt: str, text: str) -> Reply:
        turns = [{"role": "user", "content": prompt}, {"role": "assistant", "content": text}]
        begin = len(tokenizer.apply_chat_template(turns[:1], add_generation_prompt=True, return_dict=False))
        ids = tokenizer.apply_chat_template(turns, return_dict=False)
        with torch.no_grad():
            policy, reference = (model(torch.tensor([ids])).logits[0, :-1].log_softmax(-1) for model in models)
        at = range(begin - 1, len(ids) - 1)
        chances = [[float(side[i, ids[i + 1]]) for i in at] for side in (policy, reference)]
        return Reply(*chances, [float((2 * policy[i]).logsumexp(-1)) for i in at])

    return [(scored(prompt, chosen), scored(prompt, rejected)) for prompt, chosen, rejected in PAIRS]


def trainer_of(algorithm: Any, models: list[LlamaForCausalLM], folder: str) -> Any:
    """The algorithm's own trainer on `PAIRS`."""
    from datasets import Dataset
    from trl import DPOConfig

    def turn(role: str, text: str) -> list[dict[str, str]]:
        return [{"role": role, "content": text}]

    rows = [
        {"prompt": turn("user", p), "chosen": turn("assistant", c), "rejected": turn("assistant", r)}
        for p, c, r in PAIRS
    ]
    plain = {"bf16": False, "gradient_checkpointing": False, "report_to": "none", "max_length": None}
    args = DPOConfig(output_dir=folder, use_cpu=True, **plain, **algorithm.trainer_settings())
    return algorithm.trainer_class()(
        model=models[0],
        ref_model=models[1],
        args=args,
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(str(MODEL_DIR)),
    )


@pytest.mark.parametrize("name", sorted({**LOSSES, **OF_BATCHES}))
def test_it_is_the_formula_of_its_paper(name, models, replies, tmp_path) -> None:
    if name in LOSSES:
        settings, of_pair = LOSSES[name]
        expected = sum(of_pair(c, r) for c, r in replies) / len(replies)
    else:
        settings, of_batch = OF_BATCHES[name]
        expected = of_batch(replies)
    trainer = trainer_of(prefzoo.get(name, **settings), models, str(tmp_path))
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(len(PAIRS))])
    assert trainer.compute_loss(trainer.model, batch).item() == pytest.approx(expected, rel=1e-5)


def test_every_algorithm_of_the_family_is_in_the_table() -> None:
    family = {name for name in registry.BUILT_IN if registry.load(name).family == registry.load("dpo").family}
    assert family == {*LOSSES, *OF_BATCHES, "odpo"}, "whose margins have tests of their own"
    page = (Path(__file__).parents[1] / "docs" / "algorithms.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in family)


@pytest.mark.parametrize("name", sorted({**LOSSES, **OF_BATCHES}))
def test_what_tuning_tries_is_allowed_and_holds_the_default(name) -> None:
    default = prefzoo.get(name)
    assert default.space
    for setting, tried in default.space.items():
        assert tried.holds(getattr(default, setting)) and tried.source
        for end in (tried.low, tried.high):
            prefzoo.get(name, **{setting: end})


def test_hyper_parameters_are_set_by_their_names_and_a_loss_is_not_changed_under_trainer() -> None:
    for name, settings, says in (
        ("dpo", {"loss_type": "simpo"}, "'simpo' is an algorithm by itself, not a loss of dpo: say `simpo: {}`"),
        ("dpo", {"label_smoothing": 0.1}, "changes nothing in TRL's sigmoid.*`cdpo`"),
        ("ipo", {"trainer": {"beta": 0.2}}, "trainer.beta: cannot be set here .*; say `beta`"),
        ("simpo", {"trainer": {"loss_type": "hinge"}}, "trainer.loss_type: .* the loss is the algorithm's own"),
        ("simpo", {"trainer": {"sync_ref_model": True}}, "trainer.sync_ref_model: .* the loss has no reference"),
        ("simpo", {"gamma": 1}, "gamma: unknown key"),
        ("exo", {"label_smoothing": 0}, "label_smoothing: must be above 0"),
        ("rdpo", {"trainer": {"precompute_ref_log_probs": True, "sync_ref_model": True}}, "Allowed: one of the two"),
    ):
        with pytest.raises(RecipeError, match=says):
            prefzoo.get(name, **settings)


ADAPTED = [
    pytest.param(
        name, adapter, marks=() if (name, adapter) in (("orpo", "qlora"), ("wpo", "full")) else pytest.mark.slow
    )
    for name in sorted({**LOSSES, **OF_BATCHES, "odpo": None})
    for adapter in ("lora", "qlora", "full")
]


@pytest.mark.parametrize(("name", "adapter"), ADAPTED)
def test_it_trains_an_adapter_a_quantized_base_and_a_whole_model(name, adapter, adapted) -> None:
    bench = adapted(adapter)
    settings = {"margins": "reward"} if name == "odpo" else {}
    prefzoo.get(name, **settings, trainer={"max_steps": 2, "logging_steps": 1}).train(bench)
    curve = [entry for entry in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in entry]
    assert bench.report["model"]["differs"] == [] and len(curve) == 2
    assert all(math.isfinite(entry["loss"]) and entry["grad_norm"] > 0 for entry in curve)
    assert {"rewards/chosen", "rewards/rejected", "rewards/accuracies"} <= curve[0].keys()
    assert (bench.ledger.forward_tokens > 0) == registry.load(name).reference


def beside_trl(
    name: str, settings: dict[str, Any], make_bench: Any, start: str, folder: str, config: dict[str, Any], **raw: Any
) -> None:
    """20 steps of ours and of TRL's, both computing a prompt once for each reply: sharing it rounds otherwise."""
    from transformers import AutoModelForCausalLM, set_seed

    bench = make_bench(epochs=10.0).replace(start=start)
    in_each_step = {"precompute_ref_log_probs": False} if registry.load(name).reference else {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_beginnings, "put_together", lambda ids, mask: None)
        ours = prefzoo.get(name, **settings, trainer={**OF_20_STEPS, **in_each_step}).train(bench)
    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(start, dtype=torch.float32)
    trained = raw_trl("DPO", model, bench.data.preferences, folder, config, task_type="CAUSAL_LM", **raw)
    assert_alike(ours.model, bench, trained, apart=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in LOSSES | OF_BATCHES if hasattr(registry.load(n), "loss_settings")])
def test_20_steps_are_those_of_trls_own_trainer(name, make_bench, base, tmp_path) -> None:
    settings = (LOSSES | OF_BATCHES)[name][0]
    config = {**registry.load(name).loss_settings, **settings, "max_length": None}
    if name == "fdpo":
        config["f_divergence_type"] = "js_divergence"
    beside_trl(name, settings, make_bench, base, str(tmp_path / "raw"), config)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "settings", "config"),
    [
        (
            "simpo",
            {"beta": 2.5, "gamma_beta_ratio": 0.4},
            {"loss_type": "simpo", "cpo_alpha": 0.0, "beta": 2.5, "simpo_gamma": 1.0},
        ),
        ("cpo", {"beta": 0.2, "cpo_alpha": 0.5}, {"beta": 0.2, "cpo_alpha": 0.5}),
        ("orpo", {"beta": 0.5}, {"beta": 0.5}),
    ],
)
def test_20_steps_are_those_of_trls_experimental_trainer(name, settings, config, make_bench, base, tmp_path) -> None:
    """TRL imitates by the mean over all tokens of a batch, ORPO's prompts included; here it imitates as we do."""
    if name == "orpo":
        from trl.experimental.orpo import ORPOConfig as Config
        from trl.experimental.orpo import ORPOTrainer as Trainer
    else:
        from trl.experimental.cpo import CPOConfig as Config
        from trl.experimental.cpo import CPOTrainer as Trainer

    class MeanOfReplies(Trainer):
        def concatenated_forward(self, model, batch):
            found = list(super().concatenated_forward(model, batch))
            lengths = (batch["chosen_labels"] != -100).sum(1)
            found[4] = -(found[0] / (1 if name == "orpo" else lengths)).mean()
            return tuple(found)

    config = {**config, "disable_dropout": False, "max_length": 512}
    classes = {"trainer_class": MeanOfReplies, "config_class": Config}
    beside_trl(name, settings, make_bench, base, str(tmp_path / "raw"), config, **classes)


def with_marked_margins(bench: Bench, margins: list[float]) -> Bench:
    pairs = [{**p, "margin": m} for p, m in zip(bench.data.preferences, margins, strict=False)]
    return bench.replace(
        data=dataclasses.replace(bench.data, preferences=[*pairs, *bench.data.preferences[len(pairs) :]])
    )


@pytest.mark.parametrize(
    ("settings", "offset"),
    [({}, lambda m: math.log(max(m, 0.01))), ({"scale": "linear", "alpha": 0.5}, lambda m: 0.5 * m)],
)
def test_odpo_takes_the_margin_of_each_pair_off(settings, offset, adapted) -> None:
    """At step 0 all log-ratios are 0. Pairs without a margin have 0."""
    margins = [float(i) for i in range(12)]
    bench = with_marked_margins(adapted("lora", batch_size=24), margins)
    prefzoo.get("odpo", **settings, trainer={"max_steps": 1, "logging_steps": 1}).train(bench)
    first = json.loads((bench.out / "curves.json").read_text())[-1][0]["loss"]
    assert first == pytest.approx(sum(nls(-offset(m)) for m in [*margins, *[0.0] * 12]) / 24, abs=1e-4)


def test_odpo_by_reward_takes_the_gap_of_scores_and_pays_for_them(adapted) -> None:
    bench = adapted("lora", batch_size=24)
    assert prefzoo.get("odpo", margins="reward").required == {"preferences", "reward"}
    prefzoo.get("odpo", margins="reward", scale="linear", trainer={"max_steps": 1, "logging_steps": 1}).train(bench)
    pairs = bench.data.preferences
    good, bad = (worded([], [pair[side][0]["content"] for pair in pairs]) for side in ("chosen", "rejected"))
    first = json.loads((bench.out / "curves.json").read_text())[-1][0]["loss"]
    assert first == pytest.approx(sum(nls(y - x) for x, y in zip(good, bad, strict=True)) / 24, abs=1e-4)
    assert bench.ledger.reward_calls == 48


def test_margins_in_the_data_are_read_sealed_and_asked_for(tmp_path, make_bench) -> None:
    said = [{"prompt": "q", "chosen": "a", "rejected": "b", "margin": m} for m in (2, "1.5", None, "much")]
    said = [{**row, "prompt": f"q{i}"} for i, row in enumerate(said)]
    found = read_rows("preferences", str(save(said, tmp_path / "x.jsonl")))
    assert [row.margin for row in found.rows] == [2.0, 1.5, None] and found.unread == []
    assert found.dropped.counts() == {"not_a_number: margin": 1}
    views = views_of(found.rows)
    assert [pair.get("margin") for pair in views.preferences] == [2.0, 1.5, None]
    assert sha256_of(found.rows) != sha256_of([dataclasses.replace(row, margin=None) for row in found.rows])
    with pytest.raises(PrefzooError, match="not one of 24 pairs has a margin"):
        prefzoo.get("odpo").train(make_bench())


@pytest.mark.parametrize("margins", [True, False])
def test_a_reward_model_keeps_the_margin_where_it_is_asked_to(margins, make_bench) -> None:
    bench = with_marked_margins(make_bench(learning_rate=0.0, batch_size=24), [2.0] * 12)
    model = train_reward_model(bench, {"logging_steps": 1}, margins=margins)
    pairs = bench.data.preferences
    good, bad = (
        model([p["prompt"] for p in pairs], [p[s][0]["content"] for p in pairs]) for s in ("chosen", "rejected")
    )
    gaps = [x - y - (2.0 if margins and i < 12 else 0.0) for i, (x, y) in enumerate(zip(good, bad, strict=True))]
    first = json.loads((bench.out / "curves.json").read_text())[-1][0]["loss"]
    assert first == pytest.approx(sum(map(nls, gaps)) / 24, abs=1e-4)
