"""Pictures of a comparison: the metric that decides, and the same against KL to the start."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal

from prefzoo.comparison.plan import START
from prefzoo.comparison.results import Results, Summary

Panel = Literal["score", "kl"]
MARKERS = "osD^vPX"
"""With ten colours, enough to tell seventy policies apart, and some without seeing colour."""


def picture(results: Results, panels: Sequence[Panel] = ("score", "kl"), dark: bool = False) -> bytes:
    """A PNG of these panels side by side, light on dark for `dark`.

    `score`: each policy's mean of the metric that decides with its 95% interval, best on top. `kl`: the same against
    the policy's KL to the start.
    """
    import matplotlib.style
    from matplotlib.figure import Figure

    labels = drawn(results)
    with matplotlib.style.context(["default", "dark_background"] if dark else ["default"]):
        figure = Figure(figsize=(5 * len(panels), 1.6 + 0.4 * max(4, len(labels))), layout="constrained")
        for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            {"score": _score, "kl": _kl}[panel](axes, results, labels)
            axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, dpi=130, format="png", transparent=dark)
    return file.getvalue()


def drawn(results: Results) -> list[str]:
    """The labels that have a point, best first."""
    found = {
        label: each.summary[results.primary]
        for label, each in results.algorithms.items()
        if results.primary in each.summary
    }
    return sorted(found, key=lambda label: -found[label].mean)


def _score(axes: Any, results: Results, labels: list[str]) -> None:
    for i, label in enumerate(reversed(labels)):
        found = results.algorithms[label].summary[results.primary]
        axes.errorbar(found.mean, i, xerr=_error(found), capsize=3, **_look(label, labels))
    if START in labels:
        axes.axvline(results.algorithms[START].summary[results.primary].mean, color="0.6", linewidth=1, zorder=0)
    axes.set_yticks(range(len(labels)), labels[::-1])
    axes.set_xlabel(f"{results.primary} reward (mean, 95% interval)")


def _kl(axes: Any, results: Results, labels: list[str]) -> None:
    measured = [label for label in labels if "kl" in results.algorithms[label].summary]
    for label in measured:
        found = results.algorithms[label].summary
        score = found[results.primary]
        axes.errorbar(found["kl"].mean, score.mean, yerr=_error(score), capsize=3, label=label, **_look(label, labels))
    if START in labels:
        axes.axhline(results.algorithms[START].summary[results.primary].mean, color="0.6", linewidth=1, zorder=0)
    if measured:  # a legend, because policies that lie close together would write over each other
        axes.figure.legend(loc="outside lower right", ncols=3, fontsize=8, frameon=False)
    axes.set_xlabel("KL to the start (nats a reply)")
    axes.set_ylabel(f"{results.primary} reward")


def _look(label: str, labels: list[str]) -> dict[str, str]:
    """Colour and marker of a policy, the same in every panel and whatever its rank."""
    if label == START:
        return {"color": "0.5", "fmt": "o"}
    place = sorted(set(labels) - {START}).index(label)
    return {"color": f"C{place % 10}", "fmt": MARKERS[place % len(MARKERS)]}


def _error(summary: Summary) -> list[list[float]] | None:
    if summary.ci95 is None:
        return None
    return [[summary.mean - summary.ci95[0]], [summary.ci95[1] - summary.mean]]
