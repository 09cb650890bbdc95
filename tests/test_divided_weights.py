"""Launches that divide weights over processes: which are refused, and what of a recipe. `test_distributed` trains."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
import yaml
from trl import SFTConfig, SFTTrainer

from prefzoo import Algorithm, Bench, Policy, get, registry
from prefzoo.errors import PrefzooError
from prefzoo.machine import refuse_divided_weights
from prefzoo.recipe.check_recipe import load
from prefzoo.run import distributed
from prefzoo.trainers.fitting import fit
from prefzoo.trainers.trainer_arguments import arguments

ROOT = Path(__file__).parents[1]


def launched_with_fsdp(monkeypatch, **settings: str) -> None:
    """Set what `accelerate launch` sets with recipes/accelerate/fsdp.yaml, and these settings in its place."""
    ours = yaml.safe_load((ROOT / "recipes" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    given = {key.removeprefix("fsdp_").upper(): str(value).lower() for key, value in ours.items()} | settings
    variables = {"ACCELERATE_USE_FSDP": "true", "WORLD_SIZE": "2", **{f"FSDP_{k}": v for k, v in given.items()}}
    for key, value in variables.items():
        monkeypatch.setenv(key, value)


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_DEEPSPEED", "ACCELERATE_USE_MEGATRON_LM"])
def test_launchers_that_divide_weights_in_other_ways_are_refused(variable, monkeypatch, make_bench) -> None:
    monkeypatch.setenv(variable, "true")
    for ask in (distributed.processes, refuse_divided_weights, lambda: get("sft").train(make_bench())):
        with pytest.raises(PrefzooError, match=f"{variable}.*--multi_gpu"):
            ask()


@pytest.mark.parametrize(
    ("setting", "value", "allowed"),
    [
        ("VERSION", "1", "2"),
        ("CPU_RAM_EFFICIENT_LOADING", "true", "false"),
        ("OFFLOAD_PARAMS", "true", "false"),
        ("ACTIVATION_CHECKPOINTING", "true", "false"),
    ],
)
def test_fsdp_with_settings_that_do_not_work_is_refused(setting, value, allowed, monkeypatch) -> None:
    launched_with_fsdp(monkeypatch)
    assert distributed.processes() == 2 and distributed.arrangement() == {"processes": 2, "weights": "divided"}
    launched_with_fsdp(monkeypatch, **{setting: value})
    with pytest.raises(PrefzooError, match=f"fsdp_{setting.lower()}: {value} .*Allowed: {allowed}"):
        distributed.processes()


@pytest.mark.parametrize(("package", "old"), [("torch", "2.9.1+cu128"), ("accelerate", "1.14.0")])
def test_fsdp_with_an_older_library_is_refused(package, old, monkeypatch) -> None:
    monkeypatch.setattr("prefzoo.machine.version", lambda name: old if name == package else "3.0")
    assert distributed.processes() == 1
    launched_with_fsdp(monkeypatch)
    with pytest.raises(PrefzooError, match=rf"{package} {re.escape(old)}.*from {package} \d\.1\d on"):
        distributed.processes()


@dataclass(frozen=True)
class NeedsWhole(Algorithm):
    """An algorithm that does not say that it is divisible."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})

    def train(self, bench: Bench) -> Policy:
        raise NotImplementedError


def test_what_needs_whole_weights_is_refused_under_fsdp_all_at_once(monkeypatch, make_bench) -> None:
    monkeypatch.setattr(registry, "_registered", {"needs_whole": NeedsWhole})
    labels = "{dpo: {}, ppo: {}, ilql: {}, best_of_n: {}, own: {algorithm: needs_whole}, "
    labels += "taught: {algorithm: distill, teacher: needs_whole}, loop: {algorithm: iterative_dpo, learner: kto}, "
    labels += "twice: {algorithm: dpo, trainer: {precompute_ref_log_probs: true, optim: adamw_8bit}}}"
    sets = [f"algorithms={labels}", "adapter.type=qlora", "training.optim=adamw_8bit"]
    load("quickstart", sets)
    launched_with_fsdp(monkeypatch)
    with pytest.raises(PrefzooError) as refused:
        load("quickstart", sets)
    said = str(refused.value)
    wrong = ["own: ", "taught: ", "twice.trainer.precompute_ref_log_probs: ", "twice.trainer.optim: "]
    assert all(f"algorithms.{key}" in said for key in wrong) and "ddp.yaml" in said
    assert "training.optim: " in said and "adapter.type: " in said
    assert not any(f"algorithms.{label}: " in said for label in ("dpo", "ppo", "ilql", "best_of_n", "loop", "twice"))
    load("zoo")  # every algorithm that is built in
    with pytest.raises(PrefzooError, match=r"SFTTrainer cannot be trained with weights that FSDP divides.*ddp\.yaml"):
        fit(make_bench(), SFTTrainer, SFTConfig, [{"prompt": [], "completion": []}], {})
    with pytest.raises(PrefzooError, match=r"adapter\.type 'qlora' cannot be trained with weights that FSDP divides"):
        arguments(make_bench("qlora"), SFTConfig, {})


def test_fsdp_in_a_trainer_block_is_refused() -> None:
    with pytest.raises(PrefzooError, match=r"trainer\.fsdp.*docs/scale"):
        load("quickstart", ["algorithms.dpo.trainer.fsdp=true"], ["dpo"])
