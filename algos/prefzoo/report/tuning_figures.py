"""Pictures of the search for settings: its trials, and the expected best score against the number of trials."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from prefzoo.report import axes
from prefzoo.report.figures import draw, drawn_labels
from prefzoo.report.sections import PROSE, Picture
from prefzoo.report.summary_text import EQUAL
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.results.tuning_results import Curve, budget_curves
from prefzoo.results.tuning_schema import TunedLabel, Tuning, TuningTrial

COLUMNS = 2
"""Settings beside each other in the picture of a label's trials."""
MOST_LETTERS = 18
"""Of all choices of a setting, which stand beside each other below half a picture."""


def tuning_pictures(results: Results) -> list[Picture]:
    """Draw for each search the expected best scores of all labels in one picture, then the trials of each label."""
    drawn = []
    for name, tuning in results.searches.items():
        labels = list(dict.fromkeys([*drawn_labels(results), *tuning.labels]))
        drawn += [*_expected_best(name, tuning, labels), *_trials(name, tuning, labels)]
    return drawn


def picture_name(kind: str, run: str, label: str = "") -> str:
    """Return the name of a picture's files; of a merged report they name its run too."""
    parts = [re.sub(r"[^\w.-]+", "_", part).strip("_") for part in (kind, run, label)]
    return "_".join(filter(None, parts))


def score_name(tuning: Tuning) -> str:
    """Return what the score of trials is called."""
    metric = tuning.objective.metric
    if metric == "reward" and tuning.objective.kl_penalty:
        return f"validation reward - {tuning.objective.kl_penalty:g} KL"
    return f"validation {metric.replace('_', ' ')}"


