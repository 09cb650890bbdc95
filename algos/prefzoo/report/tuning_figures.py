"""Pictures of the search for settings: its trials, and the expected best score against the number of trials."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from prefzoo.report import axes
from prefzoo.report.figures import draw, drawn_labels
from prefzoo.report.sections import PROSE, Picture
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.results.tuning_schema import TunedLabel, Tuning

COLUMNS = 2
"""Settings beside each other in the picture of a label's trials."""


def tuning_pictures(results: Results) -> list[Picture]:
    """Draw for each search the expected best scores of all labels in one picture, then the trials of each label."""
    drawn = []
    for name, tuning in results.searches.items():
        labels = list(dict.fromkeys([*drawn_labels(results), *tuning.labels]))
        drawn += [*_expected_best(name, tuning, labels), *_trials(name, tuning, labels)]
    return drawn


def picture_name(kind: str, run: str, label: str = "") -> str:
    """Return the name of a picture's files; of a merged report they name its run too."""
    return "_".join(filter(None, (kind, *(part.replace("/", "_").replace(" ", "_") for part in (run, label)))))


def score_name(tuning: Tuning) -> str:
    """Return what the score of trials is called."""
    metric = tuning.objective.metric
    if metric == "reward" and tuning.objective.kl_penalty:
        return f"validation reward - {tuning.objective.kl_penalty:g} KL"
    return f"validation {metric.replace('_', ' ')}"


def _expected_best(run: str, tuning: Tuning, labels: Sequence[str]) -> list[Picture]:
    curves = {label: tuned.expected_best for label, tuned in tuning.labels.items() if tuned.expected_best}
    if not curves:
        return []
    text = ", ".join(f"{label} {fixed(v[0])} with 1 trial, {fixed(v[-1])} with {len(v)}" for label, v in curves.items())
    drawing = partial(
        axes.expected_best, curves=curves, labels=labels, start=tuning.start.get("score"), score=score_name(tuning)
    )
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
            axes.tuning_trials,
            tuned=tuned,
            names=names,
            label=label,
            labels=labels,
            start=tuning.start.get("score"),
            score=score_name(tuning),
        )
        caption = PROSE["tuning_picture"].format(label=label)
        name = picture_name("tuning", run, label)
        drawn.append(draw(name, caption, _in_words(tuned), drawing, 0.6 + 2.4 * shape[0], shape))
    return drawn


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
    return f"{value:.3g}" if isinstance(value, float) else str(value)
