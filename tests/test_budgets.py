"""Policies at equal budgets: interpolation by hand, and a comparison whose policies were measured on their way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import prefzoo
from conftest import SMALL
from prefzoo.comparison.budgets import compare
from prefzoo.comparison.merging import merge
from prefzoo.comparison.results import load

START = np.array([0.0, 1.0])


def way(*points: tuple[float, float, float], axis: str = "flops") -> list:
    """The start at 0, and then a budget and the scores of two prompts for each point."""
    return [({}, START), *(({axis: used}, np.array(scores)) for used, *scores in points)]


def test_scores_at_the_largest_budget_that_all_reached_by_hand() -> None:
    ways = {
        "a": [way((10, 2, 3), (40, 8, 9)), way((10, 2, 3), (20, 4, 5))],  # the second seed reached 20
        "b": [way((40, 4, 5), (80, 0, 0))] * 2,
    }
    found = compare("flops", ways, {"best_of_n": "why"})
    assert found is not None and (found.budget, found.missing) == (20, {"best_of_n": "why"})
    # a: the first seed a third of the way from 10 to 40, (4, 5), the second at its end; b: half way to its first point
    assert found.policies["a"].mean == pytest.approx(4.5)
    assert found.policies["b"].mean == pytest.approx((2.0 + 3.0) / 2)
    # over the start, (0, 1), the four differences of a are all 4, those of b all 2
    assert {label: (s.mean, s.ci95) for label, s in found.over_start.items()} == {"a": (4, (4, 4)), "b": (2, (2, 2))}
    low, high = found.policies["a"].ci95 or (0, 0)
    assert low < 4.5 < high


def test_what_uses_none_of_a_budget_is_missing_and_not_extrapolated() -> None:
    ways = {label: [way((used, 1, 1), (2 * used, 3, 3))] for label, used in (("a", 5), ("b", 8), ("sft", 0))}
    found = compare("flops", ways, {})
    assert found is not None and found.budget == 10 and set(found.policies) == {"a", "b"}
    assert found.missing == {"sft": "its training uses none"}
    assert compare("seconds", ways, {}) is None
    assert compare("flops", {label: ways[label] for label in ("a", "sft")}, {}) is None


def test_of_several_policies_at_one_budget_the_latest_counts() -> None:
    """Rejection sampling has taken up all prompts before its first step."""
    ways = {"a": [way((8, 1, 1), (8, 2, 2), (8, 3, 3))], "b": [way((4, 1, 1), (8, 5, 5))]}
    found = compare("flops", ways, {})
    assert found is not None and {k: v.mean for k, v in found.policies.items()} == {"a": 3.0, "b": 5.0}


@pytest.fixture(scope="module")
def along(tmp_path_factory):
    out = tmp_path_factory.mktemp("along") / "run"
    algorithms = "{dpo: {}, ppo: {epochs: 1}, sft: {}, rejection_sampling: {n: 2}, best_of_n: {n: 2}}"
    sets = [*SMALL, "training.batch_size=8", "evaluation.milestones=2", f"algorithms={algorithms}"]
    return prefzoo.compare("quickstart", seeds=1, sets=sets, out=out), out


def test_a_comparison_measures_policies_on_their_way_and_compares_at_equal_budgets(along, tmp_path) -> None:
    results, out = along
    for label in ("dpo", "ppo", "sft", "rejection_sampling"):
        for trial in results.algorithms[label].seeds.values():
            assert [m.name for m in trial.milestones] == ["step 2 of 6", "step 4 of 6"]
            points = [*(m.ledger for m in trial.milestones), trial.training]
            for axis in ("prompts", "trained_tokens", "flops", "seconds"):
                amounts = [point[axis] for point in points]
                assert amounts[0] > 0 and amounts == sorted(amounts), (label, axis)
            assert points[0]["flops"] < points[1]["flops"] < points[2]["flops"] < trial.ledger["flops"]
            assert points[2]["generated_tokens"] == trial.ledger["generated_tokens"] - trial.ledger["inference_tokens"]
            for milestone in trial.milestones:
                assert milestone.metrics.keys() == trial.metrics.keys()
    found = {each.axis: each for each in results.equal_budgets}
    assert list(found) == ["prompts", "generated_tokens", "flops", "seconds"]
    assert found["prompts"].budget == 48
    for label, summary in found["prompts"].policies.items():  # all took up all prompts: the final policies
        assert summary.mean == pytest.approx(results.algorithms[label].summary["gold"].mean)
    assert set(found["generated_tokens"].policies) == {"ppo", "rejection_sampling"}
    assert found["generated_tokens"].missing["dpo"] == "its training uses none"
    reached = {
        label: min(trial.training["flops"] for trial in results.algorithms[label].seeds.values())
        for label in found["flops"].policies
    }
    assert found["flops"].budget == min(reached.values()) and set(reached) == set(found["prompts"].policies)
    assert all(each.missing["best_of_n"] == "no policy was kept on its way" for each in found.values())
    page = (out / "report.html").read_text()
    assert "48 prompts" in page and "best_of_n (no policy was kept on its way)" in page
    assert (out / "figures" / "cost_prompts.svg").is_file() and "along training, against the prompts" in page
    assert json.loads((out / "results.json").read_text())["equal_budgets"][0]["axis"] == "prompts"
    assert load(out).equal_budgets == results.equal_budgets


def test_merged_runs_are_compared_at_equal_budgets_too_and_milestones_keep_no_runs_apart(along, tmp_path) -> None:
    results, out = along
    shutil.copytree(out, tmp_path / "again")
    assert merge([out, tmp_path / "again"], tmp_path / "merged").equal_budgets == results.equal_budgets
    assert "milestones" not in results.algorithms["dpo"].seeds["0"].identity["evaluation"]
