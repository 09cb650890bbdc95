"""Policies at equal cost: how good each one was by the time it had used what the cheapest used in all."""

from __future__ import annotations

import numpy as np

from prefzoo.comparison.plan import START
from prefzoo.comparison.report.axes import amount, spent, way
from prefzoo.comparison.report.cost import Cells
from prefzoo.comparison.results import Results

BUDGETS = {
    "prompts": "prompts",
    "generated_tokens": "tokens sampled",
    "trained_tokens": "tokens trained on",
    "flops": "FLOPs",
    "seconds": "seconds",
}
SLACK = 1.05
"""Seeds of one policy differ a little in what they take."""
EQUAL = (
    "Each column is an equal budget: what the cheapest policy that used any of it took in all. A cell holds the mean "
    "over seeds of the latest policy that each trial kept within that budget (and 5% more); a dash: none was kept by "
    "then. Policies on the way have not paid for answering the test prompts, the final ones have."
)


def budget_cells(results: Results, labels: list[str]) -> Cells | None:
    """A row for each policy, a column for each budget; None where no policy was kept on the way."""
    trained = [label for label in labels if label != START]
    if not any(trial.milestones for label in trained for trial in results.algorithms[label].seeds.values()):
        return None
    least = {
        name: min((used for label in trained if (used := spent(results, label, name))), default=0.0) for name in BUDGETS
    }
    least = {name: used for name, used in least.items() if used}
    rows = [[label, *[_within(results, label, name, used) for name, used in least.items()]] for label in trained]
    return ["policy", *[f"{amount(used)} {BUDGETS[name]}" for name, used in least.items()]], rows


def _within(results: Results, label: str, name: str, budget: float) -> str:
    """The mean over seeds of the last point of each within the budget."""
    points = []
    for trial in results.algorithms[label].seeds.values():
        used_by = way(trial, f"ledger/{name}", results.primary)
        within = [score for used, score in used_by if used <= SLACK * budget]
        if within:
            points.append(within[-1])
    return f"{np.mean(points):.2f}" if len(points) == len(results.algorithms[label].seeds) else "-"
