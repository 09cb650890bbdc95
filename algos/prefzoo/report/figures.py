"""Pictures of a comparison, each as SVG, for pages light or dark and for print, and as PNG."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from prefzoo.report import axes
from prefzoo.report.sections import INK, Picture
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.results.training_curves import read_curve
from prefzoo.run.stage_graph import START

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
    heights = {"score": 1.2 + 0.38 * max(4, len(labels))}
    return [
        draw(name, caption, text, drawing, heights.get(name, height))
        for name, caption, text, drawing in [*_measured(results, labels), *_trained(labels, curves)]
    ]


def drawn_labels(results: Results) -> list[str]:
    """Return the labels that have a point, best first."""
    scores = {
        label: result.summary[results.primary].mean
        for label, result in results.algorithms.items()
        if results.primary in result.summary
    }
    return sorted(scores, key=lambda label: -scores[label])


Drawing = tuple[str, str, str, Callable[[Any], None]]
"""Name, caption, text, and what draws it into axes."""


def _measured(results: Results, labels: list[str]) -> Iterator[Drawing]:
    """Yield the pictures of what was measured."""
    metric = results.primary
    summaries = {label: results.algorithms[label].summary for label in labels}
    drawing = {"results": results, "labels": labels}
    scores = ", ".join(f"{label} {axes.with_interval(summaries[label][metric])}" for label in labels)
    caption = f"{metric.capitalize()} reward: mean and 95% interval; the grey line is the start."
    yield "score", caption, scores, partial(axes.score, **drawing)
    if with_kl := {label: summary for label, summary in summaries.items() if "kl" in summary}:
        caption = (
            f"The frontier: {metric} reward against KL to the start (square-root scale), measured alike for all. "
            "Large: the mean of a policy with its 95% interval, which may run off the edge. Small: each seed, joined "
            "to the policies on its way where some were kept."
        )
        text = ", ".join(
            f"{label} {fixed(summary[metric].mean)} at {fixed(summary['kl'].mean)} nats"
            for label, summary in with_kl.items()
        )
        yield "frontier", caption, text, partial(axes.frontier, **drawing)
    with_both = {label: summary for label, summary in summaries.items() if {"gold", "proxy"} <= summary.keys()}
    if with_both.keys() - {START}:
        caption = (
            "Gold, the truth, against the proxy reward that algorithms may learn from, with an arrow from the start to "
            "each policy. To the right and down is over-optimization: what the reward sees got better, the truth worse."
        )
        text = ", ".join(
            f"{label} gold {fixed(summary['gold'].mean)}, proxy {fixed(summary['proxy'].mean)}"
            for label, summary in with_both.items()
        )
        yield "gold_proxy", caption, text, partial(axes.gold_proxy, **drawing)
    if results.equal_budgets:
        learned = [label for label in labels if axes.mean_cost(results, label, "prompts")]
        caption = (
            f"{metric.capitalize()} reward along training, against the prompts that it had taken up (logarithmic "
            "scale); the grey line is the start."
        )
        text = ", ".join(f"{label} {axes.path_text(results, label, 'prompts')}" for label in learned)
        yield "cost_prompts", caption, text, partial(axes.cost, **drawing, ledger="prompts", unit="prompts")
    for name, unit in (("flops", "FLOPs"), ("seconds", "seconds")):
        costs = {label: axes.mean_cost(results, label, name) for label in labels if label != START}
        if any(costs.values()):
            caption = (
                f"{metric.capitalize()} reward against the {unit} that a policy took, to train and at the end to "
                "answer the test prompts (logarithmic scale); the grey line is the start."
            )
            text = ", ".join(
                f"{label} {fixed(summaries[label][metric].mean)} for {axes.amount(x)}" for label, x in costs.items()
            )
            yield f"cost_{name}", caption, text, partial(axes.cost, **drawing, ledger=name, unit=unit)


def _trained(labels: list[str], curves: Curves) -> Iterator[Drawing]:
    """Yield a picture for each quantity that trainers logged."""
    for name, quantity in LOGGED.items():
        of_seeds = {label: [c for c in curves.get(label, []) if _logs(c, name)] for label in labels}
        of_seeds = {label: seeds for label, seeds in of_seeds.items() if seeds}
        if of_seeds:
            caption = f"Training: {quantity}, by optimizer step. Thick: the mean of the seeds. Thin: each seed."
            text = ", ".join(f"{label} {axes.ends(seeds, name)}" for label, seeds in of_seeds.items())
            drawing = partial(axes.training, labels=labels, curves=of_seeds, name=name, quantity=quantity)
            yield f"curve_{name.replace('/', '_')}", caption, text, drawing


def _logs(curve: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(name in entry and not (name == "loss" and "reward" in entry) for entry in curve)


def draw(name: str, caption: str, text: str, drawing: Callable[[Any], None], height: float) -> Picture:
    """Draw one picture.

    Args:
        name, caption, text: as of a `Picture`.
        drawing: called with the matplotlib axes to draw into.
        height: in inches, of a width of 5.4.
    """
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
