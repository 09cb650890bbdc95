"""Policies at equal cost, as a table and in words."""

from __future__ import annotations

from prefzoo.comparison.budgets import EqualBudget
from prefzoo.comparison.report.cost import Cells, charge
from prefzoo.comparison.results import Results

AXES = {
    "prompts": "prompts",
    "generated_tokens": "tokens sampled",
    "flops": "FLOPs",
    "seconds": "seconds",
}
EQUAL = (
    "Each column is an equal budget of training: the most that every trial of the policies in it used. A cell holds "
    "the mean over seeds and prompts and, in brackets, its difference to the start, paired by seed and prompt, with "
    "half of its 95% interval. Scores are interpolated linearly between the policies that were measured on the way, "
    "from the start at a budget of 0 to the final policy; nothing is extrapolated. The interval does not cover the "
    "error of interpolating, and a policy on the way has not come to the end of its learning-rate schedule, as one "
    "that is given no more would have. What is made once for all, as a reward model, is in no budget."
)


def budget_cells(results: Results, labels: list[str]) -> Cells | None:
    """A row for each policy, a column for each budget; None where no two policies were measured on the way."""
    columns = results.equal_budgets
    rows = [label for label in labels if any(label in each.policies for each in columns)]
    if not rows:
        return None
    cells = [[label, *[_cell(each, label) for each in columns]] for label in rows]
    return ["policy", *[f"{charge(each.axis, each.budget)} {AXES[each.axis]}" for each in columns]], cells


def budget_words(results: Results) -> str:
    """How to read that table, and which policies are not in it, and why."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in results.equal_budgets:
        for label, why in each.missing.items():
            reasons.setdefault((label, why), []).append(AXES[each.axis])
    everywhere = len(results.equal_budgets)
    said = [
        f"{label} ({why}{'' if len(axes) == everywhere else ': ' + ', '.join(axes)})"
        for (label, why), axes in reasons.items()
    ]
    return f"{EQUAL} Not in it: {'; '.join(said)}." if said else EQUAL


def _cell(column: EqualBudget, label: str) -> str:
    if label not in column.policies:
        return "-"
    over = column.over_start[label]
    half = f" ±{(over.ci95[1] - over.ci95[0]) / 2:.2f}" if over.ci95 else ""
    return f"{column.policies[label].mean:.2f} ({over.mean:+.2f}{half})"
