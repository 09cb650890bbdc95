"""Algorithms learn in the lab, and controls that must not learn do not. Minutes long: `make test-learning`."""

from __future__ import annotations

import os

import pytest

import prefzoo
from prefzoo.recipe import check_recipe as recipes
from prefzoo.results.results_schema import Results, Verdict

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]
SEED = int(os.environ.get("PREFZOO_TEST_SEED", "0"))
"""Other seeds must pass too: PREFZOO_TEST_SEED=100 make test-learning."""
SEEDS = [SEED, SEED + 1, SEED + 2]


def over_start(found: Results, label: str) -> Verdict:
    assert found.algorithms[label].status == "ok", found.algorithms[label].error
    return next(v for v in found.verdicts if (v.metric, v.a, v.b) == ("gold", label, "start"))


@pytest.fixture(scope="module")
def quickstart(tmp_path_factory) -> Results:
    sets = [f"data.seed={SEED}"]
    return prefzoo.compare("quickstart", seeds=SEEDS, sets=sets, out=tmp_path_factory.mktemp("runs") / "quickstart")


FIVE = ["dpo", "ppo", "rejection_sampling", "rlaif", "constitutional_ai"]


@pytest.mark.parametrize("label", [*FIVE, "best_of_n"])
def test_it_learns(quickstart, label: str) -> None:
    found = over_start(quickstart, label)
    assert found.verdict == "better" and found.ci95[0] > 0


def test_selection_is_what_teaches(quickstart) -> None:
    """Imitating random samples of the start teaches nothing; imitating the best of the same samples does."""
    assert over_start(quickstart, "random_choice").verdict != "better"
    pair = next(
        v for v in quickstart.verdicts if v.metric == "gold" and {v.a, v.b} == {"rejection_sampling", "random_choice"}
    )
    assert pair.difference * (1 if pair.a == "rejection_sampling" else -1) > 0 and pair.verdict != "inconclusive"


def test_the_reward_model_is_right_on_unseen_pairs_and_follows_gold(quickstart) -> None:
    assert quickstart.reward["ci95"][0] > 0.6
    assert quickstart.reward["gold_correlation_ci95"][0] > 0.4


CONTROLS = {
    "shuffled labels": ("data.shuffle_labels=true", ["dpo", "rejection_sampling"]),
    "random reward": ("reward.type=random", ["rejection_sampling", "best_of_n"]),
    "learning rate 0": ("training.learning_rate=0", ["sft", "dpo", "rejection_sampling"]),
}


@pytest.mark.parametrize("control", CONTROLS)
def test_a_control_does_not_learn(tmp_path, control: str) -> None:
    change, labels = CONTROLS[control]
    found = prefzoo.compare("quickstart", labels, seeds=SEEDS, sets=[change, f"data.seed={SEED}"], out=tmp_path)
    for label in labels:
        assert over_start(found, label).verdict != "better", label
        if control == "learning rate 0":
            assert over_start(found, label).difference == 0.0


def test_the_same_algorithm_under_two_labels_is_no_difference(tmp_path) -> None:
    """Trained with other seeds, and on the same table."""
    dpo = recipes.load("quickstart").algorithms["dpo"]
    recipe = {"extends": "quickstart", "algorithms": {"dpo-again": {"algorithm": "dpo", **dpo, "seed_offset": 100}}}
    found = prefzoo.compare(recipe, ["dpo", "dpo-again"], seeds=SEEDS, sets=[f"data.seed={SEED}"], out=tmp_path)
    pair = next(v for v in found.verdicts if (v.metric, v.a, v.b) == ("gold", "dpo", "dpo-again"))
    assert pair.verdict == "inconclusive" and pair.difference != 0.0
    assert over_start(found, "dpo").verdict == over_start(found, "dpo-again").verdict
