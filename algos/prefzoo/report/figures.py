"""Pictures of a comparison, each as SVG, for pages light or dark and for print, and as PNG."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefzoo.report import axes
from prefzoo.report.cost import format_number
from prefzoo.report.sections import PROSE, Picture
from prefzoo.results.analysis import PAIRS
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results, SeedResult, Summary
from prefzoo.results.training_history import read_curve
from prefzoo.run.stage_graph import START

INK = "#010203"
"""The colour of text and lines in a drawing; within a page it becomes the colour of the page's text."""
Curves = Mapping[str, Sequence[Sequence[Mapping[str, float]]]]
"""label -> for each seed the logged steps of its training."""
LOGGED = {
    "loss": "loss, of each one's own kind",
    "reward": "reward of the samples trained on",
    "rewards/margins": "implicit reward, chosen - rejected",
    "kl": "KL to the start (nats a token)",
    "rollout/kl": "KL to the start (nats a reply)",
    "entropy": "entropy (nats a token)",
}
"""What is drawn of training, under the names by which trainers log it. The loss of those that learn from a reward of
their samples is not: it stays about 0 whatever they learn."""


def training_curves(results: Results, out: Path) -> Curves:
    """Read what the trainings of a finished run logged."""
    return {
        label: [read_curve((out / trial.policy).parent) for trial in result.seeds.values() if trial.policy is not None]
        for label, result in results.algorithms.items()
    }


def pictures(results: Results, curves: Curves) -> list[Picture]:
    """Draw every picture that these results have the numbers for, the most important first."""
    labels = drawn_labels(results)
    height = _height(labels)
    return [*_measured(results, labels, height), *_trained(labels, curves, height)]


