"""What policies gained and gave up in each dimension, in a table and in small pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

from prefzoo.report import axes
from prefzoo.report.figures import draw
from prefzoo.report.sections import PROSE, Cells, Figures, Part, Picture, Points, Section, Table, Text
from prefzoo.results.analysis import DIMENSION
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results, Summary
from prefzoo.run.stage_graph import START

A_ROW = 3
"""Small pictures beside each other."""


def dimension_section(results: Results, labels: Sequence[str], drawn: Mapping[str, Picture]) -> Section:
    """Return the section; empty where replies were measured in no dimension. `labels` in the order of the rows."""
    if not (names := dimensions_of(results)):
        return Section("dimensions", "", [])
    parts: list[Part] = [Points(found)] if (found := sentences(results, labels)) else []
    parts += [
        Table(dimension_cells(results, labels), "policies by dimension, against the start", key="dimensions"),
        *([Figures([drawn["dimensions"]])] if "dimensions" in drawn else []),
        Text(PROSE["dimensions"].format(count=len(names))),
    ]
    return Section("dimensions", "By dimension", parts)


def dimensions_of(results: Results) -> list[str]:
    """Return the metrics of dimensions, as the start has them."""
    start = results.algorithms.get(START)
    return [name for name in (start.summary if start else {}) if name.startswith(DIMENSION)]


def _verdicts(results: Results) -> dict[tuple[str, str], str]:
    return {(each.a, each.metric): each.verdict for each in results.verdicts if each.metric.startswith(DIMENSION)}


def sentences(results: Results, labels: Sequence[str]) -> list[str]:
    """Return for each policy in which dimensions it is better and in which worse than the start."""
    verdicts, found = _verdicts(results), []
    for label in labels:
        of_label = {
            kind: [n.removeprefix(DIMENSION) for n in dimensions_of(results) if verdicts.get((label, n)) == kind]
            for kind in ("better", "worse")
        }
        said = [f"{kind} in {', '.join(names)}" for kind, names in of_label.items() if names]
        if said:
            found.append(f"{label}: {'; '.join(said)}.")
    return found


def dimension_cells(results: Results, labels: Sequence[str]) -> Cells:
    """Return a row for each policy: the mean of each dimension, its interval and its verdict against the start."""
    names, verdicts = dimensions_of(results), _verdicts(results)
    rows = []
    for label in dict.fromkeys([*labels, START]):
        summary = results.algorithms[label].summary
        rows.append([label, *[metric_cell(summary.get(name), verdicts.get((label, name))) for name in names]])
    return ["policy", *[name.removeprefix(DIMENSION) for name in names]], rows


def metric_cell(summary: Summary | None, verdict: str | None) -> str:
    """Return a mean, and behind it the interval and the verdict where there is one."""
    if summary is None:
        return "-"
    ends = f" {interval(*summary.ci95, sign='')}" if summary.ci95 and verdict else ""
    return f"{fixed(summary.mean)}{ends}{f' {verdict}' if verdict else ''}"


def dimension_picture(results: Results, labels: Sequence[str]) -> Picture | None:
    """Draw each dimension beside the others, its policies below each other with 95% intervals; None without any."""
    names, drawn = dimensions_of(results), [label for label in labels if label != START]
    shown = [label for label in drawn if {*names} <= results.algorithms[label].summary.keys()]
    if not names or not shown:
        return None
    rows = -(-len(names) // A_ROW)
    text = "; ".join(
        f"{name.removeprefix(DIMENSION)}: "
        + ", ".join(f"{label} {fixed(results.algorithms[label].summary[name].mean)}" for label in shown)
        for name in names
    )
    drawing = partial(axes.dimensions, results=results, labels=shown, names=names)
    height = rows * (0.9 + 0.26 * len(shown))
    return draw("dimensions", PROSE["dimensions_picture"], text, drawing, height, (rows, min(A_ROW, len(names))))
