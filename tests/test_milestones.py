"""Policies that trainings keep on their way: which, with what they had cost, after a kill too."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from prefzoo import get
from prefzoo.interface import Bench
from prefzoo.models.policy_kinds import load_policy
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.worker import clear
from prefzoo.trainers import checkpoints
from prefzoo.trainers.milestones import shares
from test_ledger import length
from test_resume import Killed, killed_at


def kept(bench: Bench) -> list[tuple[str, dict[str, float], dict[str, torch.Tensor]]]:
    """Name, ledger and weights of each milestone, in order."""
    folders = sorted((bench.out / "milestones").glob("*"))
    noted = [json.loads((each / "milestone.json").read_text()) for each in folders]
    return [(n["name"], n["ledger"], weights(each / "policy")) for n, each in zip(noted, folders, strict=True)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: w for file in sorted(folder.rglob("*.safetensors")) for name, w in load_file(file).items()}


def equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(w, other[name]) for name, w in one.items())


@pytest.mark.parametrize(("steps", "parts", "found"), [(60, 3, [15, 30, 45]), (3, 3, [1, 2]), (1, 2, []), (7, 0, [])])
def test_equal_shares_of_the_steps(steps, parts, found) -> None:
    assert shares(steps, parts) == found


@pytest.mark.parametrize(
    ("name", "settings", "adapter"),
    [("dpo", {}, "qlora"), ("ppo", {"epochs": 1}, "lora"), ("ppo", {"epochs": 1}, "full")],
)
def test_a_trial_keeps_policies_on_its_way_and_ends_as_if_it_did_not(name, settings, adapter, make_bench) -> None:
    def bench(folder: str) -> Bench:
        trial = make_bench(adapter, epochs=2.0, name=folder)
        loading = {"quantization": trial.adapter.quantization, "dtype": "float32"}
        return trial.replace(reward=length, loading=loading)

    plain, trial = bench("plain"), bench("kept").replace(milestones=2)
    get(name, **settings).train(plain)
    get(name, **settings).train(trial)
    assert not (plain.out / "milestones").exists()
    assert equal(weights(plain.out / "policy"), weights(trial.out / "policy"))
    assert {k: v for k, v in vars(plain.ledger).items() if k != "seconds"} == {
        k: v for k, v in vars(trial.ledger).items() if k != "seconds"
    }
    found = kept(trial)
    assert [each for each, _, _ in found] == ["step 2 of 6", "step 4 of 6"]
    assert [ledger["prompts"] for _, ledger, _ in found] == [16, 32] and trial.ledger.prompts == 48
    ways = [ledger for _, ledger, _ in found] + [vars(trial.ledger)]
    for charge in ("trained_tokens", "flops", *(["forward_tokens", "reward_calls"] if name == "ppo" else [])):
        assert 0 < ways[0][charge] < ways[1][charge] < ways[2][charge]
    assert 0 < ways[0]["seconds"] < ways[1]["seconds"] and "peak_memory_bytes" not in ways[0]
    final = weights(trial.out / "policy")
    assert found[0][2].keys() == found[1][2].keys() == final.keys()  # no critic in it
    assert not equal(found[0][2], found[1][2]) and not equal(found[1][2], final)
    prompts = trial.data.prompts[:2]
    policy = load_policy(trial.out / "milestones" / "01" / "policy")
    assert len(policy.sample(prompts, trial.generation, seed=0)) == 2


def test_keeping_takes_nothing_off_the_budget_of_seconds(make_bench, monkeypatch) -> None:
    clock = [10.0]
    monkeypatch.setattr("prefzoo.interface.time.perf_counter", lambda: clock[0])
    bench = make_bench().replace(began=10.0)
    bench.ledger.seconds = 3.0  # of a process that was killed

    class Slow:
        def save(self, folder: Path) -> None:
            folder.mkdir(parents=True)
            clock[0] += 5.0

    clock[0] = 12.0
    bench.keep(Slow(), "one")
    clock[0] = 18.0
    bench.keep(Slow(), "two")
    assert [ledger["seconds"] for _, ledger, _ in kept(bench)] == [5.0, 6.0]
    assert bench.ledger.seconds + clock[0] - 10.0 == 6.0


KILLED = [("ppo", {"epochs": 2}, 1, 7), ("rejection_sampling", {"n": 2, "iterations": 2}, 2, 3)]


@pytest.mark.faults
@pytest.mark.parametrize(("name", "settings", "training", "step"), KILLED, ids=str)
def test_milestones_are_there_again_after_a_kill(name, settings, training, step, make_bench, monkeypatch) -> None:
    def bench() -> Bench:
        return make_bench(epochs=training, batch_size=4).replace(reward=length, milestones=3)

    def train(watched: Any = None) -> Bench:
        trial = bench()
        get(name, **settings).train(trial.replace(progress=watched) if watched else trial)
        return trial

    whole = kept(train())
    shutil.rmtree(bench().out)
    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    begun = [0]

    def progress(what: str, done: int, total: int) -> None:
        begun[0] += what != "sampling" and done == 1
        if begun[0] == training:
            killed_at(step)(what, done, total)

    with pytest.raises(Killed):
        train(progress)
    clear(bench().out)
    monkeypatch.undo()
    again = train()
    assert again.report["resumed_at_step"] == step - 1
    found = kept(again)
    assert [n for n, _, _ in found] == [n for n, _, _ in whole] and len(found) == 3 * training
    for (_, one, first), (_, other, second) in zip(found, whole, strict=True):
        assert {k: v for k, v in one.items() if k != "seconds"} == {k: v for k, v in other.items() if k != "seconds"}
        assert equal(first, second)
    if training == 2:
        assert [n for n, _, _ in found][2:4] == ["step 4 of 6", "training 2, step 2 of 6"]
    assert not list((bench().out / "checkpoints").iterdir())


def test_too_few_steps_are_reported(make_bench) -> None:
    bench = make_bench(batch_size=16).replace(milestones=3)
    get("sft").train(bench)
    assert [name for name, _, _ in kept(bench)] == ["step 1 of 2"]
    assert bench.report["milestones_too_few_steps"] == [{"training": 1, "steps": 2, "kept": 1}]


def test_milestones_are_in_the_keys_of_what_is_trained_alone_and_only_where_there_are_any(tmp_path) -> None:
    def folders(*sets: str) -> dict[str, str]:
        plan = make_plan(recipes.load("quickstart", ["seeds=1", *sets], ["dpo", "best_of_n"]), tmp_path)
        return {name: stage.folder.name for name, stage in plan.stages.items()}

    without, with_two = folders(), folders("evaluation.milestones=2")
    assert folders("evaluation.milestones=0") == without
    changed = {name for name in without if without[name] != with_two[name]}
    assert changed == {"train dpo seed 0", "evaluate dpo seed 0"}
