"""A base in 4 bits costs little of what is learned in the lab. Minutes long: `make test-learning`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

pytest.importorskip("bitsandbytes")

import prefzoo
from prefzoo import registry
from test_learning import SEED, SEEDS, over_start

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]
REPLICATIONS = Path(__file__).parents[1] / "benchmarks" / "replications"
LEARNERS = ("dpo", "grpo")


@pytest.fixture(scope="module")
def program():
    before = registry.registered()
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(REPLICATIONS))  # where the trials' processes look too
        yield __import__("qlora_vs_lora")
    del sys.modules["qlora_vs_lora"]
    registry.restore(before)


@pytest.fixture(scope="module")
def found(program, tmp_path_factory):
    recipe = program.recipe({name: program.ALGORITHMS[name] for name in LEARNERS}, 480, data_seed=SEED)
    return prefzoo.compare(recipe, seeds=SEEDS, out=tmp_path_factory.mktemp("runs") / "qlora")


@pytest.mark.parametrize("name", LEARNERS)
def test_qlora_loses_little(found, program, name: str) -> None:
    assert over_start(found, f"{name}-qlora").verdict == "better"
    lost = program.lost(found)[name]
    assert lost["ci95"][0] <= program.LOSS


def test_dpo_loses_little_by_its_mean_too(found, program) -> None:
    """Three seeds tell it to 0.1; GRPO's seeds differ by twice as much."""
    assert program.lost(found)["dpo"]["loss"] <= program.LOSS


def test_the_start_in_4_bits_was_left_as_it_is(found) -> None:
    trials = found.algorithms["start-qlora"].seeds.values()
    assert all(trial.metrics["kl"] == 0.0 for trial in trials)
