"""Trainings whose weights two processes divide (FSDP2): they end where those end that have all weights, and go on after
a kill. `test_distributed` has the first of these."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from test_distributed import SCRIPT, SHARED, assert_close, assert_same_policies, compared, launched, trained

pytestmark = pytest.mark.processes


def test_divided_weights_that_are_all_trained_go_on_after_a_kill(tmp_path) -> None:
    """A killed training that resumes ends as one that ran through, in one process; DPO's reference is divided too."""
    two = tmp_path / "two"
    two.mkdir()
    launched([str(SCRIPT), "dpo", str(two), "full", "2"], 2, "fsdp", fails=True)
    assert list(two.glob("checkpoints/*/checkpoint-1/whole")) and not (two / "policy").exists()
    first, _ = trained("dpo", 2, two, "fsdp", "full")
    assert first["report"]["resumed_at_step"] == 1
    assert first["shards"] == {f"model: {SHARED}": 38, f"ref_model: {SHARED}": 38}
    assert first["report"]["model"]["used"]["weights"] == "divided among them (FSDP)"
    (alone,) = trained("dpo", 1, tmp_path / "one", adapter="full")
    assert first["ledger"] == alone["ledger"]
    assert_same_policies(tmp_path / "one", two, 1 + 1 + 1)


def assert_the_same_from_divided_weights(two: Path, divided: Path) -> None:
    """Processes that sample from weights that they gather end where those end that have them all: each draws by its own
    random numbers, from the same probabilities."""
    files = sorted(file.relative_to(two) for file in two.glob("**/*.safetensors"))
    assert files and files == sorted(file.relative_to(divided) for file in divided.glob("**/*.safetensors"))
    for file in files:
        assert_close(two / file, divided / file)


def test_what_samples_from_divided_weights_that_are_all_trained_ends_as_data_parallel(tmp_path) -> None:
    """With critics on a model of their own, on the reference and on a start of their own, a reference that moves, the
    start to sample from, heads beside the policy."""
    frozen = "ppo?value_model=frozen&epochs=2,ppo?value_model=frozen&kl_coefficient=0&epochs=1"
    names = f"ppo?reference_decay=0.5&minibatches=2,{frozen},grpo?kl_coefficient=0.05,xpo,ilql,sac?rounds=1"
    first, _ = trained(names, 2, tmp_path / "divided", "fsdp", "full")
    assert set(first["shards"]) == {f"model: {SHARED}", f"ref_model: {SHARED}"}
    other, _ = trained(names, 2, tmp_path / "two", adapter="full")
    assert first["ledger"] == other["ledger"] and first["shapings"] == other["shapings"], "the same replies"
    assert_the_same_from_divided_weights(tmp_path / "two", tmp_path / "divided")


def test_what_samples_from_divided_weights_ends_as_data_parallel(tmp_path) -> None:
    critics = "ppo?epochs=2,ppo?value_model=frozen&epochs=1,a2c"
    names = f"{critics},grpo,rloo,online_dpo?sync=once,iterative_dpo,distill,best_of_n_distillation,sac?rounds=2"
    ours, theirs = trained(names, 2, tmp_path / "divided", "fsdp")
    first, _ = trained(names, 2, tmp_path / "two")
    assert ours["ended"] == theirs["ended"] and ours["ended"].keys() == first["ended"].keys(), "the critics', too"
    # With divided weights DPO computes its reference in each step, which elsewhere the sampling of a round has told.
    assert {name: ours["charged"][name] == first["charged"][name] for name in names.split(",")} == {
        name: name != "iterative_dpo" for name in names.split(",")
    }
    assert_the_same_from_divided_weights(tmp_path / "two", tmp_path / "divided")


def test_a_killed_ppo_on_divided_weights_goes_on_to_the_same_numbers(tmp_path) -> None:
    name, killed = "ppo?reference_decay=0.5", tmp_path / "killed"
    killed.mkdir()
    launched([str(SCRIPT), name, str(killed), "lora", "6"], 2, "fsdp", fails=True)  # in the second rollout
    first, _ = trained(name, 2, killed, "fsdp")
    assert first["report"]["resumed_at_step"] == 5
    through, _ = trained(name, 2, tmp_path / "through", "fsdp")
    assert first["ended"] == through["ended"] and any("value_head" in key for key in first["ended"])
    assert first["ledger"] == through["ledger"]
    one, two = (load_file(f / "policy" / "adapter_model.safetensors") for f in (killed, tmp_path / "through"))
    assert all(torch.equal(weight, two[key]) for key, weight in one.items())


def test_a_comparison_trains_with_divided_weights_and_answers_with_whole_ones(tmp_path) -> None:
    launched(compared("{ppo: {value_model: reward}, rlaif: {}}", tmp_path / "run"), 2, "fsdp")
    found = json.loads((tmp_path / "run" / "results.json").read_text())["algorithms"]
    for label in ("ppo", "rlaif"):
        used = found[label]["seeds"]["0"]["details"]["model"]["used"]
        assert found[label]["status"] == "ok" and used["processes"] == 2 and "FSDP" in used["weights"]
    for stage in ("stages/start", "stages/reward", "trials/train-ppo", "trials/train-rlaif"):
        assert len(list((tmp_path / "run").glob(f"{stage}-*.1.log"))) == 1, "both processes train it"
    assert not list((tmp_path / "run").glob("trials/evaluate-*.1.log"))
