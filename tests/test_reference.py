"""The reference's log-probabilities of pairs are taken once, are those of the start, and are charged to every trial."""

from __future__ import annotations

import dataclasses
import inspect
import json
import math

import pytest
import torch

from prefzoo import get
from prefzoo.data.row_views import views_of
from prefzoo.errors import RecipeError
from prefzoo.ledger import CHARGES, Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.run.stages.shared_work import SHARED_WORK, SharedWork
from prefzoo.run.worker import clear
from prefzoo.trainers import checkpoints
from prefzoo.trainers.reference import PrecomputedReference
from test_resume import Killed, killed_at, made, same

EVERY_STEP = {"logging_steps": 1}
PER_STEP = {**EVERY_STEP, "precompute_ref_log_probs": False}


@pytest.fixture
def bench(make_bench, lab_rows, tmp_path):
    """Makes the bench of another trial on the same 8 pairs, with work shared or not."""

    def make(name: str = "trial", adapter: str = "lora", shared: bool = True, epochs: float = 1.0, **training):
        trial = make_bench(adapter, epochs=epochs, name=name, **{"batch_size": 4, **training})
        return trial.replace(
            data=views_of(lab_rows[:8]),
            reuse=SharedWork(tmp_path / SHARED_WORK) if shared else None,
            loading={"dtype": "float32", "quantization": trial.adapter.quantization},
            ledger=Ledger(),
            report={},
        )

    return make


@pytest.fixture
def passed(monkeypatch):
    """How many pairs were passed through the reference beforehand, call by call."""
    counts: list[int] = []
    original = PrecomputedReference._compute

    def counted(self, batches):
        counts.append(sum(map(len, batches)))
        return original(self, batches)

    monkeypatch.setattr(PrecomputedReference, "_compute", counted)
    return counts


def losses(bench) -> list[float]:
    return [entry["loss"] for entry in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in entry]


def charged(bench):
    return {name: getattr(bench.ledger, name) for name in CHARGES}


@pytest.mark.parametrize("adapter", ["lora", "qlora", "full"])
def test_the_first_loss_is_ln_2_and_all_are_those_of_a_reference_in_each_step(bench, passed, adapter) -> None:
    before, each_step = (bench(name, adapter, epochs=2.0) for name in ("before", "each step"))
    if adapter != "full":  # dropout draws random numbers, which must come as if nothing had been passed before
        dropping = before.adapter.model_copy(update={"dropout": 0.2})
        before, each_step = before.replace(adapter=dropping), each_step.replace(adapter=dropping)
    get("dpo", trainer=EVERY_STEP).train(before)
    assert passed == [8]
    get("dpo", trainer=PER_STEP).train(each_step)
    assert passed == [8]
    assert losses(before)[0] == pytest.approx(math.log(2), abs=1e-5)
    assert losses(before) == pytest.approx(losses(each_step), abs=1e-5)
    assert losses(before)[-1] < math.log(2) - 1e-3
    assert 2 * before.ledger.forward_tokens == each_step.ledger.forward_tokens, "one pass, not one in each epoch"
    assert before.ledger.trained_tokens == each_step.ledger.trained_tokens == 2 * before.ledger.forward_tokens


class Clock:
    """Stands in the place of the `time` module: a second later at each look, and ten after each pass."""

    def __init__(self, passed: list[int]) -> None:
        self.passed, self.looks = passed, 0

    def perf_counter(self) -> float:
        self.looks += 1
        return self.looks + 10.0 * len(self.passed)


def test_seeds_labels_and_shuffled_pairs_share_one_pass_and_each_pays_for_it(bench, passed, monkeypatch) -> None:
    monkeypatch.setattr("prefzoo.run.stages.shared_work.time", Clock(passed))
    alone, alone_8 = bench("alone", shared=False), bench("alone 8", shared=False).replace(seed=8)
    for each in (alone, alone_8):
        get("dpo", trainer=EVERY_STEP).train(each)
    trials = {name: bench(name) for name in ("first", "seed", "beta", "shuffled")}
    trials["seed"] = trials["seed"].replace(seed=8)
    data = trials["shuffled"].data.with_shuffled_labels(0)
    assert data.preferences != alone.data.preferences
    turned = dataclasses.replace(data, preferences=data.preferences[::-1])
    trials["shuffled"] = trials["shuffled"].replace(data=turned)
    for name, each in trials.items():
        get("dpo", beta=0.5 if name == "beta" else 0.1, trainer=EVERY_STEP).train(each)
        assert charged(each) == charged(alone)
        assert losses(each)[0] == pytest.approx(math.log(2), abs=1e-5), name
    assert passed == [8, 8, 8], "by each that shares nothing, and by the first of the others"
    assert losses(trials["first"]) == losses(alone), "the same bits, shared or not"
    assert losses(trials["seed"]) == losses(alone_8) != losses(alone), "and computed by the trial itself or by another"
    assert "reused" not in trials["first"].report
    for name in ("seed", "beta", "shuffled"):
        noted = trials[name].report["reused"]
        assert noted["forward_tokens"] == alone.ledger.forward_tokens > 0
        assert (noted["seconds"], trials[name].ledger.seconds) == (11, 10), "less the one in which it was read"


