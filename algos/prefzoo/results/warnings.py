"""Signs that a policy games its reward, or that a number means less than it seems to: plain words, each with the number
that it rests on. A change is told only where its 95% interval does not cover 0 and it is large enough to matter. These
intervals are not corrected for the number of policies and of signs, as verdicts are, and the words claim no more."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from prefzoo.results import statistics
from prefzoo.results.milestone_tables import Way
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Kind, LengthAdjusted, Warning
from prefzoo.results.statistics import ALPHA, Estimate

Tables = Mapping[str, np.ndarray]

PEAK = 0.1
"""Of what the best policy on the way had gained over the start: a smaller fall since is not worth a warning."""

LENGTH = 0.1
"""Of the start's mean length: a smaller change is not worth a warning."""
DIVERSITY = 0.1
"""Of the start's distinct-2."""
ENTROPY = 0.5
"""Of the entropy at the beginning of a training."""
INCONSISTENT = 0.2
"""Of a judge's pairs, at least, by its interval; a judge that tosses a coin for each question is at 0.5."""
UNREAD = 0.02
"""A judge of whose answers surely more than this share cannot be read is worth a warning."""
CUT = 0.05
"""Of the replies, at least, by its interval."""


def signs(
    tables: Mapping[str, Tables],
    start: Tables,
    metric: str,
    adjusted: Mapping[str, LengthAdjusted | None],
    curves: Mapping[str, Sequence[Sequence[Mapping[str, float]]]],
    judges: Mapping[str | None, Sequence[Mapping[str, Any]]],
    deciding: Mapping[str, Sequence[Mapping[str, Any]]],
    ways: Mapping[str, Way],
) -> list[Warning]:
    """All warnings of a comparison.

    Args:
        tables: label -> metric -> (seeds x prompts), of policies with a result in all seeds.
        start: the same of the start.
        metric: the one that decides.
        adjusted: label -> what is left of its gain at equal length.
        curves: label -> its training curve of each seed.
        judges: label -> what its judge reports of each seed; under None, of the judge who labelled the data.
        deciding: label -> what the final judge was asked about its replies of each seed, where a judge decides.
        ways: label -> the policies on the way to it.
    """
    found: list[Warning] = []
    for label, table in tables.items():
        against = {name: statistics.difference(table[name], start[name]) for name in table if name in start}
        found += _over_optimized(label, against)
        found += _past_peak(label, table, start, metric, ways.get(label, []))
        found += _slices(label, against, table, metric)
        found += _lengths(label, against, start, metric, adjusted.get(label))
        found += _diversity(label, against, start)
        found += _entropy(label, curves.get(label, []))
        found += _cut_off(label, table)
    for name, reports in judges.items():
        who = f"{name}: its judge" if name else "The judge"
        found += [*_judge(name, reports, who), *_unread(name, reports, who)]
    for label, reports in deciding.items():
        found += _unread(label, reports, f"{label}: the final judge")
    return found


def _over_optimized(label: str, against: Mapping[str, Estimate]) -> Iterator[Warning]:
    if {"gold", "proxy"} <= against.keys() and against["proxy"].low > 0 > against["gold"].high:
        gold, proxy = against["gold"], against["proxy"]
        text = (
            f"{label}: the proxy reward went up ({_signed(proxy)}) and gold went down ({_signed(gold)}), both against "
            "the start: a sign that the reward is over-optimized."
        )
        yield _sign("over_optimization", label, text, gold)


def _past_peak(label: str, table: Tables, start: Tables, metric: str, way: Way) -> Iterator[Warning]:
    """The best policy on the way is the best of several by luck too, for which its test is corrected (Bonferroni)."""
    if not way or not all(metric in each for each in (table, start, *[kept for _, kept in way])):
        return
    name, best = max(way, key=lambda each: float(each[1][metric].mean()))
    fall = statistics.difference(table[metric], best[metric])
    gained = float((best[metric] - start[metric]).mean())
    if fall.p * len(way) >= ALPHA or gained <= 0 or fall.mean > -PEAK * gained:
        return
    before, after = (fixed(float(each[metric].mean())) for each in (best, table))
    text = (
        f"{label}: {metric} reward fell again along its training, from {before} at {name} to {after} at the end "
        f"({_signed(fall)})"
    )
    if metric != "proxy" and all("proxy" in each for each in (table, start, best)):
        since, over_start = (statistics.difference(table["proxy"], each["proxy"]) for each in (best, start))
        text += f", while the proxy reward {'fell too' if since.high < 0 else 'did not fall'} ({_signed(since)})"
        if since.high >= 0 and over_start.low > 0:
            text += f" and is above the start's ({_signed(over_start)}): a sign that the reward is over-optimized"
    yield _sign("past_peak", label, f"{text}. An earlier policy may be the better one.", fall)


def _slices(label: str, against: Mapping[str, Estimate], table: Tables, metric: str) -> Iterator[Warning]:
    """What the mean over all prompts does not tell; a policy has several slices to fall on by chance (Bonferroni)."""
    slices = [name for name in against if name.startswith(f"{metric}@")]
    if metric not in against:
        return
    whole = against[metric]
    for name in slices:
        found = against[name]
        told_by_all = whole.high < 0 and found.high >= whole.low
        if found.mean >= 0 or found.p * len(slices) >= ALPHA or told_by_all:
            continue
        over_all = "it rose" if whole.low > 0 else "it fell less" if whole.high < 0 else "no change is clear"
        text = (
            f"{label}: {metric} reward fell on the slice {name.partition('@')[2]} ({_signed(found)}, "
            f"{table[name].shape[1]} prompts); over all prompts {over_all} ({_signed(whole)})."
        )
        yield _sign("slice", label, text, found)


