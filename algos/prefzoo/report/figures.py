"""Pictures of a comparison, each once as SVG, for pages light or dark and for print, and once as PNG."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from prefzoo.report import axes
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.results.training_history import read_curve
from prefzoo.run.stage_graph import START

INK = "#010203"
"""The colour of words and lines in a drawing, which takes that of the page's text within one."""
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


@dataclass(frozen=True)
class Picture:
    """One drawing.

    Attributes:
        name: of its files.
        caption: a sentence that says what is drawn, and how.
        words: the same numbers in words, for who does not see it.
        svg, png: the content of its files.
    """

    name: str
    caption: str
    words: str
    svg: str
    png: bytes

    @property
    def inline(self) -> str:
        """The SVG as part of a page: no address in it, its ids its own, its ink the page's."""
        svg = self.svg[self.svg.index("<svg") :]
        svg = re.sub(r"<metadata>.*?</metadata>|<title>.*?</title>", "", svg, flags=re.DOTALL)
        svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
        svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{self.name}-", svg)
        svg = re.sub(r'(<svg[^>]*?) width="[^"]*"| height="[^"]*pt"', r"\1", svg, count=2)
        return svg.replace(INK, "currentColor").replace("<svg", '<svg aria-hidden="true" focusable="false"', 1)


def training_curves(results: Results, out: Path) -> Curves:
    """What the trainings of a finished run logged."""
    return {
        label: [read_curve((out / trial.policy).parent) for trial in each.seeds.values() if trial.policy is not None]
        for label, each in results.algorithms.items()
    }


def pictures(results: Results, curves: Curves) -> list[Picture]:
    """Every picture that these results have the numbers for, the most important first."""
    labels = drawn(results)
    return [_picture(results, labels, *each) for each in [*_measured(results, labels), *_trained(labels, curves)]]


def drawn(results: Results) -> list[str]:
    """The labels that have a point, best first."""
    found = {
        label: each.summary[results.primary]
        for label, each in results.algorithms.items()
        if results.primary in each.summary
    }
    return sorted(found, key=lambda label: -found[label].mean)


Drawing = tuple[str, str, str, Callable[[Any, Results, list[str]], None]]
"""Name, caption, words, and what draws it."""


def _measured(results: Results, labels: list[str]) -> Iterator[Drawing]:
    metric = results.primary
    numbers = {label: results.algorithms[label].summary for label in labels}
    scores = ", ".join(f"{label} {axes.with_interval(numbers[label][metric])}" for label in labels)
    yield "score", f"{metric} reward: mean and 95% interval; the grey line is the start.", scores, axes.score
    if any("kl" in found for found in numbers.values()):
        caption = (
            f"The frontier: {metric} reward against KL to the start (square-root scale), measured alike for all. "
            "Large: the mean of a policy with its 95% interval, which may run off the edge. Small: each seed, joined "
            "to the policies on its way where some were kept."
        )
        said = ", ".join(
            f"{label} {fixed(found[metric].mean)} at {fixed(found['kl'].mean)} nats"
            for label, found in numbers.items()
            if "kl" in found
        )
        yield "frontier", caption, said, axes.frontier
    if any({"gold", "proxy"} <= found.keys() for label, found in numbers.items() if label != START):
        caption = (
            "Gold, the truth, against the proxy reward that algorithms may learn from, with an arrow from the start to "
            "each policy. To the right and down is over-optimization: what the reward sees got better, the truth worse."
        )
        said = ", ".join(
            f"{label} gold {fixed(found['gold'].mean)}, proxy {fixed(found['proxy'].mean)}"
            for label, found in numbers.items()
            if {"gold", "proxy"} <= found.keys()
        )
        yield "gold_proxy", caption, said, axes.gold_proxy
    if results.equal_budgets:
        learned = [label for label in labels if axes.spent(results, label, "prompts")]
        caption = (
            f"{metric} reward along training, against the prompts that it had taken up (logarithmic scale); the grey "
            "line is the start."
        )
        said = ", ".join(f"{label} {axes.along(results, label, 'prompts')}" for label in learned)
        yield "cost_prompts", caption, said, partial(axes.cost, ledger="prompts", what="prompts")
    for name, what in (("flops", "FLOPs"), ("seconds", "seconds")):
        spent = {label: axes.spent(results, label, name) for label in labels if label != START}
        if any(spent.values()):
            caption = (
                f"{metric} reward against the {what} that a policy took, to train and at the end to answer the test "
                "prompts (logarithmic scale); the grey line is the start."
            )
            said = ", ".join(
                f"{label} {fixed(numbers[label][metric].mean)} for {axes.amount(x)}" for label, x in spent.items()
            )
            yield f"cost_{name}", caption, said, partial(axes.cost, ledger=name, what=what)


def _trained(labels: list[str], curves: Curves) -> Iterator[Drawing]:
    for name, what in LOGGED.items():
        found = {label: [c for c in curves.get(label, []) if _logs(c, name)] for label in labels}
        found = {label: of_seeds for label, of_seeds in found.items() if of_seeds}
        if found:
            caption = f"Training: {what}, by optimizer step. Thick: the mean of the seeds. Thin: each seed."
            said = ", ".join(f"{label} {axes.ends(of_seeds, name)}" for label, of_seeds in found.items())
            drawing = partial(axes.training, curves=found, name=name, what=what)
            yield f"curve_{name.replace('/', '_')}", caption, said, drawing


def _logs(curve: Sequence[Mapping[str, float]], name: str) -> bool:
    return any(name in entry and not (name == "loss" and "reward" in entry) for entry in curve)


def _picture(
    results: Results,
    labels: list[str],
    name: str,
    caption: str,
    words: str,
    draw: Callable[[Any, Results, list[str]], None],
) -> Picture:
    import matplotlib.style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    colours = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style = {"svg.fonttype": "none", "svg.hashsalt": "prefzoo", "font.size": 11, **dict.fromkeys(colours, INK)}
    with matplotlib.style.context(["default", style]):
        height = (
            1.2 + 0.38 * max(4, len(labels))
            if name == "score"
            else 3.4 + 0.22 * -(-len(labels) // axes.legend_columns(labels))
        )
        figure = Figure(figsize=(5.4, height), layout="constrained")
        draws = figure.subplots()
        draw(draws, results, labels)
        draws.spines[["top", "right"]].set_visible(False)
        svg, png = io.BytesIO(), io.BytesIO()
        figure.draw_without_rendering()
        figure.set_layout_engine("none")  # it is laid out now; `savefig` would do it again for each file
        for paper in (figure.patch, draws.patch):
            paper.set_visible(False)
        FigureCanvasSVG(figure).print_svg(svg, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
        figure.patch.set_visible(True)
        figure.set_dpi(160)
        FigureCanvasAgg(figure).print_png(png)
    return Picture(name, caption[0].upper() + caption[1:], words, svg.getvalue().decode(), png.getvalue())