def test_what_changes_the_numbers_has_them_computed_anew(bench, passed, tmp_path) -> None:
    get("dpo").train(bench("one"))
    fewer = bench("pairs")
    moved = LanguageModelPolicy.from_start(fewer.start)
    with torch.no_grad():
        moved.model.model.norm.weight.mul_(1.01)
    moved.export(tmp_path / "moved")
    changed = {
        "pairs": (fewer.replace(data=dataclasses.replace(fewer.data, preferences=fewer.data.preferences[:7])), {}),
        "batches": (bench("batches", batch_size=2), {}),
        "ld_alpha": (bench("ld_alpha"), {"ld_alpha": 0.5}),
        "weights": (bench("weights").replace(start=str(tmp_path / "moved")), {}),
    }
    for name, (trial, trainer) in changed.items():
        get("dpo", beta=1.0, trainer={**EVERY_STEP, **trainer}).train(trial)
        assert "reused" not in trial.report, name
        assert losses(trial)[0] == pytest.approx(math.log(2), abs=1e-5), name
    assert passed == [8, 7, 8, 8, 8]


@pytest.mark.learning  # bfloat16 is slow on many processors
def test_under_autocast_it_is_computed_anew_and_rounded_as_the_policy_is(bench, passed) -> None:
    get("dpo").train(bench("float32"))
    trial = bench("bfloat16", bf16=True)
    get("dpo", beta=1.0, trainer={**EVERY_STEP, "precompute_ref_log_probs": True, "max_steps": 1}).train(trial)
    assert losses(trial)[0] == pytest.approx(math.log(2), abs=5e-3) and passed == [8, 8]


def test_a_later_round_is_held_to_the_start_and_not_to_the_round_before(bench, passed) -> None:
    round_one = bench("one", epochs=2.0, learning_rate=3e-3)
    latest = get("dpo").train(round_one)
    found = {}
    for name, trainer in (("before", EVERY_STEP), ("each step", PER_STEP)):
        trial = bench(name, shared=False).replace(latest=latest)
        get("dpo", trainer=trainer).train(trial)
        found[name] = losses(trial)
        latest = load_policy(round_one.out / "policy")
    assert found["before"] == pytest.approx(found["each step"], abs=1e-5)
    assert found["before"][0] < math.log(2) - 0.05 and passed == [8, 8]


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_ours_are_those_of_trl_bit_for_bit_where_batches_are_alike(bench, adapter, monkeypatch) -> None:
    """One pair at a time, for TRL takes pairs as they come and ours are in an order of their own."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    from prefzoo.models.adapters import adapter_config
    from prefzoo.trainers import fitting
    from prefzoo.trainers.trainer_arguments import arguments

    ran = []
    run = fitting.run_trainer
    monkeypatch.setattr(fitting, "run_trainer", lambda trainer, *more: (ran.append(trainer), run(trainer, *more)))
    trial = bench(adapter=adapter)
    settings = {"precompute_ref_log_probs": True, "precompute_ref_batch_size": 1, "max_steps": 1}
    get("dpo", trainer=settings).train(trial)
    [ours] = ran
    start = LanguageModelPolicy.from_start(trial.start)
    theirs = DPOTrainer(
        model=start.model,
        args=arguments(trial, DPOConfig, settings),
        train_dataset=Dataset.from_list(trial.data.preferences),
        processing_class=start.tokenizer,
        peft_config=adapter_config(trial.adapter, "CAUSAL_LM"),
    )
    for column in ("ref_chosen_logps", "ref_rejected_logps"):
        assert ours.train_dataset[column][:] == theirs.train_dataset[column][:]
    assert ours.ref_model is None, "no second model in memory"


@pytest.mark.faults
def test_killed_and_resumed_is_as_never_killed_and_keeps_the_time_that_the_pass_took(
    bench, passed, monkeypatch, tmp_path
) -> None:
    whole = bench("whole", shared=False, epochs=2.0)
    get("dpo", trainer=EVERY_STEP).train(whole)
    with pytest.raises(Killed), monkeypatch.context() as patch:
        patch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
        get("dpo", trainer=EVERY_STEP).train(bench("killed", epochs=2.0).replace(progress=killed_at(3)))
    [kept] = (tmp_path / SHARED_WORK).glob("references-*.json")
    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "seconds": 1000.0}))
    fresh = bench("killed", epochs=2.0)
    clear(fresh.out)
    get("dpo", trainer=EVERY_STEP).train(fresh)
    assert fresh.report["resumed_at_step"] == 2 and passed == [8, 8]
    same(made(fresh, "policy"), made(whole, "policy"))
    assert 990 < fresh.ledger.seconds < 1060, "what the killed process computed is read, and charged once"


def test_a_training_that_does_not_see_every_pair_asks_in_each_step(bench, passed) -> None:
    for epochs, trainer in ((0.5, {}), (1.0, {"max_steps": 1})):
        trial = bench(f"{epochs}", epochs=epochs)
        get("dpo", trainer={**EVERY_STEP, **trainer}).train(trial)
        assert trial.ledger.forward_tokens == trial.ledger.trained_tokens > 0
    assert passed == []


def test_a_reference_that_moves_is_not_taken_beforehand(bench, passed) -> None:
    trial = bench(adapter="full")
    moving = {"sync_ref_model": True, "ref_model_sync_steps": 1}
    get("dpo", trainer={**EVERY_STEP, **moving}).train(trial)
    assert passed == [] and trial.ledger.forward_tokens == trial.ledger.trained_tokens
    with pytest.raises(RecipeError, match=r"precompute_ref_log_probs.*sync_ref_model.*one of the two"):
        get("dpo", trainer={"precompute_ref_log_probs": True, **moving})


@pytest.mark.parametrize(
    ("method", "parameters"),
    [
        ("_precompute_ref_logps", ["self", "dataset", "name", "batch_size"]),
        ("compute_ref_log_probs", ["self", "model", "inputs"]),
    ],
)
def test_the_seams_to_trl_are_where_they_were(method, parameters) -> None:
    from trl import DPOTrainer

    found = list(inspect.signature(getattr(DPOTrainer, method)).parameters)
    assert found == parameters, f"TRL changed DPOTrainer.{method}; see trainers/reference.py"
