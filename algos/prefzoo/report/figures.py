"""Pictures of a comparison, each as SVG, for pages light or dark and for print, and as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefzoo.report import axes
from prefzoo.report.sections import Picture
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
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
    height = 3.4 + 0.22 * -(-len(labels) // axes.legend_columns(labels))
    return [*_measured(results, labels, height), *_trained(labels, curves, height)]


def drawn_labels(results: Results) -> list[str]:
    """Return the labels that have a point, best first."""
    metric = results.primary
    scores = {label: r.summary[metric].mean for label, r in results.algorithms.items() if metric in r.summary}
    return sorted(scores, key=lambda label: -scores[label])


def _measured(results: Results, labels: list[str], height: float) -> Iterator[Picture]:
    """Draw what was measured."""
    metric, the_metric = results.primary, results.primary.capitalize()
    summaries = {label: results.algorithms[label].summary for label in labels}
    caption = f"{the_metric} reward: mean and 95% interval; the grey line is the start."
    text = ", ".join(f"{label} {axes.with_interval(summaries[label][metric])}" for label in labels)
    drawing = partial(axes.score, results=results, labels=labels)
    yield draw("score", caption, text, drawing, 1.2 + 0.38 * max(4, len(labels)))
    if with_kl := {label: summary for label, summary in summaries.items() if "kl" in summary}:
        caption = (
            f"The frontier: {metric} reward against KL to the start (square-root scale), measured alike for all. "
            "Large: the mean of a policy with its 95% interval, which may run off the edge. Small: each seed, joined "
            "to the policies on its way where some were kept."
        )
        points = [(label, fixed(s[metric].mean), fixed(s["kl"].mean)) for label, s in with_kl.items()]
        text = ", ".join(f"{label} {score} at {kl} nats" for label, score, kl in points)
        yield draw("frontier", caption, text, partial(axes.frontier, results=results, labels=labels), height)
    with_both = {label: summary for label, summary in summaries.items() if {"gold", "proxy"} <= summary.keys()}
    if with_both.keys() - {START}:
        caption = (
            "Gold, the truth, against the proxy reward that algorithms may learn from, with an arrow from the start to "
            "each policy. To the right and down is over-optimization: what the reward sees got better, the truth worse."
        )
        points = [(label, fixed(s["gold"].mean), fixed(s["proxy"].mean)) for label, s in with_both.items()]
        text = ", ".join(f"{label} gold {gold}, proxy {proxy}" for label, gold, proxy in points)
        yield draw("gold_proxy", caption, text, partial(axes.gold_proxy, results=results, labels=labels), height)
    for name, unit in (("prompts", "prompts"), ("flops", "FLOPs"), ("seconds", "seconds")):
        costs = {label: axes.mean_cost(results, label, name) for label in labels}
        along = name == "prompts"  # what training took up, and not what answering did
        if not (results.equal_budgets if along else any(c for label, c in costs.items() if label != START)):
            continue
        if along:
            caption = f"{the_metric} reward along training, against the prompts that it had taken up"
            texts = [f"{label} {axes.path_text(results, label, name)}" for label in labels if costs[label]]
        else:
            caption = (
                f"{the_metric} reward against the {unit} that a policy took, to train and at the end to answer the "
                "test prompts"
            )
            scores = {label: fixed(summaries[label][metric].mean) for label in labels if label != START}
            texts = [f"{label} {score} for {axes.amount(costs[label])}" for label, score in scores.items()]
        caption += " (logarithmic scale); the grey line is the start."
        drawing = partial(axes.cost, results=results, labels=labels, ledger=name, unit=unit)
        yield draw(f"cost_{name}", caption, ", ".join(texts), drawing, height)


def _trained(labels: list[str], curves: Curves, height: float) -> Iterator[Picture]:
    """Draw each quantity that trainers logged."""
    for name, quantity in LOGGED.items():
        logged = {label: [c for c in curves.get(label, []) if _logs(c, name)] for label in labels}
        if of_seeds := {label: seeds for label, seeds in logged.items() if seeds}:
            caption = f"Training: {quantity}, by optimizer step. Thick: the mean of the seeds. Thin: each seed."
            text = ", ".join(f"{label} {axes.ends(seeds, name)}" for label, seeds in of_seeds.items())
            drawing = partial(axes.training, labels=labels, curves=of_seeds, name=name, quantity=quantity)
            yield draw(f"curve_{name.replace('/', '_')}", caption, text, drawing, height)


def _logs(curve: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(name in entry and not (name == "loss" and "reward" in entry) for entry in curve)


def draw(name: str, caption: str, text: str, drawing: Callable[[Any], None], height: float) -> Picture:
    """Make a picture of what `drawing` draws into matplotlib's axes, `height` inches high and 5.4 wide."""
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style = {"svg.fonttype": "none", "svg.hashsalt": "prefzoo", "font.size": 11, **dict.fromkeys(colours, INK)}
    with matplotlib.style.context(["default", style]):
        figure = Figure(figsize=(5.4, height), layout="constrained")
        plot = figure.subplots()
        drawing(plot)
        plot.spines[["top", "right"]].set_visible(False)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out now; `savefig` would do it again for each file
        for patch in (figure.patch, plot.patch):
            patch.set_visible(False)
        FigureCanvasSVG(figure).print_svg(svg, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.patch.set_visible(True)
        figure.set_dpi(160)
        FigureCanvasAgg(figure).print_png(png)
    return Picture(name, caption, text, svg.getvalue().decode(), png.getvalue())
