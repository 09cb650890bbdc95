"""Every loss on pairs and on single replies learns from labels in the lab, and from shuffled labels does not. Minutes
long: `make test-learning`."""

from __future__ import annotations

import math
from typing import Any

import pytest

import prefzoo
from prefzoo import registry
from prefzoo.results.results_schema import Results
from test_learning import SEED, SEEDS, over_start

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]
PAIRWISE = sorted(name for name in registry.BUILT_IN if registry.load(name).family == registry.load("dpo").family)
RATE = {"trainer": {"learning_rate": 1e-3}}
"""Half of the lab's default, at which some of them run away from the start (docs/log.md); Q-values need the default."""
PARTICULAR: dict[str, dict[str, Any]] = {
    "slic": {"delta": 0.7, "weight": 0.75, "trainer": {"learning_rate": 3e-3}},  # as tuned; docs/zoo.md
    "discopop": {"discopop_tau": 0.8, **RATE},  # as written it begins on the wrong side of a bump, and learns wrongly
    "apo_down": {"beta": 0.7, "trainer": {"learning_rate": 3.5e-4}},  # as tuned; at 1e-3 it runs away
    "ilql": {},
}
LOSSES = {name: PARTICULAR.get(name, RATE) for name in [*PAIRWISE, "kto", "bco", "ilql"]}
NO_GAIN = {"apo_down", "dpop"}
"""Losses that tell chosen from rejected by their log-ratios, whose replies are no better than the start's with these
settings. dpop's were not with any that was tried; apo_down's are at defaults and a rate of 5e-4 (docs/log.md)."""


def compared(shuffled: bool, folder: Any) -> Results:
    sets = [f"data.seed={SEED}", f"data.shuffle_labels={str(shuffled).lower()}"]
    recipe = {"extends": "quickstart", "algorithms": LOSSES}
    return prefzoo.compare(recipe, list(LOSSES), seeds=SEEDS, sets=sets, out=folder)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> Results:
    return compared(False, tmp_path_factory.mktemp("runs") / "labelled")


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory) -> Results:
    return compared(True, tmp_path_factory.mktemp("runs") / "shuffled")


@pytest.mark.parametrize("name", sorted(set(LOSSES) - NO_GAIN))
def test_its_replies_are_better_than_the_starts(labelled, name) -> None:
    assert over_start(labelled, name).ci95[0] > 0


@pytest.mark.parametrize("name", LOSSES)
def test_they_are_not_where_labels_are_shuffled(labelled, shuffled, name) -> None:
    """Nor do they rise as far as labels lift them at the least; that a small rise is called better is corrected for all
    pairs of thirty losses."""
    found = over_start(shuffled, name)
    assert found.verdict != "better"
    assert name in NO_GAIN or found.difference < over_start(labelled, name).ci95[0]


@pytest.mark.parametrize("name", sorted(set(LOSSES) - {"ilql"}))
def test_its_log_ratios_tell_chosen_from_rejected_by_the_labels_alone(labelled, shuffled, name) -> None:
    """The difference is beyond the interval of a difference, whose half width is that of both together."""
    learned, control = (found.algorithms[name].summary["pairs/implicit_accuracy"] for found in (labelled, shuffled))
    half_width = math.hypot(*(each.mean - each.ci95[0] for each in (learned, control)))
    assert learned.ci95[0] > 0.5 and learned.mean - control.mean > half_width
