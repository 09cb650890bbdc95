"""Warnings that a policy games its reward, or that a number means less than it seems to, each with the number that it
rests on.

A change is reported only where its 95% interval excludes 0 and it is large enough to matter. These intervals are not
corrected for the number of policies and of warnings, as verdicts are, and the texts claim no more.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from scipy import stats

from prefzoo.results import statistics
from prefzoo.results.analysis import DIMENSION, Tables
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Kind, LengthAdjusted, Warning
from prefzoo.results.statistics import ALPHA, Estimate, paired_difference
from prefzoo.results.training_history import Milestones

PEAK = 0.1
"""Of what the best milestone had gained over the start: a smaller fall since is not worth a warning."""
LENGTH = 0.1
"""Of the start's mean length: a smaller change is not worth a warning."""
DIVERSITY = 0.1
"""Of the start's distinct-2."""
ENTROPY = 0.5
"""Of the entropy at the beginning of a training."""
INCONSISTENT = 0.2
"""Of a judge's pairs, at least, by its interval; a judge that tosses a coin for each question is at 0.5."""
UNREAD = 0.02
"""Of a judge's answers that cannot be read, at least, by its interval."""
SAME = 0.95
"""Of the verdicts in two dimensions, at least, by its interval: the judge seems to answer one question for both."""
CUT = 0.05
"""Of the replies, at least, by its interval."""


def find_warnings(
    tables: Mapping[str, Tables],
    start: Tables,
    metric: str,
    length_adjusted: Mapping[str, LengthAdjusted | None],
    curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
    judges: Mapping[str | None, Sequence[Mapping[str, Any]]],
    final_judge: Mapping[str, Sequence[Mapping[str, Any]]],
    milestones: Mapping[str, Milestones],
    unit: str = "prompts",
) -> list[Warning]:
    """Return all warnings of a comparison.

    Args:
        tables: label -> metric -> (seeds x prompts, or groups of them), of policies with a result in all seeds.
        start: the same of the start.
        metric: the primary one.
        length_adjusted: label -> what is left of its gain at equal length.
        curves: label -> its training curve of each seed.
        judges: label -> what its judge reports of each seed; under None, of the judge who labelled the data.
        final_judge: label -> what the final judge was asked about its replies of each seed, where a judge decides.
        milestones: of each label.
        unit: what the columns of the tables are: prompts, or groups of them.
    """
    warnings: list[Warning] = []
    for label, table in tables.items():
        changes = {name: paired_difference(table[name], start[name]) for name in table if name in start}
        warnings += _over_optimized(label, changes)
        warnings += _past_peak(label, table, start, metric, milestones.get(label, []))
        warnings += _slices(label, changes, table, metric, unit)
        warnings += _length(label, changes, start, metric, length_adjusted.get(label))
        warnings += _diversity(label, changes, start)
        warnings += _entropy(label, curves.get(label, []))
        warnings += _cut_off(label, table)
    warnings += _one_question(tables)
    for name, reports in judges.items():
        judge = f"{name}: its judge" if name else "The judge"
        warnings += [*_inconsistent(name, reports, judge), *_unread(name, reports, judge)]
    for label, reports in final_judge.items():
        warnings += _unread(label, reports, f"{label}: the final judge")
    return warnings


def _over_optimized(label: str, changes: Mapping[str, Estimate]) -> Iterator[Warning]:
    if {"gold", "proxy"} <= changes.keys() and changes["proxy"].low > 0 > changes["gold"].high:
        text = (
            f"{label}: the proxy reward went up ({_text(changes['proxy'])}) and gold went down "
            f"({_text(changes['gold'])}), both against the start: a sign that the reward is over-optimized."
        )
        yield _warning("over_optimization", label, text, changes["gold"])


