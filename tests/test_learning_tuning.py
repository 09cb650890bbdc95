"""In the lab tuning finds settings that learn where those that were written do not. Minutes: `make test-learning`."""

from __future__ import annotations

import pytest

import prefzoo
from test_learning import SEED, SEEDS, over_start

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]


CASES = {"dpo": ({"beta": 0.01}, 3), "ppo": ({"kl_coefficient": 0.001}, 1)}
"""Settings with which nothing holds the policy to the start, and how many seeds a trial has: of DPO's low betas one
seed may be lucky where others collapse."""


@pytest.mark.parametrize("label", CASES)
def test_settings_that_lose_are_not_better_than_the_start_and_are_so_once_tuned(tmp_path, label) -> None:
    settings, seeds = CASES[label]
    recipe = {
        "extends": "base",
        "data": {"seed": SEED},
        "budget": {"prompts": 600},
        "algorithms": {label: settings},
        "tuning": {"trials": 8, "seeds": seeds},
        "seeds": SEEDS,
    }
    found = prefzoo.compare(recipe, out=tmp_path)
    assert over_start(found, f"{label}-untuned").verdict != "better"
    assert over_start(found, label).verdict == "better"
