"""Read what the search for settings left in a comparison's folder, and say what it means for the comparison."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, pairwise
from pathlib import Path
from textwrap import shorten
from typing import Any

import numpy as np
from pydantic import ValidationError

from prefzoo.atomic_files import read_json
from prefzoo.errors import PrefzooError
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Verdict
from prefzoo.results.tuning_schema import ChangedVerdict, SearchedRange, TunedLabel, Tuning, TuningNote, TuningTrial
from prefzoo.run.stage_graph import START
from prefzoo.run.tuning_graph import TUNING_FILE

ROUNDING = 1e-9
"""Relative, of what is spent."""
FAR_OUT = 10.0
"""Nats a reply between the winner and the start above which a reward is not to be trusted: as far as the best of 60,000
replies by that reward (log n - (n - 1) / n)."""
EDGE = 0.05
"""Of a range, on its own scale: a winner that is nearer to an end is said to be at its edge."""
Curve = Sequence[tuple[float, float]]
"""What is spent, and the expected best score for that, growing."""
FIRST_SCREEN = ("unfinished", "all_failed", "reward", "far_out")
"""Kinds of notes that stand among what to read before believing the verdicts."""


def expected_best(scores: Sequence[float], most: int | None = None) -> list[float]:
    """Return the expected maximum of 1, 2, .. `most` draws, with replacement, from these scores.

    With the scores sorted, v_1 <= .. <= v_N, that is sum_i v_i ((i / N)^n - ((i - 1) / N)^n); `most` is N by default.
    Dodge et al. 2019, https://arxiv.org/abs/1909.03004, equation 9.
    """
    size = len(scores)
    steps = np.arange(size + 1)[:, None] / max(1, size)
    weights = np.diff(steps ** np.arange(1, (most if most is not None else size) + 1), axis=0)
    return [float(value) for value in np.sort(np.asarray(scores, dtype=float)) @ weights]


def expected_best_of_trials(trials: Sequence[TuningTrial]) -> list[float]:
    """Return the expected best score of 1, 2, .. trials as a search makes them; none where no trial has a score.

    The first has the settings as written, for certain; only the others are draws. A trial that failed is no better than
    what one had before it; where the settings as written failed too, it counts as the lowest score.
    """
    scores = {trial.number: trial.score for trial in trials}
    known = [score for score in scores.values() if score is not None]
    if not known:
        return []
    first = scores.pop(0, None)
    floor = min(known) if first is None else first
    others = [max(floor, score) if score is not None else floor for score in scores.values()]
    return [floor, *expected_best(others)]


def budget_curves(tuning: Tuning) -> dict[str, Curve]:
    """Return for each label with a score the expected best score by what is spent: by the number of trials, or where
    labels have equal FLOPs or seconds, by that number times what a trial of the label takes in the mean."""
    curves: dict[str, Curve] = {}
    for label, tuned in tuning.labels.items():
        cost = 1.0 if tuning.equal == "trials" else tuned.spent.get(tuning.equal, 0.0) / max(1, len(tuned.trials))
        if tuned.expected_best:
            curves[label] = [(n * cost, score) for n, score in enumerate(tuned.expected_best, 1)]
    return curves


def best_within(curve: Curve, budget: float) -> float | None:
    """Return the expected best score of as many trials as a budget pays for; None where it pays for none."""
    return next((score for cost, score in reversed(curve) if cost <= budget * (1 + ROUNDING)), None)


def order_changes(curves: Mapping[str, Curve]) -> list[tuple[float, str, str]]:
    """Return (what is spent, label that gets ahead, label that was ahead), in order."""
    changes: list[tuple[float, str, str]] = []
    for a, b in combinations(curves, 2):
        costs = sorted({cost for label in (a, b) for cost, _ in curves[label]})
        both = [(cost, best_within(curves[a], cost), best_within(curves[b], cost)) for cost in costs]
        ahead = [(cost, a if x > y else b) for cost, x, y in both if x is not None and y is not None and x != y]
        changes += [(cost, new, old) for (_, old), (cost, new) in pairwise(ahead) if new != old]
    return sorted(changes)


def read_tuning(out: Path) -> Tuning | None:
    """Read `tuning.json`; None where there is none.

    Raises:
        PrefzooError: when it is damaged.
    """
    file = out / TUNING_FILE
    if not file.is_file():
        return None
    try:
        return Tuning.model_validate(read_json(file))
    except ValidationError as error:
        wrong = error.errors()[0]
        place = ".".join(map(str, wrong["loc"]))
        raise PrefzooError(f"{file}: {place}: {wrong['msg']}; compare again, which writes it anew") from error


def found_tuning(recipe: Recipe, out: Path) -> Tuning | None:
    """Return the search that the settings of a comparison are from; None where there was none, or it found other
    settings, as where the folder was used again without a search, or it is damaged, which `damaged_bookkeeping` tells.
    """
    try:
        tuning = read_tuning(out)
    except PrefzooError:
        return None
    return tuning if tuning is not None and _is_of(tuning, recipe) else None


def search_sds(*searches: Tuning | None) -> dict[str, float]:
    """Return for each label whose settings were searched how far apart what searches like it find is."""
    return {
        label: tuned.search_sd
        for tuning in searches
        if tuning is not None
        for label, tuned in tuning.labels.items()
        if tuned.search_sd
    }


def explained(tuning: Tuning, verdicts: Sequence[Verdict], metric: str) -> Tuning:
    """Return a search with what follows from it: expected best scores, what it changed, and notes."""
    labels = {
        label: tuned.model_copy(update={"expected_best": expected_best_of_trials(tuned.trials)})
        for label, tuned in tuning.labels.items()
    }
    changed = changed_verdicts(tuning, verdicts, metric)
    return tuning.model_copy(update={"labels": labels, "changed_verdicts": changed, "notes": [*_notes(tuning)]})


def first_screen(tuning: Tuning) -> list[str]:
    """Return the notes that stand among what to read before believing the verdicts."""
    return [note.text for note in tuning.notes if note.kind in FIRST_SCREEN]


def _is_of(tuning: Tuning, recipe: Recipe) -> bool:
    """Return whether a recipe was to be tuned, and its labels have the settings that were found, or it is one of before
    the search, which has no label with the settings as written beside one that another won over."""
    if recipe.tuning is None:
        return False
    labels = json.loads(json.dumps(recipe.algorithms, default=str))
    settings = {label: {key: value for key, value in each.items() if key != "tune"} for label, each in labels.items()}
    compared = {label: tuned for label, tuned in tuning.labels.items() if (tuned.untuned or label) in settings}
    return all(
        settings[label] == {key: value for key, value in (tuned.winner or {}).items() if key != "tune"}
        for label, tuned in compared.items()
        if label in settings and tuned.winner is not None
    )


def changed_verdicts(tuning: Tuning, verdicts: Sequence[Verdict], metric: str) -> list[ChangedVerdict]:
    """Return the verdicts against the start that differ between the settings as written and those found."""
    of_label = {v.a: v.verdict for v in verdicts if v.metric == metric and v.b == START}
    pairs = [(label, tuned.untuned) for label, tuned in tuning.labels.items() if tuned.untuned is not None]
    return [
        ChangedVerdict(label=label, metric=metric, untuned=of_label[untuned], tuned=of_label[label])
        for label, untuned in pairs
        if label in of_label and untuned in of_label and of_label[label] != of_label[untuned]
    ]


def paired_verdict(label: str, other: str | None, verdicts: Sequence[Verdict], metric: str) -> Verdict | None:
    """Return the verdict on `label` minus `other`, whichever of the two it names first; None where there is none."""
    for v in verdicts:
        if v.metric == metric and {v.a, v.b} == {label, other}:
            if v.a == label:
                return v
            swapped = {"better": "worse", "worse": "better"}.get(v.verdict, v.verdict)
            low, high = v.ci95
            turned = {"a": v.b, "b": v.a, "difference": -v.difference, "ci95": (-high, -low), "verdict": swapped}
            return v.model_copy(update=turned)
    return None


def best_trial(tuned: TunedLabel) -> TuningTrial | None:
    """Return the trial that won; None where none has a score."""
    return next((trial for trial in tuned.trials if trial.number == tuned.best), None)


def _notes(tuning: Tuning) -> Iterator[TuningNote]:
    """Yield what a reader must know of this search."""

    def note(kind: Any, of_label: Mapping[str, str], text: str) -> Iterator[TuningNote]:
        if of_label:
            named = "; ".join(f"{label} {words}".strip() for label, words in of_label.items())
            yield TuningNote(kind=kind, labels=list(of_label), text=text.format(named=named))

    if not tuning.finished:
        yield TuningNote(kind="unfinished", text="The search for settings did not come to its end.")
    labels = tuning.labels
    best = {label: trial for label, tuned in labels.items() if (trial := best_trial(tuned)) is not None}
    failed = {label: [t for t in tuned.trials if t.state == "failed"] for label, tuned in labels.items()}
    errors = {
        label: f"{len(trials)} of {len(labels[label].trials)} (first: {shorten(trials[0].error or 'no reason', 200)})"
        for label, trials in failed.items()
        if trials
    }
    lost = {label: words for label, words in errors.items() if label not in best}
    yield from note("all_failed", lost, "All tuning trials failed, so that the settings are as written: {named}.")
    some = {label: words for label, words in errors.items() if label in best}
    yield from note("failed", some, "Tuning trials that failed, and count in the budget: {named}.")
    if tuning.objective.metric == "reward":
        penalty = f" less {tuning.objective.kl_penalty:g} of each nat of KL" if tuning.objective.kl_penalty else ""
        text = f"Settings were chosen by a reward{penalty}, which a policy may have learned to please and not to serve."
        yield TuningNote(kind="reward", text=text)
        kls = {label: f"({fixed(t.kl, '.1f')})" for label, t in best.items() if t.kl is not None and t.kl > FAR_OUT}
        text = (
            "Far from the start, in nats a reply, is what won for {named}. "
            f"{FAR_OUT:g} nats are as far as the best of {_best_of(FAR_OUT):,} replies by that reward, where a reward "
            "is seldom right: hold the replies against a judge or people before you trust these settings."
        )
        yield from note("far_out", kls, text)
    edges = {
        label: ", ".join(found)
        for label, trial in best.items()
        if (found := [*_edges(trial.settings, labels[label].space)])
    }
    text = "At an end of its range is what won for {named}. Better settings may lie beyond: widen it under `tune`."
    yield from note("edge", edges, text)
    kept = {label: "" for label, trial in best.items() if trial.number == 0 and len(labels[label].trials) > 1}
    yield from note("kept", kept, "No trial scored higher than the settings as written, which are kept: {named}.")
    short = {
        label: f"trial {trial.number} ({trial.share:.0%})"
        for label, tuned in labels.items()
        for trial in tuned.trials
        if trial.share < 1
    }
    text = "Trained on fewer prompts than the others, on as many as were left of the budget: {named}."
    yield from note("shortened", short, text)


def _best_of(kl: float) -> int:
    """Return of how many replies the best is so far from the start, by the bound log n - (n - 1) / n, in one digit."""
    count = math.exp(kl + 1)
    return int(float(f"{count:.0e}"))


def _edges(settings: Mapping[str, Any], space: Mapping[str, SearchedRange]) -> Iterator[str]:
    """Yield each setting that is within `EDGE` of an end of its range, or beyond it."""
    for name, searched in space.items():
        value = settings.get(name)
        if searched.low is None or searched.high is None or not isinstance(value, int | float):
            continue
        if searched.low >= searched.high or (searched.log and value <= 0):
            continue
        scale = math.log if searched.log else float
        low, high, at = scale(searched.low), scale(searched.high), scale(value)
        if min(at - low, high - at) <= EDGE * (high - low):
            yield f"{name} {value:.3g} of {searched.low:.3g} to {searched.high:.3g}"


def moved(tuning: Tuning, names: Mapping[str, str], folder: Path, out: Path) -> Tuning:
    """Return a search of the run in `folder` for a merged report in `out`, under the labels that it has there."""

    def label(tuned: TunedLabel) -> TunedLabel:
        trials = [
            trial.model_copy(update={"folders": [os.path.relpath(folder / path, out) for path in trial.folders]})
            for trial in tuned.trials
        ]
        return tuned.model_copy(update={"trials": trials, "untuned": names.get(tuned.untuned or "")})

    labels = {names.get(name, name): label(tuned) for name, tuned in tuning.labels.items()}
    not_tuned = {names.get(name, name): why for name, why in tuning.not_tuned.items()}
    return tuning.model_copy(update={"labels": labels, "not_tuned": not_tuned})