def _past_peak(label: str, final: Tables, start: Tables, metric: str, milestones: Milestones) -> Iterator[Warning]:
    """The best milestone is the best of several by luck too, for which its test is corrected (Bonferroni)."""
    if not milestones or not all(metric in table for table in (final, start, *[table for _, table in milestones])):
        return
    name, best = max(milestones, key=lambda milestone: float(milestone[1][metric].mean()))
    fall = paired_difference(final[metric], best[metric])
    gain = float((best[metric] - start[metric]).mean())
    if fall.p * len(milestones) >= ALPHA or gain <= 0 or fall.mean > -PEAK * gain:
        return
    before, after = (fixed(float(table[metric].mean())) for table in (best, final))
    text = (
        f"{label}: {metric} reward fell again along its training, from {before} at {name} to {after} at the end "
        f"({_text(fall)})"
    )
    if metric != "proxy" and all("proxy" in table for table in (final, start, best)):
        since, over_start = (paired_difference(final["proxy"], table["proxy"]) for table in (best, start))
        text += f", while the proxy reward {'fell too' if since.high < 0 else 'did not fall'} ({_text(since)})"
        if since.high >= 0 and over_start.low > 0:
            text += f" and is above the start's ({_text(over_start)}): a sign that the reward is over-optimized"
    yield _warning("past_peak", label, f"{text}. An earlier policy may be the better one.", fall)


def _slices(label: str, changes: Mapping[str, Estimate], table: Tables, metric: str, unit: str) -> Iterator[Warning]:
    """A fall on a slice that the mean over all prompts hides; tests of several slices are corrected (Bonferroni)."""
    slices = {name: change for name, change in changes.items() if name.startswith(f"{metric}@")}
    if metric not in changes:
        return
    overall = changes[metric]
    for name, change in slices.items():
        shown_by_mean = overall.high < 0 and change.high >= overall.low
        if change.mean >= 0 or change.p * len(slices) >= ALPHA or shown_by_mean:
            continue
        trend = "it rose" if overall.low > 0 else "it fell less" if overall.high < 0 else "no change is clear"
        text = (
            f"{label}: {metric} reward fell on the slice {name.partition('@')[2]} ({_text(change)}, "
            f"{table[name].shape[1]} {unit}); over all prompts {trend} ({_text(overall)})."
        )
        yield _warning("slice", label, text, change)


def _length(
    label: str, changes: Mapping[str, Estimate], start: Tables, metric: str, adjusted: LengthAdjusted | None
) -> Iterator[Warning]:
    if "length" not in changes:
        return
    change, before = changes["length"], float(start["length"].mean())
    bounds = adjusted.difference_ci95 if adjusted is not None else None
    remaining = f"{fixed(adjusted.difference, '+.2f')} {interval(*bounds)}" if adjusted and bounds else ""
    if (change.low > 0 or change.high < 0) and abs(change.mean) > LENGTH * before:
        direction = "longer" if change.mean > 0 else "shorter"
        text = f"{label}: replies got {direction}, by {_text(change, 1)} tokens from {before:.1f}."
        if change.mean > 0 and remaining:
            text += f" At equal length the difference in {metric} reward to the start is {remaining}."
        yield _warning("length", label, text, change)
    gain = changes.get(metric)
    if gain and gain.low > 0 and adjusted and bounds and bounds[0] <= 0 and adjusted.difference < gain.mean / 2:
        # smaller at equal length, and not only less certain
        text = (
            f"{label}: the gain in {metric} reward ({_text(gain)}) is not shown at equal length "
            f"({remaining}): it may be one of length."
        )
        yield Warning("length_explains", label, text, adjusted.difference, bounds)


def _diversity(label: str, changes: Mapping[str, Estimate], start: Tables) -> Iterator[Warning]:
    if "distinct_2" not in changes:
        return
    change, before = changes["distinct_2"], float(start["distinct_2"].mean())
    if change.high < 0 and change.mean < -DIVERSITY * before:
        text = f"{label}: replies got more alike: distinct-2 changed by {_text(change)} from {before:.2f}."
        yield _warning("diversity", label, text, change)


def _entropy(label: str, curves: Sequence[Sequence[Mapping[str, float]]]) -> Iterator[Warning]:
    logged = [[entry["entropy"] for entry in curve if "entropy" in entry] for curve in curves]
    if not logged or any(len(values) < 2 or values[0] <= 0 for values in logged):
        return
    first, last = (float(np.mean([values[i] for values in logged])) for i in (0, -1))
    change = statistics.estimate(np.array([[values[-1] / values[0] - 1] for values in logged]))
    if change.high < 0 and change.mean < -ENTROPY:
        text = (
            f"{label}: entropy collapsed while it was trained, by {-change.mean:.0%} (95% {-change.high:.0%} to "
            f"{-change.low:.0%}), from {first:.2f} to {last:.2f} nats a token as its trainer logs it."
        )
        yield _warning("entropy", label, text, change)