def _expected_best(run: str, tuning: Tuning, labels: Sequence[str]) -> list[Picture]:
    if not (curves := budget_curves(tuning)):
        return []
    text = ", ".join(
        f"{label} {fixed(curve[0][1])} with 1 trial, {fixed(curve[-1][1])} with {len(curve)}"
        for label, curve in curves.items()
    )
    drawing = partial(_draw_expected_best, curves=curves, labels=labels, tuning=tuning)
    height = 3.4 + 0.22 * -(-len(curves) // axes.legend_columns([*curves]))
    return [draw(picture_name("expected_best", run), PROSE["expected_best_picture"], text, drawing, height)]


def _trials(run: str, tuning: Tuning, labels: Sequence[str]) -> list[Picture]:
    drawn = []
    for label, tuned in tuning.labels.items():
        names = [name for name in tuned.space if any(name in trial.settings for trial in tuned.trials)]
        if not names or not any(trial.score is not None for trial in tuned.trials):
            continue
        shape = -(-len(names) // COLUMNS), min(COLUMNS, len(names))
        drawing = partial(
            _draw_trials,
            tuned=tuned,
            names=names,
            label=label,
            labels=labels,
            start=_start_score(tuning),
            score=score_name(tuning),
        )
        caption = PROSE["tuning_picture"].format(label=label)
        name = picture_name("tuning", run, label)
        drawn.append(draw(name, caption, _in_words(tuned), drawing, 0.6 + 2.4 * shape[0], shape))
    return drawn


def _start_score(tuning: Tuning) -> float | None:
    return tuning.start.get("score") if tuning.start is not None else None


def _in_words(tuned: TunedLabel) -> str:
    return "; ".join(
        f"{settings_text(trial.settings)}: {fixed(trial.score) if trial.score is not None else trial.state}"
        for trial in tuned.trials
    )


def settings_text(settings: dict[str, object]) -> str:
    """Return settings as text, such as `beta 0.1, trainer.learning_rate 0.0005`."""
    return ", ".join(f"{name} {setting_text(value)}" for name, value in settings.items())


def setting_text(value: object) -> str:
    """Return a value of a setting as text, a number in three digits."""
    return f"{value:.3g}" if isinstance(value, float) else "-" if value is None else str(value)


def _draw_expected_best(plot: Any, curves: Mapping[str, Curve], labels: Sequence[str], tuning: Tuning) -> None:
    """Draw the expected best score of each label against what is spent; the grey line is the start."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    for label, curve in curves.items():
        style = axes.style_of(label, labels)
        line = {"color": style["color"], "marker": style["fmt"], "markersize": 5, "label": label}
        plot.plot(*zip(*curve, strict=True), axes.dashes_of(label, labels), **line)
    if (start := _start_score(tuning)) is not None:
        plot.axhline(start, color="0.6", linewidth=1, zorder=0)
    if tuning.equal == "trials":
        plot.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    else:
        plot.xaxis.set_major_formatter(EngFormatter(sep=""))
    axes.draw_legend(plot)
    unit = EQUAL.get(tuning.equal)
    plot.set(xlabel=f"{f'{unit} of ' if unit else ''}trials, the first as written", ylabel=score_name(tuning))


def _draw_trials(
    plots: Any,
    tuned: TunedLabel,
    names: Sequence[str],
    label: str,
    labels: Sequence[str],
    start: float | None,
    score: str,
) -> None:
    """Draw the score of each trial of a label against each of the settings `names`, one beside the other: the settings
    as written as a diamond, what won as a filled star, trials that failed as crosses at the bottom."""
    colour = axes.style_of(label, labels)["color"]
    plots = np.ravel(plots)
    for plot, name in zip(plots, names, strict=False):
        positions = _scale(plot, name, tuned)
        for trial in tuned.trials:
            if trial.settings.get(name) is None:  # as written, where only the trainer knows how
                continue
            x = positions(trial.settings[name])
            if trial.score is None:
                plot.plot(x, 0.02, "x", color="0.5", transform=plot.get_xaxis_transform(), clip_on=False)
                continue
            error = 1.96 * trial.standard_error if trial.standard_error else None
            marker = _marker(trial, tuned.best)
            plot.errorbar(x, trial.score, yerr=error, color=colour, elinewidth=0.8, alpha=0.8, **marker)
        if start is not None:
            plot.axhline(start, color="0.6", linewidth=1, zorder=0)
        for end in (tuned.space[name].low, tuned.space[name].high):
            if end is not None:
                plot.axvline(end, color="0.6", linewidth=1, linestyle=":", zorder=0)
        plot.set_xlabel(_short_name(name, names))
    for plot in plots[len(names) :]:
        plot.set_visible(False)
    for plot in plots:
        if plot.get_subplotspec().is_first_col():
            plot.set_ylabel(score)


def _short_name(name: str, names: Sequence[str]) -> str:
    """Return the last part of a dotted setting, or where others end alike all of it, in a line for each part."""
    last = name.rpartition(".")[2]
    return last if sum(last == other.rpartition(".")[2] for other in names) == 1 else name.replace(".", ".\n")


def _marker(trial: TuningTrial, best: int | None) -> dict[str, Any]:
    """Return the marker of a trial: whether it has the settings as written, or won, or was pruned."""
    if trial.number == best:
        return {"fmt": "*", "markersize": 13, "markeredgecolor": "white", "zorder": 3}
    if trial.number == 0:
        return {"fmt": "D", "markersize": 6, "markerfacecolor": "white", "zorder": 3}
    return {"fmt": "o", "markersize": 4, "markerfacecolor": "none" if trial.state == "pruned" else None}


def _scale(plot: Any, name: str, tuned: TunedLabel) -> Callable[[Any], float]:
    """Set the scale of a setting's axis, as it was searched; return where on it a value is."""
    searched = tuned.space[name]
    if searched.choices is not None:
        known = [*searched.choices, *(t.settings[name] for t in tuned.trials if t.settings.get(name) is not None)]
        words = list(dict.fromkeys(map(str, known)))
        plot.set_xticks(range(len(words)), words, rotation=90 if sum(map(len, words)) > MOST_LETTERS else 0)
        plot.set_xlim(-0.5, len(words) - 0.5)
        return lambda value: words.index(str(value))
    if searched.log:
        from matplotlib.ticker import LogLocator, NullFormatter

        plot.set_xscale("log")
        plot.xaxis.set_major_locator(LogLocator(subs=(1, 3), numticks=6))
        plot.xaxis.set_major_formatter("{x:.2g}")
        plot.xaxis.set_minor_formatter(NullFormatter())
    else:
        plot.xaxis.get_major_locator().set_params(nbins=4)
    return float
