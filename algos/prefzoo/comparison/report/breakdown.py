"""What is behind the one number: attributes, slices of prompts, and what is left at equal length."""

from __future__ import annotations

from dataclasses import dataclass

from prefzoo.comparison.length import LengthAdjusted
from prefzoo.comparison.plan import START
from prefzoo.comparison.report.cost import Cells
from prefzoo.comparison.results import Results

ADJUSTED = (
    "Longer replies are often preferred for being longer. Here each policy's outcome against the start is fitted by "
    "least squares on the difference of the two replies' lengths, over all seeds and prompts, and read where that "
    "difference is 0 (after Dubois et al. 2024, who fit a logistic model): the intercept, with a 95% interval that "
    "covers the error of the slope. It is an extrapolation for a policy whose replies all have other lengths than the "
    "start's."
)


@dataclass(frozen=True)
class HeatMap:
    """A table of means with how each differs from the start's.

    Attributes:
        title: what its columns are.
        headings: of the columns; the first is of the labels.
        rows: a label, and for each column a text and a heat from -1 (worst) through 0 (as the start) to 1 (best).
    """

    title: str
    headings: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]

    @property
    def cells(self) -> Cells:
        """The texts alone."""
        return self.headings, [[label, *[text for text, _ in cells]] for label, cells in self.rows]


def heat_maps(results: Results, labels: list[str]) -> list[HeatMap]:
    """Means by attribute of gold, and of the metric that decides by slice; only of what was measured."""
    metric = results.primary
    maps = [
        ("Parts of the gold reward", "gold/"),
        (f"{metric.capitalize()} reward by slice of the prompts", f"{metric}@"),
    ]
    return [found for title, prefix in maps if (found := _heat_map(results, labels, title, prefix)).headings[1:]]


def length_cells(results: Results) -> Cells | None:
    """A row for each policy at equal length; None where no policy has one."""
    rows = []
    for label, each in results.algorithms.items():
        found = each.length_adjusted
        if label != START and found is not None:
            rows.append([label, *_length_row(results, label, found)])
    headings = ["policy", "tokens over start", "over start", "over start at equal length [95%]", "wins"]
    return ([*headings, "wins at equal length [95%]", "a token more brings"], rows) if rows else None


def _length_row(results: Results, label: str, found: LengthAdjusted) -> list[str]:
    summary, start = results.algorithms[label].summary, results.algorithms[START].summary
    plain = summary[results.primary].mean - start[results.primary].mean
    wins = f"{summary['win_rate'].mean:.2f}" if "win_rate" in summary else "-"
    difference, win_rate = f"{found.difference:+.2f}", f"{found.win_rate:.2f}"
    if found.difference_ci95:
        difference += " [{:+.2f}, {:+.2f}]".format(*found.difference_ci95)
    if found.win_rate_ci95:
        win_rate += " [{:.2f}, {:.2f}]".format(*found.win_rate_ci95)
    return [f"{round(found.tokens, 1) + 0.0:+.1f}", f"{plain:+.2f}", difference, wins, win_rate, f"{found.slope:+.3f}"]


def _heat_map(results: Results, labels: list[str], title: str, prefix: str) -> HeatMap:
    summaries = {label: results.algorithms[label].summary for label in labels}
    start = summaries.get(START, {})
    names = [name for name in next(iter(summaries.values()), {}) if name.startswith(prefix)]
    shift = {
        (label, name): found[name].mean - start[name].mean
        for label, found in summaries.items()
        for name in names
        if name in found and name in start
    }
    most = max(map(abs, shift.values()), default=0.0) or 1.0
    rows = [
        (
            label,
            [
                (f"{found[name].mean:.2f}" if name in found else "-", shift.get((label, name), 0.0) / most)
                for name in names
            ],
        )
        for label, found in summaries.items()
    ]
    return HeatMap(title, ["policy", *[name.removeprefix(prefix) for name in names]], rows)
