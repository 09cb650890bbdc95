"""A whole comparison with an oracle as the judge: RLAIF, constitutional AI, the judge as the reward."""

from __future__ import annotations

import json
import math

import pytest

from prefzoo import compare
from prefzoo.report.algorithm_details import principle_cells

pytestmark = pytest.mark.slow

SMALL = {
    "extends": "base",
    "start": "none",
    "tracking": {"wandb": {"mode": "disabled"}},
    "budget": {"prompts": 48},
    "evaluation": {"prompts": 16},
    "generation": {"max_new_tokens": 32},
    "reward": {"type": "judge"},
    "judge": {"type": "gold"},
    "algorithms": {
        "rlaif": {"rounds": 2},
        "by-ppo": {"algorithm": "rlaif", "learner": "ppo"},
        "constitutional_ai": {},
        "grpo": {},
    },
}


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "ai"
    return compare(SMALL, seeds=1, out=out), out


def test_a_whole_comparison_of_ai_feedback(found) -> None:
    results, _ = found
    assert {label: each.status for label, each in results.algorithms.items()} == dict.fromkeys(
        ["start", *SMALL["algorithms"]], "ok"
    ), [each.error for each in results.algorithms.values()]
    trial = results.algorithms["constitutional_ai"].seeds["0"]
    assert [m.name for m in trial.milestones] == ["supervised phase"]
    assert trial.milestones[0].metrics.keys() == {m for m in trial.metrics if not m.startswith("pairs/")}
    assert 0 < trial.milestones[0].ledger["trained_tokens"] < trial.ledger["trained_tokens"]
    principles = trial.details["principles"]
    made = sum(row["revisions"] - row["unrevised"] for row in principles.values())
    assert made == trial.details["supervised"]["revised"] > 0
    assert sum(row["comparisons"] for row in principles.values()) == 48
    assert [m.name for m in results.algorithms["rlaif"].seeds["0"].milestones] == ["round 1"]
    for label in ("rlaif", "by-ppo", "constitutional_ai", "grpo"):
        assert results.algorithms[label].seeds["0"].ledger["judge_calls"] > 0
    assert results.algorithms["grpo"].seeds["0"].ledger["judge_calls"] == 2 * 4 * 48
    audit = results.judge["audits"]["judge"]
    assert audit["agreement"]["share"] == 1.0 and audit["first_preferred"]["share"] == 0.5, "gold judges"


def test_the_order_of_the_oracles_reward_is_golds(found) -> None:
    results, out = found
    start = results.algorithms["start"].seeds["0"]
    records = [json.loads(line) for line in (out / start.replies).read_text().splitlines()]
    signs = {(math.copysign(1, r["proxy"]) if r["proxy"] else 0.0) for r in records}
    assert signs <= {-1.0, 0.0, 1.0} and len(signs) > 1
    assert results.reward["test_accuracy"] > 0.6


def test_the_report_says_what_principles_did(found) -> None:
    results, out = found
    page = (out / "report.html").read_text()
    trial = results.algorithms["constitutional_ai"].seeds["0"]
    assert f'href="{trial.details["transcripts"]}"' in page and (out / trial.details["transcripts"]).is_file()
    headings, rows = principle_cells(results)["constitutional_ai"]
    assert headings[1:] == ["revisions", "came to nothing", "changed the reply", "gold", "reward", "comparisons"]
    counted = {row[0]: (int(row[1]), int(row[6])) for row in rows}
    assert counted == {k: (v["revisions"], v["comparisons"]) for k, v in trial.details["principles"].items()}