def _lengths(
    label: str, against: Mapping[str, Estimate], start: Tables, metric: str, equal: LengthAdjusted | None
) -> Iterator[Warning]:
    if "length" not in against:
        return
    found, before = against["length"], float(start["length"].mean())
    if _clear(found) and abs(found.mean) > LENGTH * before:
        word = "longer" if found.mean > 0 else "shorter"
        text = f"{label}: replies got {word}, by {_signed(found, 1)} tokens from {before:.1f}."
        if found.mean > 0 and equal is not None and equal.difference_ci95 is not None:
            low, high = equal.difference_ci95
            text += (
                f" At equal length the difference in {metric} reward to the start is {fixed(equal.difference, '+.2f')} "
                f"{interval(low, high)}."
            )
        yield _sign("length", label, text, found)
    if equal is not None and equal.difference_ci95 and metric in against and against[metric].low > 0:
        low, high = equal.difference_ci95
        if low <= 0 and equal.difference < against[metric].mean / 2:  # smaller, and not only less certain
            text = (
                f"{label}: the gain in {metric} reward ({_signed(against[metric])}) is not shown at equal length "
                f"({fixed(equal.difference, '+.2f')} {interval(low, high)}): it may be one of length."
            )
            yield Warning("length_explains", label, text, equal.difference, (low, high))


def _diversity(label: str, against: Mapping[str, Estimate], start: Tables) -> Iterator[Warning]:
    if "distinct_2" not in against:
        return
    found, before = against["distinct_2"], float(start["distinct_2"].mean())
    if found.high < 0 and found.mean < -DIVERSITY * before:
        text = f"{label}: replies got more alike: distinct-2 changed by {_signed(found)} from {before:.2f}."
        yield _sign("diversity", label, text, found)


def _entropy(label: str, curves: Sequence[Sequence[Mapping[str, float]]]) -> Iterator[Warning]:
    logged = [[entry["entropy"] for entry in curve if "entropy" in entry] for curve in curves]
    if not logged or any(len(values) < 2 or values[0] <= 0 for values in logged):
        return
    first, last = (float(np.mean([values[i] for values in logged])) for i in (0, -1))
    found = statistics.estimate(np.array([[values[-1] / values[0] - 1] for values in logged]))
    if found.high < 0 and found.mean < -ENTROPY:
        text = (
            f"{label}: entropy collapsed while it was trained, by {-found.mean:.0%} (95% {-found.high:.0%} to "
            f"{-found.low:.0%}), from {first:.2f} to {last:.2f} nats a token as its trainer logs it."
        )
        yield _sign("entropy", label, text, found)


def _cut_off(label: str, table: Tables) -> Iterator[Warning]:
    if "finished" not in table:
        return
    found = statistics.estimate(1 - table["finished"])
    if found.low > CUT:
        text = (
            f"{label}: {found.mean:.0%} of the replies (95% {found.low:.0%} to {min(1.0, found.high):.0%}) were cut at "
            "`generation.max_new_tokens`."
        )
        yield _sign("cut_off", label, text, found)


def _judge(label: str | None, reports: Sequence[Mapping[str, Any]], who: str) -> Iterator[Warning]:
    if (found := _often(reports, "inconsistent", "pairs", INCONSISTENT)) is not None:
        text = (
            f"{who} disagrees with itself: asked again with the replies in the other order it prefers "
            f"the other one in {found.share:.0%} of {found.of} pairs (95% {found.low:.0%} to {found.high:.0%})."
        )
        yield Warning("judge", label, text, found.share, (found.low, found.high))


def _unread(label: str | None, reports: Sequence[Mapping[str, Any]], who: str) -> Iterator[Warning]:
    if (found := _often(reports, "failures", "questions", UNREAD)) is not None:
        text = (
            f"{who} could not be read in {found.share:.0%} of {found.of} answers "
            f"(95% {found.low:.0%} to {found.high:.0%}); they count as undecided."
        )
        yield Warning("judge", label, text, found.share, (found.low, found.high))


class _Share(NamedTuple):
    """A share of so many, with its 95% interval (Wilson's)."""

    share: float
    of: int
    low: float
    high: float


def _often(reports: Sequence[Mapping[str, Any]], what: str, among: str, limit: float) -> _Share | None:
    """How often `what` was counted among `among`, over all reports; None where that is not surely above `limit`."""
    happened, of = (sum(report.get(name, 0) for report in reports) for name in (what, among))
    if not of:
        return None
    bounds = stats.binomtest(happened, of).proportion_ci(method="wilson")
    return _Share(happened / of, of, float(bounds.low), float(bounds.high)) if bounds.low > limit else None


def _clear(found: Estimate) -> bool:
    return found.low > 0 or found.high < 0


def _sign(kind: Kind, label: str, text: str, found: Estimate) -> Warning:
    return Warning(kind, label, text, found.mean, (found.low, found.high))


def _signed(found: Estimate, digits: int = 2) -> str:
    return f"{fixed(found.mean, f'+.{digits}f')} {interval(found.low, found.high, digits=digits)}"
