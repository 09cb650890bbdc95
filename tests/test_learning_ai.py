"""AI feedback teaches in the lab, a coin does not, a constitution halves harm. Minutes long: `make test-learning`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import prefzoo
from prefzoo.results.results_schema import Results
from test_learning import SEED, SEEDS, over_start

pytestmark = [pytest.mark.learning, pytest.mark.timeout(3600)]
SETS = [f"data.seed={SEED}", "tracking.wandb.mode=disabled"]
BY_JUDGE = ("rlaif-dpo", "rlaif-ppo", "rlaif-rejection", "rlaif-direct", "iterated")
RECIPE = {
    "extends": "ai_feedback",
    # PPO's KL adds up over the rounds (to 8 nats after three), and seeds disagree.
    "algorithms": {"iterated": {"algorithm": "iterated_rlhf", "people": False, "learner": "reinforce"}},
}


@pytest.fixture(scope="module")
def learned(tmp_path_factory) -> tuple[Results, Path]:
    out = tmp_path_factory.mktemp("runs") / "ai"
    return prefzoo.compare(RECIPE, seeds=SEEDS, sets=SETS, out=out), out


@pytest.mark.parametrize("label", [*BY_JUDGE, "constitutional_ai"])
def test_it_learns_from_the_models_own_judgement(learned, label: str) -> None:
    found = over_start(learned[0], label)
    assert found.verdict == "better" and found.ci95[0] > 0


def test_a_constitution_at_least_halves_the_rate_of_harm(learned) -> None:
    """Nothing that people said of harm is learned from: the start imitates an ordinary clerk, who does much of it."""
    results, out = learned
    rates = {}
    for label in ("start", "constitutional_ai"):
        harmful = []
        for trial in results.algorithms[label].seeds.values():
            records = [json.loads(line) for line in (out / trial.replies).read_text().splitlines()]
            harmful += [r["gold/harmlessness"] < 0 for r in records if r["slice"] == "harmful"]
        rates[label] = sum(harmful) / len(harmful)
    assert rates["start"] > 0.3
    assert rates["constitutional_ai"] <= rates["start"] / 2


def test_a_coin_teaches_nothing(tmp_path) -> None:
    found = prefzoo.compare(RECIPE, BY_JUDGE, seeds=SEEDS, sets=[*SETS, "judge.type=random"], out=tmp_path)
    for label in BY_JUDGE:
        assert over_start(found, label).verdict != "better", label


def test_a_learning_rate_of_0_changes_nothing(tmp_path) -> None:
    labels = ["rlaif-dpo", "constitutional_ai"]
    sets = [*SETS, "training.learning_rate=0", "budget.prompts=48"]
    found = prefzoo.compare(RECIPE, labels, seeds=1, sets=sets, out=tmp_path)
    for label in labels:
        assert over_start(found, label).difference == 0.0
