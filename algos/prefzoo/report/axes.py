"""What is drawn into the axes of each picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefzoo.judges.judge_audit import Bin
from prefzoo.results.analysis import PAIRS
from prefzoo.results.human_schema import HumanPair, WinRate
from prefzoo.results.results_schema import Milestone, Results, SeedResult, Summary
from prefzoo.run.stage_graph import START

COLOURS = ("C0", "C1", "C2", "C3", "C4", "C5", "C6", "C8", "C9")
"""The colours of matplotlib without the grey one, which would be taken for the start."""
MARKERS = "osD^vPX"
"""With nine colours they tell 63 policies apart, some of them without seeing colour."""
LINES = ("-", "--", ":", "-.")
"""Styles of the policies that have a colour first, of those that have it again, and so on."""
TICK_GAP = 3.0
"""Least distance of the labels of two ticks, in pixels of the layout."""
LEAST_HEIGHT = 1e-3
"""Of a drawing of curves; smaller ones are rounding."""
Curve = Sequence[Mapping[str, float]]


def score(axes: Any, results: Results, labels: list[str]) -> None:
    """Draw the metric that decides, best on top, each seed beside its mean."""
    metric = results.primary
    for i, label in enumerate(reversed(labels)):
        result, style = results.algorithms[label], style_of(label, labels)
        seeds = [trial.metrics[metric] for trial in result.seeds.values() if metric in trial.metrics]
        axes.plot(seeds, [i] * len(seeds), "|", color=style["color"], alpha=0.6, markersize=9)
        axes.errorbar(result.summary[metric].mean, i, xerr=_error(result.summary[metric]), capsize=3, **style)
    _line_of_start(axes.axvline, results)
    axes.set_yticks(range(len(labels)), labels[::-1])
    axes.set(xlabel=f"{metric} reward", ylim=(-0.6, len(labels) - 0.4))


def by_answers(axes: Any, found: Mapping[str, Sequence[tuple[float, Summary]]], metric: str) -> None:
    """Draw each label's mean and interval against the answers of people that a training had used."""
    for i, (label, points) in enumerate(found.items()):
        counts, means = [count for count, _ in points], [summary.mean for _, summary in points]
        errors = [[summary.mean - _reach(summary)[0] for _, summary in points]]
        errors += [[_reach(summary)[1] - summary.mean for _, summary in points]]
        style = {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)]}
        axes.errorbar(counts, means, yerr=errors, capsize=3, label=label, **style)
    axes.set(xlabel="people's answers, of one training", ylabel=f"{metric} reward")
    axes.legend(frameon=False)


def likelihoods(axes: Any, results: Results, labels: list[str]) -> None:
    """Draw the log-ratios of chosen and rejected replies, joined for each policy."""
    for i, label in enumerate(reversed(labels)):
        summary, style = results.algorithms[label].summary, style_of(label, labels)
        ends = [summary[f"{PAIRS}{side}"] for side in ("chosen", "rejected")]
        axes.plot([end.mean for end in ends], [i, i], color=style["color"], linewidth=1)
        for end, face in zip(ends, (style["color"], "white"), strict=True):
            axes.errorbar(end.mean, i, xerr=_error(end), capsize=3, markerfacecolor=face, **style)
    axes.axvline(0, color="0.6", linewidth=1, zorder=0)
    axes.set_yticks(range(len(labels)), labels[::-1])
    axes.set(xlabel="log-ratio to the start (nats a reply)", ylim=(-0.6, len(labels) - 0.4))


def dimensions(plots: Any, results: Results, labels: list[str], names: list[str]) -> None:
    """Draw one dimension in each of these axes: policies below each other, and the start's mean as a line."""
    flat, start = np.atleast_1d(plots).ravel(), results.algorithms[START].summary
    asked = [name for name in names if start[name].mean == 0.5]  # probabilities: on one scale
    ends = [end for name in asked for label in labels for end in _reach(results.algorithms[label].summary[name])]
    margin = 0.05 * (max(ends, default=0.5) - min(ends, default=0.5)) + 0.01
    for plot, name in zip(flat, names, strict=False):
        for i, label in enumerate(reversed(labels)):
            mean = results.algorithms[label].summary[name]
            plot.errorbar(mean.mean, i, xerr=_error(mean), capsize=2, **style_of(label, labels))
        plot.axvline(start[name].mean, color="0.6", linewidth=1, zorder=0)
        if name in asked:
            plot.set_xlim(min(*ends, 0.5) - margin, max(*ends, 0.5) + margin)
        plot.set_title(name.partition("/")[2], fontsize=10)
        plot.set_yticks(range(len(labels)), labels[::-1])
        plot.set_ylim(-0.6, len(labels) - 0.4)
        plot.xaxis.get_major_locator().set_params(nbins=3)
    for plot in flat[len(names) :]:
        plot.set_axis_off()


def _reach(summary: Summary) -> tuple[float, float]:
    return summary.ci95 or (summary.mean, summary.mean)


