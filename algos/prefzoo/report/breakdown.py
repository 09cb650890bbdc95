"""What is behind the one number: attributes, slices of prompts, and what is left at equal length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from prefzoo.report.cost import Cells
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import AlgorithmResult, LengthAdjusted, Results, Summary
from prefzoo.run.stage_graph import START

ADJUSTED = (
    "Longer replies are often preferred for being longer. Here each policy's outcome against the start is fitted by "
    "least squares on the difference of the two replies' lengths, over all seeds and prompts, and read where that "
    "difference is 0 (after Dubois et al. 2024, who fit a logistic model): the intercept, with a 95% interval that "
    "covers the error of the slope. It is an extrapolation for a policy whose replies all have other lengths than the "
    "start's."
)


@dataclass(frozen=True)
class HeatMap:
    """A table of numbers and of how each differs from the start's.

    Attributes:
        title: what its columns are.
        headings: of the columns; the first is of the labels.
        rows: a label, and for each column a text and a heat from -1 (worst) through 0 (not clearly other than the
            start) to 1 (best).
    """

    title: str
    headings: list[str]
    rows: list[tuple[str, list[tuple[str, float]]]]

    @property
    def cells(self) -> Cells:
        """The texts alone."""
        return self.headings, [[label, *[text for text, _ in cells]] for label, cells in self.rows]


def heat_maps(results: Results, labels: list[str]) -> list[HeatMap]:
    """Means and differences to the start by attribute of gold, and of the metric that decides by slice with its number
    of prompts; only of what was measured."""
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
    wins = fixed(summary["win_rate"].mean) if "win_rate" in summary else "-"
    difference, win_rate = fixed(found.difference, "+.2f"), fixed(found.win_rate)
    if found.difference_ci95:
        difference += f" {interval(*found.difference_ci95)}"
    if found.win_rate_ci95:
        win_rate += f" {interval(*found.win_rate_ci95, sign='')}"
    slope = fixed(found.slope, "+.3f")
    return [fixed(found.tokens, "+.1f"), fixed(plain, "+.2f"), difference, wins, win_rate, slope]


def _heat_map(results: Results, labels: list[str], title: str, prefix: str) -> HeatMap:
    found = results.algorithms
    names = [name for name in (found[labels[0]].summary if labels else {}) if name.startswith(prefix)]
    clear = [abs(over.mean) for label in labels for name in names if _clear(over := found[label].over_start.get(name))]
    rows = [(label, [_cell(found[label], name, max(clear, default=1.0)) for name in names]) for label in labels]
    parts = [name.removeprefix(prefix) for name in names]
    counts = results.slices if prefix.endswith("@") else {}  # results of older versions have none
    counted = [f"{part} ({counts[part]} prompts)" if part in counts else part for part in parts]
    return HeatMap(title, ["policy", *counted], rows)


def _cell(each: AlgorithmResult, name: str, most: float) -> tuple[str, float]:
    if name not in each.summary:
        return "-", 0.0
    text, over = fixed(each.summary[name].mean), each.over_start.get(name)
    if over is None:
        return text, 0.0
    return f"{text} ({fixed(over.mean, '+.2f')}{_half(over)})", over.mean / most if _clear(over) else 0.0


def _half(over: Summary) -> str:
    return f"\N{NO-BREAK SPACE}±{(over.ci95[1] - over.ci95[0]) / 2:.2f}" if over.ci95 else ""


def _clear(over: Summary | None) -> TypeGuard[Summary]:
    return over is not None and over.ci95 is not None and not over.ci95[0] <= 0 <= over.ci95[1]
