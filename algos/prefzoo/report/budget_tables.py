"""Policies at equal cost, as tables and in words."""

from __future__ import annotations

from prefzoo.report.cost import Cells, charge
from prefzoo.results.equal_budgets import FINAL
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import EqualBudget, Results
from prefzoo.run.stage_graph import START

AXES = {
    "prompts": "prompts",
    "generated_tokens": "tokens sampled",
    "flops": "FLOPs",
    "seconds": "seconds",
}
EQUAL = (
    "Each column is a budget of training, what one of the algorithms used in all; those that used about the same share "
    "a column. A cell holds the mean over seeds and prompts of the policy that one would have for at most that much, "
    "and in brackets its difference to the start, paired by seed and prompt, and half its 95% interval. That is the "
    "latest policy that was measured by then. Nothing is interpolated: where a training had not come to its first "
    "measured policy, because it sampled or labelled before its first step, that policy is still the start; and one "
    "that had ended by then, marked final, used no more of the budget. A policy on the way has not come to the end of "
    "its learning-rate schedule, as one that is given no more would have. What is made once for all, as a reward "
    "model, is in no budget."
)


def budget_tables(results: Results, labels: list[str]) -> dict[str, Cells]:
    """For each axis, by its name, a row for each policy and a column for each budget; empty where no two policies were
    measured on the way."""
    tables = {}
    for axis, name in AXES.items():
        columns = [each for each in results.equal_budgets if each.axis == axis]
        rows = [label for label in labels if any(label in each.policies for each in columns)]
        if rows:
            headings = ["policy", *[f"{charge(axis, each.budget)} {name}" for each in columns]]
            tables[name] = headings, [[label, *[_cell(each, label) for each in columns]] for label in rows]
    return tables


def budget_words(results: Results) -> str:
    """How to read those tables, and which policies are not in them, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in results.equal_budgets:
        for label, why in each.missing.items():
            axes = reasons.setdefault((label, why), [])
            axes += [AXES[each.axis]] if AXES[each.axis] not in axes else []
    everywhere = len({each.axis for each in results.equal_budgets})
    said = [
        f"{label} ({why}{'' if len(axes) == everywhere else ': ' + ', '.join(axes)})"
        for (label, why), axes in reasons.items()
    ]
    return f"{EQUAL} Not in them: {'; '.join(said)}." if said else EQUAL


def _cell(column: EqualBudget, label: str) -> str:
    if label not in column.policies:
        return "-"
    mean, over = fixed(column.policies[label].mean), column.over_start[label]
    reached = set(column.reached.get(label, []))
    if reached == {START}:
        return f"{mean} (start)"
    half = f" ±{(over.ci95[1] - over.ci95[0]) / 2:.2f}" if over.ci95 else ""
    return f"{mean} ({fixed(over.mean, '+.2f')}{half}){' final' if reached == {FINAL} else ''}"