def frontier(axes: Any, results: Results, labels: list[str]) -> None:
    """Draw the metric that decides against KL, every seed and milestone."""
    _cloud(axes, results, labels, "kl", results.primary)
    axes.set_xscale("function", functions=(lambda x: np.sqrt(np.maximum(x, 0)), np.square))
    axes.set_xlim(left=0)
    axes.xaxis.get_major_locator().set_params(nbins=6)
    _line_of_start(axes.axhline, results)
    axes.set(xlabel="KL to the start (nats a reply)", ylabel=f"{results.primary} reward")


def gold_proxy(axes: Any, results: Results, labels: list[str]) -> None:
    """Draw gold against proxy, with an arrow from the start to each policy."""
    _cloud(axes, results, labels, "proxy", "gold")
    start = results.algorithms[START].summary
    for label in labels:
        ends = (results.algorithms[label].summary, start)
        if label != START and all({"gold", "proxy"} <= end.keys() for end in ends):
            arrow = {"arrowstyle": "->", "alpha": 0.6, "shrinkA": 2, "shrinkB": 4}
            points = [(end["proxy"].mean, end["gold"].mean) for end in ends]
            axes.annotate("", *points, arrowprops={**arrow, "color": style_of(label, labels)["color"]})
    axes.set(xlabel="proxy reward", ylabel="gold reward")


def cost(axes: Any, results: Results, labels: list[str], ledger: str, unit: str) -> None:
    """Draw the metric that decides against an entry of the ledger, on a logarithmic scale."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    _cloud(axes, results, [label for label in labels if label != START], f"ledger/{ledger}", results.primary, labels)
    _line_of_start(axes.axhline, results)
    axes.set_xscale("log")
    low, high = axes.get_xlim()
    subs = (1, 2, 3, 5) if high < 20 * low else (1, 3) if high < 1000 * low else (1,)
    axes.xaxis.set_major_locator(LogLocator(subs=subs, numticks=12))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel=unit, ylabel=f"{results.primary} reward")


def training(axes: Any, labels: list[str], curves: Mapping[str, Sequence[Curve]], name: str, quantity: str) -> None:
    """Draw what trainers logged under `name` by step: each seed thin, their mean thick."""
    from matplotlib.ticker import MaxNLocator

    for label, of_seeds in curves.items():
        colour = style_of(label, labels)["color"]
        by_step: dict[float, list[float]] = {}
        for curve in of_seeds:
            logged = [(entry["step"], entry[name]) for entry in curve if name in entry]
            for step, value in logged:
                by_step.setdefault(step, []).append(value)
            if len(of_seeds) > 1:
                axes.plot(*zip(*logged, strict=True), color=colour, linewidth=0.8, alpha=0.3)
        complete = {step: values for step, values in by_step.items() if len(values) == len(of_seeds)}
        means = sorted((step, float(np.mean(values))) for step, values in complete.items())
        if means:
            line = {"marker": "o", "markersize": 3} if len(means) < 3 else {}
            axes.plot(
                *zip(*means, strict=True), dashes_of(label, labels), color=colour, linewidth=2, label=label, **line
            )
    last = max((entry["step"] for of_seeds in curves.values() for curve in of_seeds for entry in curve), default=1)
    axes.set_xlim(0, max(2, 1.04 * last))  # one step alone would have a scale of hundredths of a step
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    low, high = axes.get_ylim()
    if high - low < LEAST_HEIGHT:
        axes.set_ylim((low + high - LEAST_HEIGHT) / 2, (low + high + LEAST_HEIGHT) / 2)
    draw_legend(axes)
    axes.set(xlabel="optimizer step", ylabel=quantity)


def thin_ticks(axes: Any) -> None:
    """Leave out labels of ticks that would touch the one before; call it when the figure is laid out."""
    for axis, side in ((axes.xaxis, 0), (axes.yaxis, 1)):
        end = float("-inf")
        boxes = [(tick.label1.get_window_extent(), tick) for tick in axis.get_major_ticks() if tick.label1.get_text()]
        for box, tick in sorted(boxes, key=lambda each: float(each[0].min[side])):
            if box.min[side] < end + TICK_GAP:
                tick.label1.set_visible(False)
            elif tick.label1.get_visible():
                end = box.max[side]


def calibration(axes: Any, bins: Sequence[Bin]) -> None:
    """Draw how often a judge is right by how sure it is, with the number of pairs at each point."""
    axes.plot([0.5, 1], [0.5, 1], color="0.6", linewidth=1, linestyle="--", label="right as often as sure")
    for b in bins:
        if b.mean is not None and b.right is not None:
            errors = [[b.right.share - b.right.ci95[0]], [b.right.ci95[1] - b.right.share]]
            axes.errorbar(b.mean, b.right.share, yerr=errors, fmt="o", capsize=3, color="C0")
            axes.annotate(f"{b.pairs}", (b.mean, b.right.share), (6, -14), textcoords="offset points")
    axes.set(xlabel="how sure the judge is of the reply it prefers", ylabel="how often it is right (95% interval)")
    axes.set(xlim=(0.48, 1.04), ylim=(-0.02, 1.04))
    axes.legend(loc="lower right", frameon=False, fontsize=9)


def win_rates(axes: Any, pairs: Sequence[HumanPair], instrument: str) -> None:
    """Draw the win rates of each pair by the judge alone, by people alone, and joined, with 95% intervals."""
    ways = {instrument: ("judge", "C1", "s"), "people": ("people", "C0", "o"), "joined": ("joined", "C2", "D")}
    for place, (name, (attribute, colour, marker)) in enumerate(ways.items()):
        for i, pair in enumerate(reversed(pairs)):
            each: WinRate = getattr(pair, attribute)
            errors = [[each.mean - each.ci95[0]], [each.ci95[1] - each.mean]]
            style = {"color": colour, "fmt": marker, "capsize": 3, "label": name if i == 0 else None}
            axes.errorbar(each.mean, i + 0.22 * (1 - place), xerr=errors, **style)
    axes.axvline(0.5, color="0.6", linewidth=1, zorder=0)
    axes.set_yticks(range(len(pairs)), [f"{pair.a} - {pair.b}" for pair in reversed(pairs)])
    axes.set(xlabel="share of prompts won (ties half)", xlim=(0, 1), ylim=(-0.5, len(pairs) - 0.5))
    draw_legend(axes)


def _cloud(
    axes: Any, results: Results, labels: Sequence[str], x: str, y: str, all_labels: Sequence[str] | None = None
) -> None:
    """Draw each policy's mean large with its interval of `y`, and each seed small, joined to its milestones."""
    heights, errors = [], []
    for label in labels:
        style = style_of(label, all_labels or labels)
        small = {"color": style["color"], "marker": style["fmt"], "markersize": 3.5, "alpha": 0.5, "linewidth": 0.8}
        paths = [points for trial in results.algorithms[label].seeds.values() if (points := path(trial, x, y))]
        for points in paths:
            axes.plot(*zip(*points, strict=True), **small, clip_on=False)
            heights += [height for _, height in points]
        if paths:
            summary = results.algorithms[label].summary.get(y)
            middle = np.mean([points[-1] for points in paths], axis=0)
            error = _error(summary) if summary else None
            axes.errorbar(*middle, yerr=error, capsize=3, color=style["color"], fmt="none")
            errors += [(middle[1], *np.ravel(error))] if error else []
            large = {"marker": style["fmt"], "markersize": 8, "markeredgecolor": "white", "linestyle": "none"}
            axes.plot(*middle, **large, color=style["color"], label=label, zorder=3, clip_on=False)
    usual = np.median([low + high for _, low, high in errors]) if errors else 0.0
    for middle, low, high in errors:  # one may be so wide that nothing else could be told apart
        heights += [middle - low, middle + high] if low + high <= 3 * usual else []
    if heights:
        margin = 0.07 * (max(heights) - min(heights)) or 0.5
        axes.set_ylim(min(heights) - margin, max(heights) + margin)
    draw_legend(axes)