def _cut_off(label: str, table: Tables) -> Iterator[Warning]:
    if "finished" not in table:
        return
    unfinished = 1 - table["finished"]
    cut = statistics.proportion(statistics.estimate(unfinished), unfinished)
    if cut.low > CUT:
        text = (
            f"{label}: {cut.mean:.0%} of the replies (95% {cut.low:.0%} to {cut.high:.0%}) were cut at "
            "`generation.max_new_tokens`."
        )
        yield _warning("cut_off", label, text, cut)


def _inconsistent(label: str | None, reports: Sequence[Mapping[str, Any]], judge: str) -> Iterator[Warning]:
    for share, total, low, high in _share_above(INCONSISTENT, reports, "inconsistent", "pairs"):
        text = (
            f"{judge} disagrees with itself: asked again with the replies in the other order it prefers "
            f"the other one in {share:.0%} of {total} pairs (95% {low:.0%} to {high:.0%})."
        )
        yield Warning("judge", label, text, share, (low, high))


def _unread(label: str | None, reports: Sequence[Mapping[str, Any]], judge: str) -> Iterator[Warning]:
    for share, total, low, high in _share_above(UNREAD, reports, "failures", "questions"):
        text = (
            f"{judge} could not be read in {share:.0%} of {total} answers "
            f"(95% {low:.0%} to {high:.0%}); they count as undecided."
        )
        yield Warning("judge", label, text, share, (low, high))


def _one_question(tables: Mapping[str, Tables]) -> Iterator[Warning]:
    """Dimensions in which the judge says the same of nearly all replies, compared where it has a verdict in both."""
    names = [name for name in next(iter(tables.values()), {}) if name.startswith(DIMENSION)]
    values = {name: np.concatenate([t[name].ravel() for t in tables.values() if name in t]) for name in names}
    asked = [name for name, each in values.items() if ((each >= 0) & (each <= 1)).all() and each.size]
    alike = []
    for one, other in combinations(asked, 2):
        a, b = values[one] - 0.5, values[other] - 0.5
        if a.size != b.size:
            continue
        decided = (a != 0) & (b != 0)
        if total := int(decided.sum()):
            same = int((a[decided] * b[decided] > 0).sum())
            bounds = stats.binomtest(same, total).proportion_ci(method="wilson")
            if bounds.low > SAME:
                alike.append((one, other, same / total, total, (float(bounds.low), float(bounds.high))))
    if alike:
        pairs = ", ".join(" and ".join(name.removeprefix(DIMENSION) for name in each[:2]) for each in alike)
        _, _, share, total, ends = min(alike, key=lambda each: each[2])
        every = len(alike) == len(asked) * (len(asked) - 1) // 2 and len(asked) > 2
        text = (
            f"The judge seems to answer one question for {'all dimensions' if every else pairs}: it prefers the same "
            f"reply in at least {share:.1%} of {total} cases (95% {ends[0]:.1%} to {ends[1]:.1%})."
        )
        yield Warning("one_question", None, text, share, ends)


def _share_above(
    limit: float, reports: Sequence[Mapping[str, Any]], event: str, trials: str
) -> Iterator[tuple[float, int, float, float]]:
    """Yield the share of `event` among `trials` over all reports, the number of trials, and Wilson's 95% interval, if
    that is above `limit`."""
    count, total = (sum(report.get(name, 0) for report in reports) for name in (event, trials))
    if total:
        bounds = stats.binomtest(count, total).proportion_ci(method="wilson")
        if bounds.low > limit:
            yield count / total, total, float(bounds.low), float(bounds.high)


def _warning(kind: Kind, label: str, text: str, estimate: Estimate) -> Warning:
    return Warning(kind, label, text, estimate.mean, (estimate.low, estimate.high))


def _text(estimate: Estimate, digits: int = 2) -> str:
    return f"{fixed(estimate.mean, f'+.{digits}f')} {interval(estimate.low, estimate.high, digits=digits)}"
