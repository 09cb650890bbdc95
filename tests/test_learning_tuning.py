"""In the lab tuning finds settings that learn where those that were written do not. Minutes: `make test-learning`."""

from __future__ import annotations

import pytest

import prefzoo
from test_learning import SEED, SEEDS, over_start

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]


def test_settings_that_lose_are_not_better_than_the_start_and_are_so_once_tuned(tmp_path) -> None:
    """DPO's beta and PPO's KL coefficient are so low that nothing holds the policies to the start."""
    recipe = {
        "extends": "base",
        "data": {"seed": SEED},
        "budget": {"prompts": 600},
        "algorithms": {"dpo": {"beta": 0.01}, "ppo": {"kl_coefficient": 0.001}},
        "tuning": {"trials": 8},
        "seeds": SEEDS,
    }
    found = prefzoo.compare(recipe, out=tmp_path)
    for label in ("dpo", "ppo"):
        assert over_start(found, f"{label}-untuned").verdict != "better", label
        assert over_start(found, label).verdict == "better", label
