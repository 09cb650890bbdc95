"""From tables of seeds by prompts to verdicts, win rates and ratings, as they stand in `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np

from prefzoo.results import statistics
from prefzoo.results.results_schema import Pair, Summary, Verdict
from prefzoo.run.stage_graph import START

Tables = dict[str, np.ndarray]
"""metric -> (seeds x prompts)"""


def summarized(found: statistics.Estimate, low: float = -np.inf, high: float = np.inf) -> Summary:
    """An estimate as it is written down, its interval cut to what is possible."""
    known = np.isfinite(found.low)
    return Summary(mean=found.mean, ci95=(max(low, found.low), min(high, found.high)) if known else None)


def summaries(tables: Mapping[str, Tables]) -> dict[str, dict[str, Summary]]:
    """The mean of every metric of every label: label -> metric -> summary.

    A metric that is 0 or 1, or a tie, and not the same for all, is a share in the mean, such as a win rate or what a
    verifier says; of such a one the interval has a width even where all values are 0 or all 1.
    """
    values: dict[str, set[float]] = {}
    for each in tables.values():
        for metric, table in each.items():
            values.setdefault(metric, set()).update(np.unique(table).tolist())
    shares = {metric for metric, known in values.items() if len(known) > 1 and known <= {0.0, 0.5, 1.0}}
    found: dict[str, dict[str, Summary]] = {}
    for label, each in tables.items():
        found[label] = {}
        for metric, table in each.items():
            mean = statistics.estimate(table)
            found[label][metric] = summarized(statistics.share(mean, table) if metric in shares else mean)
    return found


def decides(tables: Mapping[str, Tables]) -> str | None:
    """The metric that decides: gold where a truth is known, else proxy; None where nothing was measured."""
    return next((metric for metric in ("gold", "proxy") if metric in tables.get(START, {})), None)


def verdicts(tables: Mapping[str, Tables]) -> list[Verdict]:
    """Everything against the start on gold and proxy; and all pairs on the metric that decides."""
    found: list[Verdict] = []
    for metric in ("gold", "proxy"):
        labels = [label for label in tables if label != START and metric in tables[label]]
        if metric in tables.get(START, {}):
            found += family(f"{metric} against the start", metric, [(label, START) for label in labels], tables)
        if metric == decides(tables):
            found += family(f"{metric} between policies", metric, list(combinations(labels, 2)), tables)
    return found


def family(name: str, metric: str, pairs: Sequence[tuple[str, str]], tables: Mapping[str, Tables]) -> list[Verdict]:
    """Verdicts that Holm corrects together."""
    sides = [(tables[a][metric], tables[b][metric]) for a, b in pairs]
    found = [statistics.difference(a, b) for a, b in sides]
    adjusted = statistics.holm([each.p for each in found])
    return [
        Verdict(
            metric=metric,
            a=labels[0],
            b=labels[1],
            difference=each.mean,
            ci95=(each.low, each.high),
            p_adjusted=p,
            verdict=statistics.verdict(each.mean, p),
            family=name,
            family_size=len(pairs),
            effect_size=statistics.effect_size(*side),
            detectable=_detectable(*side, len(pairs)),
        )
        for labels, side, each, p in zip(pairs, sides, found, adjusted, strict=True)
    ]


def _detectable(a: np.ndarray, b: np.ndarray, family_size: int) -> float | None:
    """The minimum detectable difference; None where nothing tells how prompts differ, or where they are so few that
    no difference could be found."""
    if a.shape[1] < 2 or statistics.unvaried(a, b) or statistics.sign_test(a.shape[1]) >= statistics.ALPHA:
        return None
    return statistics.Pilot.of(a, b).detectable(statistics.Design(*a.shape), family_size)


def pairs(tables: Mapping[str, Tables]) -> list[Pair]:
    """The win matrix, each two labels once."""
    measured = _measured(tables)
    found = []
    for a, b in combinations(measured, 2):
        won = statistics.wins(measured[a], measured[b])
        improved = statistics.probability_of_improvement(measured[a], measured[b])
        rate = statistics.share(statistics.estimate(won), won)
        found.append(
            Pair(
                a=a,
                b=b,
                win_rate=summarized(rate, 0.0, 1.0),
                probability_of_improvement=summarized(improved, 0.0, 1.0),
            )
        )
    return found


def rated(tables: Mapping[str, Tables]) -> dict[str, Summary]:
    """Bradley-Terry ratings in log-odds from the win matrix; the start has 0."""
    measured = _measured(tables)
    if len(measured) < 2:
        return {}
    found = statistics.ratings(np.stack(list(measured.values())))
    return {label: summarized(each) for label, each in zip(measured, found, strict=True)}


def _measured(tables: Mapping[str, Tables]) -> dict[str, np.ndarray]:
    """The tables of the metric that decides, the start's first."""
    metric = decides(tables)
    ordered = sorted(tables, key=lambda label: label != START)
    return {label: tables[label][metric] for label in ordered if metric in tables[label]}