def path(trial: SeedResult, x: str, y: str) -> list[tuple[float, float]]:
    """Return the points of a trial, its milestones in order and the final policy; those that cost nothing are left out
    of a logarithmic scale of costs."""
    points = []
    policies: list[Milestone | SeedResult] = [*trial.milestones, trial]
    for policy in policies:
        numbers = {**policy.metrics, **{f"ledger/{name}": value for name, value in policy.ledger.items()}}
        if x in numbers and y in numbers and (numbers[x] > 0 or not x.startswith("ledger/")):
            points.append((numbers[x], numbers[y]))
    return points


def draw_legend(axes: Any) -> None:
    """Put the legend below the axes, because policies that lie close together would write over each other."""
    if axes.get_legend_handles_labels()[0]:
        columns = legend_columns(axes.get_legend_handles_labels()[1])
        axes.figure.legend(
            loc="outside lower left", ncols=columns, fontsize=10, columnspacing=1.2, handletextpad=0.4, frameon=False
        )


def legend_columns(labels: Sequence[str]) -> int:
    """Return how many names fit beside each other."""
    return max(1, min(3, 72 // (max(map(len, labels), default=0) + 4)))


def _line_of_start(draw_line: Any, results: Results) -> None:
    if summary := results.algorithms[START].summary.get(results.primary):
        draw_line(summary.mean, color="0.6", linewidth=1, zorder=0)


def style_of(label: str, labels: Sequence[str]) -> dict[str, str]:
    """Return colour and marker of a policy, the same in every picture and whatever its rank."""
    if label == START:
        return {"color": "0.5", "fmt": "p"}
    place = _place(label, labels)
    return {"color": COLOURS[place % len(COLOURS)], "fmt": MARKERS[place % len(MARKERS)]}


def dashes_of(label: str, labels: Sequence[str]) -> str:
    return LINES[_place(label, labels) // len(COLOURS) % len(LINES)]


def _place(label: str, labels: Sequence[str]) -> int:
    return sorted({*labels, START}, key=lambda name: (name != START, name)).index(label) - 1


def _error(summary: Summary) -> list[list[float]] | None:
    if summary.ci95 is None:
        return None
    return [[summary.mean - summary.ci95[0]], [summary.ci95[1] - summary.mean]]
