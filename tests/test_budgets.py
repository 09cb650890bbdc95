"""Policies at equal budgets: what one would have by hand, and a comparison that measured policies on their way."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

import prefzoo
from conftest import SMALL
from prefzoo.commands.merge_runs import merge
from prefzoo.report.cost import answer_cells
from prefzoo.results.equal_budgets import Point, budgets, compare
from prefzoo.results.results_file import load

START = np.array([0.0, 1.0])


def way(*points: tuple[float, float, float], axis: str = "flops") -> list[Point]:
    """The start at 0, and then a budget and the scores of two prompts for each point."""
    names = [*(f"step {i}" for i in range(1, len(points))), "final"]
    on = [Point(name, {axis: used}, np.array(scores)) for name, (used, *scores) in zip(names, points, strict=True)]
    return [Point("start", {}, START), *on]


def test_at_a_budget_one_has_the_latest_policy_that_used_no_more_by_hand() -> None:
    ways = {
        "a": [way((10, 2, 3), (40, 8, 9)), way((10, 2, 3), (20, 4, 5))],
        "b": [way((30, 4, 5), (80, 0, 0))] * 2,
    }
    at_40, at_80 = compare("flops", ways, {"best_of_n": "why"})
    assert (at_40.budget, at_80.budget, at_40.missing) == (40, 80, {"best_of_n": "why"})
    assert at_40.reached == {"a": ["final", "final"], "b": ["step 1", "step 1"]}
    assert at_40.policies["a"].mean == pytest.approx((8 + 9 + 4 + 5) / 4) and at_40.policies["b"].mean == 4.5
    assert at_80.reached["b"] == ["final", "final"] and at_80.policies["b"].mean == 0.0
    assert at_80.policies["a"] == at_40.policies["a"], "that training had ended"
    # over the start, (0, 1): the differences of a are 8, 8, 4, 4, those of b all 4
    assert at_40.over_start["a"].mean == 6 and at_40.over_start["b"].mean == 4


def test_before_its_first_policy_a_training_has_the_start_and_no_share_of_what_comes() -> None:
    """Rejection sampling has paid for its samples before its first step."""
    ways = {"a": [way((90, 8, 9), (100, 8, 9))], "b": [way((10, 1, 2), (30, 2, 3))]}
    at_30, at_100 = compare("flops", ways, {})
    assert at_30.reached == {"a": ["start"], "b": ["final"]}
    assert at_30.policies["a"].mean == 0.5
    assert (at_30.over_start["a"].mean, at_30.over_start["a"].ci95) == (0.0, (0.0, 0.0))
    assert at_100.over_start["a"].mean == 8.0


def test_what_uses_none_of_a_budget_is_missing() -> None:
    ways = {label: [way((used, 1, 1), (2 * used, 3, 3))] for label, used in (("a", 5), ("b", 8), ("sft", 0))}
    found = compare("flops", ways, {})
    assert [each.budget for each in found] == [10, 16] and set(found[0].policies) == {"a", "b"}
    assert found[0].missing == {"sft": "its training uses none"}
    assert compare("seconds", ways, {}) == []
    assert compare("flops", {label: ways[label] for label in ("a", "sft")}, {}) == []


def test_of_several_policies_at_one_budget_the_latest_counts() -> None:
    """Rejection sampling has taken up all prompts before its first step."""
    ways = {"a": [way((8, 1, 1), (8, 2, 2), (8, 3, 3))], "b": [way((4, 1, 1), (8, 5, 5))]}
    (found,) = compare("flops", ways, {})
    assert {k: v.mean for k, v in found.policies.items()} == {"a": 3.0, "b": 5.0}


def test_budgets_are_where_trainings_end_at_most_five_and_near_ones_once() -> None:
    assert budgets([100, 10, 100]) == [10, 100]
    assert budgets([95, 100, 89]) == [89, 100], "95 is within a tenth of 100, 89 is not"
    assert budgets([1, 2, 4, 8, 16, 32, 64, 128, 256]) == [1, 4, 16, 64, 256]


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
                assert milestone.metrics.keys() == {m for m in trial.metrics if not m.startswith("pairs/")}
    found: dict[str, list] = {}
    for each in results.equal_budgets:
        found.setdefault(each.axis, []).append(each)
        for label, reached in each.reached.items():
            if reached == ["start"]:
                assert each.over_start[label].ci95 == (0.0, 0.0)
            if reached == ["final"]:
                assert each.policies[label].mean == pytest.approx(results.algorithms[label].summary["gold"].mean)
    assert list(found) == ["prompts", "generated_tokens", "flops", "seconds"]
    (prompts,) = found["prompts"]
    assert prompts.budget == 48 and all(reached == ["final"] for reached in prompts.reached.values())
    assert all(set(each.policies) == {"ppo", "rejection_sampling"} for each in found["generated_tokens"])
    assert found["generated_tokens"][0].missing["dpo"] == "its training uses none"
    ended = {label: results.algorithms[label].seeds["0"].training["flops"] for label in prompts.policies}
    assert {each.budget for each in found["flops"]} <= set(ended.values())
    assert found["flops"][-1].budget == max(ended.values())
    first = results.algorithms["rejection_sampling"].seeds["0"].milestones[0].ledger
    assert found["flops"][0].budget < first["flops"], "it has sampled for more before its first policy"
    assert found["flops"][0].reached["rejection_sampling"] == ["start"]
    assert prompts.missing == {"best_of_n": "nothing is trained: it pays for each answer"}
    headings, rows = answer_cells(results) or ([], [])
    answers = {row[0]: dict(zip(headings, row, strict=True)) for row in rows}
    assert float(answers["best_of_n"]["times the start's"]) > 2
    dpo, dear, start = (results.algorithms[label].seeds["0"] for label in ("dpo", "best_of_n", "start"))
    assert answers["start"]["tokens an answer"] == f"{start.ledger['inference_tokens'] / 16:.1f}"
    an_answer = (dear.ledger["flops"] - (dpo.ledger["flops"] - dpo.training["flops"])) / 16
    assert answers["dpo"]["best_of_n costs more after"] == f"{dpo.training['flops'] / an_answer:,.0f} answers"
    page = (out / "report.html").read_text()
    assert len(results.workers) == 1 and f"stages that ran {results.workers[0]} at a time on one machine" in page
    assert "48 prompts" in page and "best_of_n (nothing is trained: it pays for each answer)" in page
    assert (out / "figures" / "cost_prompts.svg").is_file() and "along training, against the prompts" in page
    assert json.loads((out / "results.json").read_text())["equal_budgets"][0]["axis"] == "prompts"
    assert load(out).equal_budgets == results.equal_budgets


def test_merged_runs_are_compared_at_equal_budgets_too_and_milestones_keep_no_runs_apart(along, tmp_path) -> None:
    results, out = along
    shutil.copytree(out, tmp_path / "again")
    assert merge([out, tmp_path / "again"], tmp_path / "merged").equal_budgets == results.equal_budgets
    assert "milestones" not in results.algorithms["dpo"].seeds["0"].identity["evaluation"]
