"""A training that is killed and started again ends in the same weights, curves and charges as one that was not."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerControl, TrainerState

import prefzoo
from conftest import SMALL, metrics
from prefzoo import get
from prefzoo.commands import stage_runner
from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.judges.build_judge import RandomJudge
from prefzoo.lab import MODEL_DIR
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.run.worker import clear
from prefzoo.trainers import checkpoints

LOG = {"logging_steps": 2}
REPORTED = ("sampled_pairs", "judge")


class Killed(BaseException):
    """Nothing in the way of a kill can be caught as an error."""


def length(prompts, completions) -> list[float]:
    return [len(text) / 50 for text in completions]


def killed_at(step: int) -> Any:
    def progress(what: str, done: int, total: int) -> None:
        if what not in ("sampling", "reference") and done == step:
            raise Killed

    return progress


def made(bench: Bench, where: str) -> tuple[dict[str, torch.Tensor], Any, dict[str, Any]]:
    """Weights, curves without their clocks, charges without theirs."""
    weights = {}
    for file in sorted((bench.out / where).rglob("*.safetensors")):
        weights |= {f"{file.name} {name}": value for name, value in load_file(file).items()}
    curves = json.loads((bench.out / "curves.json").read_text())
    clocks = ("runtime", "second", "time", "flos")
    curves = [[{k: v for k, v in e.items() if not any(c in k for c in clocks)} for e in r] for r in curves]
    ledger = dataclasses.asdict(bench.ledger)
    return weights, curves, {k: v for k, v in ledger.items() if k not in ("seconds", "peak_memory_bytes")}


def same(one, other) -> None:
    assert one[0].keys() == other[0].keys() and one[0]
    for name, weight in one[0].items():
        assert torch.equal(weight, other[0][name]), name
    assert one[1] == other[1]
    assert one[2] == other[2]


CASES = [
    ("dpo", {}, "lora"),
    ("ppo", {"epochs": 2}, "qlora"),
    *(
        pytest.param(*case, marks=pytest.mark.faults)
        for case in (
            ("sft", {}, "lora"),
            ("dpo", {}, "full"),
            ("dpop", {}, "lora"),
            ("orpo", {}, "full"),
            ("kto", {}, "lora"),
            ("bco", {}, "qlora"),
            ("ilql", {}, "qlora"),
            ("ilql", {"polyak": 0.5, "td_lambda": 0.0}, "full"),
            ("sac", {"rounds": 2, "replay": 1}, "qlora"),
            ("ppo", {"kl_target": 0.5}, "lora"),
            ("ppo", {"minibatches": 2, "epochs": 2}, "full"),
            ("a2c", {"value_model": "separate"}, "lora"),
            ("reinforce", {}, "lora"),
            ("grpo", {"epochs": 2, "generations": 2}, "lora"),
            ("gspo", {"generations": 2, "minibatches": 3}, "qlora"),
            ("dapo", {"generations": 2}, "full"),
            ("reinforce_plus_plus_baseline", {"generations": 2}, "lora"),
            ("ppo", {"epochs": 2, "reference_decay": 0.5}, "lora"),
            ("ppo", {"epochs": 1, "reference_decay": 0.5, "shaping": {"potential": "prefix_scores"}}, "full"),
            ("rloo", {"generations": 2}, "lora"),
            ("online_dpo", {"sync": 3, "n": 3, "pairs": "best_random"}, "lora"),  # goes on between two syncs
            ("online_dpo", {"learner": "simpo", "sync": "once"}, "qlora"),
            ("online_dpo", {"labeller": "judge"}, "qlora"),
            ("xpo", {}, "full"),
            ("distill", {"teacher": str(MODEL_DIR), "reward_weight": 0.5}, "qlora"),
            ("best_of_n_distillation", {"n": 2, "samples": 2, "generations": 2}, "lora"),
        )
    ),
]


@pytest.mark.parametrize(("name", "settings", "adapter"), CASES, ids=lambda value: str(value))
def test_killed_and_resumed_is_as_never_killed(name, settings, adapter, make_bench, base, monkeypatch) -> None:
    algorithm = get(name, **settings, trainer=LOG)

    def bench(folder: str) -> Bench:
        # Two epochs: the order of the second is another than that of the first. Dropout: it draws random numbers.
        trial = make_bench(adapter, epochs=2.0, name=folder, accumulation=2)
        dropping = trial.adapter.model_copy(update={"dropout": 0.1})
        loading = {"quantization": trial.adapter.quantization, "dtype": "float32"}
        return trial.replace(start=base, reward=length, judge=RandomJudge(0), adapter=dropping, loading=loading)

    whole = bench("whole")
    algorithm.train(whole)
    steps = json.loads((whole.out / "curves.json").read_text())[0][-1]["step"]
    for kill in (2, steps // 2 + 1, steps) if name == "dpo" else (steps // 2 + 2,):
        trial = bench(f"killed at {kill}")
        monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
        with pytest.raises(Killed):
            algorithm.train(trial.replace(progress=killed_at(kill)))
        fresh = bench(f"killed at {kill}")
        clear(fresh.out)
        monkeypatch.undo()
        algorithm.train(fresh)
        assert fresh.report["resumed_at_step"] == kill - 1
        same(made(fresh, "policy"), made(whole, "policy"))
        assert [fresh.report.get(key) for key in REPORTED] == [whole.report.get(key) for key in REPORTED]
        assert not list((fresh.out / "checkpoints").iterdir())


@pytest.mark.faults
@pytest.mark.parametrize("adapter", ["lora", "qlora", "full"])
def test_self_play_that_was_killed_in_a_later_round_has_the_same_reference(adapter, adapted, monkeypatch) -> None:
    algorithm = get("iterative_dpo", rounds=2, reference="latest", learner_settings={"trainer": {"logging_steps": 1}})
    rounds = []

    def killed_in_the_second(what: str, done: int, total: int) -> None:
        if what == "DPO":
            rounds.append(done == 1)
            if sum(rounds) == 2 and done == 2:
                raise Killed

    whole = adapted(adapter, name="whole", batch_size=2, learning_rate=0.01)
    algorithm.train(whole)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    with pytest.raises(Killed):
        trial = adapted(adapter, name="killed", batch_size=2, learning_rate=0.01)
        algorithm.train(trial.replace(progress=killed_in_the_second))
    fresh = adapted(adapter, name="killed", batch_size=2, learning_rate=0.01)
    clear(fresh.out)
    algorithm.train(fresh)
    assert fresh.report["resumed_at_step"] == 1
    same(made(fresh, "policy"), made(whole, "policy"))


@pytest.mark.faults
def test_a_reward_model_resumes(make_bench, monkeypatch) -> None:
    whole = make_bench(epochs=2.0, name="whole")
    train_reward_model(whole, LOG)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    with pytest.raises(Killed):
        train_reward_model(make_bench(epochs=2.0, name="killed").replace(progress=killed_at(4)), LOG)
    fresh = make_bench(epochs=2.0, name="killed")
    clear(fresh.out)
    train_reward_model(fresh, LOG)
    assert fresh.report["resumed_at_step"] == 3
    same(made(fresh, "reward"), made(whole, "reward"))


def dying(plan, stage, folder, progress) -> None:
    """Every training is killed once, the signal coming at its third step, and goes on in the next call."""
    from prefzoo.run.stages.run_stage import run_stage
    from prefzoo.trainers import checkpoints

    died = folder.with_suffix(".died")
    checkpoints.CHECKPOINT_INTERVAL_SECONDS = 60.0 if died.exists() else 0.0

    def watch(what: str, done: int, total: int) -> None:
        progress(what, done, total)
        if what in ("SFT", "Reward", "DPO", "ActorCritic") and done == 3 and not died.exists():
            died.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    run_stage(plan, stage, folder, watch)


@pytest.mark.kills
def test_a_comparison_whose_every_training_was_killed_has_the_same_metrics(tmp_path, monkeypatch) -> None:
    sets = [*SMALL, "training.batch_size=8", "evaluation.milestones=2", "algorithms={dpo: {}, ppo: {}}"]
    whole = prefzoo.compare("quickstart", seeds=1, sets=sets, out=tmp_path / "whole")
    monkeypatch.setattr(stage_runner, "run_stage", dying)
    killed = 0
    while True:
        try:
            found = prefzoo.compare("quickstart", seeds=1, sets=sets, out=tmp_path / "killed")
            if all(each.status == "ok" for each in found.algorithms.values()):
                break
        except PrefzooError as error:
            assert "SIGKILL" in str(error)
        killed += 1
        assert killed < 5
    assert len(list((tmp_path / "killed").rglob("*.died"))) == 4
    assert metrics(found) == metrics(whole)
    assert found.reward["test_accuracy"] == whole.reward["test_accuracy"]
    for label in ("dpo", "ppo"):
        one, other = (each.algorithms[label].seeds["0"] for each in (found, whole))
        assert one.details["resumed_at_step"] == 2
        for charge in ("generated_tokens", "trained_tokens", "forward_tokens", "prompts", "reward_calls", "flops"):
            assert one.ledger[charge] == other.ledger[charge]
        on_the_way = [[(m.name, m.metrics, m.ledger["flops"]) for m in each.milestones] for each in (one, other)]
        assert len(on_the_way[0]) == 2 and on_the_way[0] == on_the_way[1]
    assert not list((tmp_path / "killed").rglob("checkpoints"))


def test_a_checkpoint_of_another_training_is_not_taken(make_bench, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    with pytest.raises(Killed):
        get("dpo").train(make_bench(name="trial").replace(progress=killed_at(3)))
    other = make_bench(name="trial").replace(seed=8)
    get("dpo").train(other)
    assert "resumed_at_step" not in other.report


@pytest.mark.faults
def test_a_checkpoint_that_was_cut_off_is_not_taken_and_a_damaged_one_not_twice(make_bench, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    with pytest.raises(Killed):
        get("dpo").train(make_bench().replace(progress=killed_at(3)))
    (newest,) = make_bench().out.rglob("checkpoint-2")
    (newest / checkpoints.COMPLETE_MARKER).unlink()
    (newest / checkpoints.WEIGHTS).write_bytes(b"cut")
    older = newest.with_name("checkpoint-1")
    (older / checkpoints.WEIGHTS).write_bytes(b"cut")
    with pytest.raises(PrefzooError, match=r"checkpoint-1.*run again to begin anew"):
        get("dpo").train(make_bench())
    fresh = make_bench()
    get("dpo").train(fresh)
    assert "resumed_at_step" not in fresh.report


@pytest.mark.parametrize(
    ("waited", "cost", "asks"), [(61, 0.1, True), (59, 0.1, False), (500, 10, False), (601, 10, True)]
)
def test_checkpoints_come_by_the_minute_and_rarer_where_writing_is_slow(waited, cost, asks, monkeypatch) -> None:
    made = checkpoints.Checkpoints.__new__(checkpoints.Checkpoints)
    made.saved, made.cost = 0.0, cost
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: float(waited))
    control = TrainerControl()
    made.on_step_end(None, TrainerState(global_step=1, max_steps=9), control)
    assert control.should_save is asks


def test_a_checkpoint_of_other_weights_is_refused(make_bench, monkeypatch) -> None:
    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    with pytest.raises(Killed):
        get("dpo").train(make_bench().replace(progress=killed_at(3)))
    for file in make_bench().out.rglob(checkpoints.WEIGHTS):
        weights = load_file(file)
        weights.pop(min(weights))
        save_file(weights, file)
    with pytest.raises(PrefzooError, match="other weights were trained"):
        get("dpo").train(make_bench())