def _height(labels: list[str]) -> float:
    """Inches of a picture with a legend below it."""
    return 3.4 + 0.22 * -(-len(labels) // axes.legend_columns(labels))


def frontier(results: Results) -> Picture | None:
    """Draw the metric that decides against KL; where no KL was measured, by itself; None where nothing was."""
    labels = drawn_labels(results)
    drawn = _measured(results, labels, _height(labels)) if labels else iter(())
    first = {picture.name: picture for picture in itertools.islice(drawn, 2)}
    return first.get("frontier") or first.get("score")


def drawn_labels(results: Results) -> list[str]:
    """Return the labels that have a point, best first."""
    metric = results.primary
    scores = {label: r.summary[metric].mean for label, r in results.algorithms.items() if metric in r.summary}
    return sorted(scores, key=lambda label: -scores[label])


def _measured(results: Results, labels: list[str], height: float) -> Iterator[Picture]:
    """Draw what was measured."""
    metric = results.primary
    summaries = {label: results.algorithms[label].summary for label in labels}
    trials = {label: [*results.algorithms[label].seeds.values()] for label in labels}

    def picture(name: str, texts: Iterable[str], drawing: Any, height: float = height, **cost: str) -> Picture:
        caption = PROSE[f"{name}_picture"].format(metric=metric, Metric=metric.capitalize(), **cost)
        return draw(name, caption, ", ".join(texts), partial(drawing, results=results, labels=labels, **cost), height)

    texts = [f"{label} {_with_interval(summary[metric])}" for label, summary in summaries.items()]
    yield picture("score", texts, axes.score, 1.2 + 0.38 * max(4, len(labels)))
    if with_kl := {label: summary for label, summary in summaries.items() if "kl" in summary}:
        texts = [f"{k} {fixed(s[metric].mean)} at {fixed(s['kl'].mean)} nats" for k, s in with_kl.items()]
        yield picture("frontier", texts, axes.frontier)
    with_both = {label: summary for label, summary in summaries.items() if {"gold", "proxy"} <= summary.keys()}
    if with_both.keys() - {START}:
        texts = [f"{k} gold {fixed(s['gold'].mean)}, proxy {fixed(s['proxy'].mean)}" for k, s in with_both.items()]
        yield picture("gold_proxy", texts, axes.gold_proxy)
    if both := {k: s for k, s in summaries.items() if f"{PAIRS}margin" in s}:
        ends = {
            k: [fixed(s[f"{PAIRS}{side}"].mean, "+.2f") for side in ("chosen", "rejected")] for k, s in both.items()
        }
        texts = [f"{label} chosen {chosen}, rejected {rejected}" for label, (chosen, rejected) in ends.items()]
        yield draw(
            "likelihoods",
            PROSE["likelihoods_picture"],
            ", ".join(texts),
            partial(axes.likelihoods, results=results, labels=[*both]),
            1.2 + 0.38 * max(4, len(both)),
        )
    if results.equal_budgets:
        paths = {k: axes.path(trials[k][0], "ledger/prompts", metric) for k in labels if _mean(trials[k], "prompts")}
        points = {k: [f"{fixed(score)} at {format_number(x)}" for x, score in path] for k, path in paths.items()}
        texts = [f"{label} {', '.join(of_label)}" for label, of_label in points.items()]
        yield picture("cost_prompts", texts, axes.cost, ledger="prompts", unit="prompts")
    for name, unit in (("flops", "FLOPs"), ("seconds", "seconds")):
        costs = {label: _mean(trials[label], name) for label in labels if label != START}
        if any(costs.values()):
            texts = [f"{k} {fixed(summaries[k][metric].mean)} for {format_number(x)}" for k, x in costs.items()]
            yield picture(f"cost_{name}", texts, axes.cost, ledger=name, unit=unit)


def _mean(trials: Sequence[SeedResult], name: str) -> float:
    """Return the mean over trials of an entry of the ledger."""
    return sum(trial.ledger.get(name, 0.0) for trial in trials) / max(1, len(trials))


def _trained(labels: list[str], curves: Curves, height: float) -> Iterator[Picture]:
    """Draw each quantity that trainers logged."""
    for name, quantity in LOGGED.items():
        logged = {label: [c for c in curves.get(label, []) if _logs(c, name)] for label in labels}
        if of_seeds := {label: seeds for label, seeds in logged.items() if seeds}:
            caption = PROSE["training_picture"].format(quantity=quantity)
            text = ", ".join(f"{label} {_ends(seeds, name)}" for label, seeds in of_seeds.items())
            drawing = partial(axes.training, labels=labels, curves=of_seeds, name=name, quantity=quantity)
            yield draw(f"curve_{name.replace('/', '_')}", caption, text, drawing, height)


def _logs(curve: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(name in entry and not (name == "loss" and "reward" in entry) for entry in curve)


def _ends(curves: Sequence[Sequence[Mapping[str, float]]], name: str) -> str:
    """Return where curves begin and end, in the mean of the seeds."""
    values = [[entry[name] for entry in curve if name in entry] for curve in curves]
    first, last = (sum(of_seed[i] for of_seed in values) / len(values) for i in (0, -1))
    return f"{first:.3g} to {last:.3g}"


def _with_interval(summary: Summary) -> str:
    ends = f" ({fixed(summary.ci95[0])} to {fixed(summary.ci95[1])})" if summary.ci95 else ""
    return fixed(summary.mean) + ends


def draw(
    name: str, caption: str, text: str, drawing: Callable[[Any], None], height: float, shape: tuple[int, int] = (1, 1)
) -> Picture:
    """Make a picture of what `drawing` draws into matplotlib's axes, `height` inches high and 5.4 wide. With a `shape`
    of several rows and columns it is given an array of axes, which share their scale upwards."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style = {"svg.fonttype": "none", "svg.hashsalt": "prefzoo", "font.size": 11, **dict.fromkeys(colours, INK)}
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(5.4, height), layout="constrained")
        plots = figure.subplots(*shape, sharey=True)
        drawing(plots)
        for plot in figure.axes:
            plot.spines[["top", "right"]].set_visible(False)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.draw_without_rendering()
        for plot in figure.axes:
            axes.thin_ticks(plot)
        figure.set_layout_engine("none")  # it is laid out now; `savefig` would do it again for each file
        for patch in (figure.patch, *(plot.patch for plot in figure.axes)):
            patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(svg, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.patch.set_visible(True)
        figure.set_dpi(160)
        FigureCanvasAgg(figure).print_png(png)
    return Picture(name, caption, text, svg.getvalue().decode(), png.getvalue())
