"""What is behind the one number: attributes of the gold reward, slices of the prompts, and replies of equal length."""

from __future__ import annotations

from typing import TypeGuard

from prefzoo.report.sections import PROSE, Cells, Part, Section, Table, Text
from prefzoo.results.number_format import fixed, interval, with_error
from prefzoo.results.results_schema import AlgorithmResult, LengthAdjusted, Results, Summary
from prefzoo.run.stage_graph import START

NO_BREAK = "\N{NO-BREAK SPACE}"


def breakdown_sections(results: Results, labels: list[str]) -> list[Section]:
    """Return one section for a page, and for Markdown, which has no captions, one for each table."""
    maps = heat_maps(results, labels)
    parts: list[Part] = [*maps, *([Text(PROSE["heat"])] if maps else [])]
    in_markdown = [Section("breakdown", table.title, [table], only=("markdown",)) for table in maps]
    if cells := length_cells(results):
        title = "At equal length"
        adjusted = [
            Table(cells, "each policy against the start at equal length", key=title.lower()),
            Text(PROSE["equal_length"]),
        ]
        parts += [Text(title, "heading"), *adjusted]
        in_markdown.append(Section("breakdown", title, adjusted, only=("markdown",)))
    return [Section("breakdown", "Attributes and length", parts, only=("html",)), *in_markdown]


def heat_maps(results: Results, labels: list[str]) -> list[Table]:
    """Return means and differences to the start by attribute of gold, and of the metric that decides by slice with its
    number of prompts; only of what was measured."""
    metric = results.primary
    maps = (
        _heat_map(results, labels, "Parts of the gold reward", "gold/"),
        _heat_map(results, labels, "Parts of the reward that was learned from, each times its weight", "proxy/"),
        _heat_map(results, labels, f"{metric.capitalize()} reward by slice of the prompts", f"{metric}@"),
    )
    return [table for table in maps if table.cells[0][1:]]


def length_cells(results: Results) -> Cells | None:
    """Return a row for each policy at equal length; None where no policy has one."""
    rows = [
        [label, *_length_row(results, label, result.length_adjusted)]
        for label, result in results.algorithms.items()
        if label != START and result.length_adjusted is not None
    ]
    headings = ["policy", "tokens over start", "over start", "over start at equal length [95%]", "wins"]
    return ([*headings, "wins at equal length [95%]", "a token more brings"], rows) if rows else None


def _length_row(results: Results, label: str, adjusted: LengthAdjusted) -> list[str]:
    summary, start = results.algorithms[label].summary, results.algorithms[START].summary
    unadjusted = summary[results.primary].mean - start[results.primary].mean
    wins = fixed(summary["win_rate"].mean) if "win_rate" in summary else "-"
    difference, win_rate = fixed(adjusted.difference, "+.2f"), fixed(adjusted.win_rate)
    if adjusted.difference_ci95:
        difference += f" {interval(*adjusted.difference_ci95)}"
    if adjusted.win_rate_ci95:
        win_rate += f" {interval(*adjusted.win_rate_ci95, sign='')}"
    slope = fixed(adjusted.slope, "+.3f")
    return [fixed(adjusted.tokens, "+.1f"), fixed(unadjusted, "+.2f"), difference, wins, win_rate, slope]


def _heat_map(results: Results, labels: list[str], title: str, prefix: str) -> Table:
    """Return a table of the metrics that begin with `prefix`, coloured where it clearly differs from the start."""
    of_label = results.algorithms
    names = [name for name in (of_label[labels[0]].summary if labels else {}) if name.startswith(prefix)]
    over_start = {label: [of_label[label].over_start.get(name) for name in names] for label in labels}
    most = max((abs(s.mean) for label in labels for s in over_start[label] if _is_clear(s)), default=1.0)
    heat = [[s.mean / most if _is_clear(s) else 0.0 for s in over_start[label]] for label in labels]
    rows = [[label, *[_cell(of_label[label], name) for name in names]] for label in labels]
    prompts = results.slices if prefix.endswith("@") else {}  # results of older versions have none
    parts = [name.removeprefix(prefix) for name in names]
    headings = [f"{part} ({_size(results, part)})" if part in prompts else part for part in parts]
    return Table((["policy", *headings], rows), title, title, heat, key=title)


def _size(results: Results, part: str) -> str:
    groups = f", {results.slice_groups[part]} groups" if part in results.slice_groups else ""
    return f"{results.slices[part]} prompts{groups}"


def _cell(result: AlgorithmResult, name: str) -> str:
    if name not in result.summary:
        return "-"
    mean, over = fixed(result.summary[name].mean), result.over_start.get(name)
    if over is None:
        return mean
    return f"{mean} ({with_error(over.mean, over.ci95, '+').replace(' ', NO_BREAK)})"


def _is_clear(over: Summary | None) -> TypeGuard[Summary]:
    return over is not None and over.ci95 is not None and not over.ci95[0] <= 0 <= over.ci95[1]
