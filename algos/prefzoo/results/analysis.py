"""From tables of seeds by prompts to verdicts, win rates and ratings, as they stand in `results.json`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np

from prefzoo.results import statistics
from prefzoo.results.results_schema import Pair, Summary, Verdict
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START

Tables = dict[str, np.ndarray]
"""metric -> (seeds x prompts)"""


def read_tables(folders: Sequence[Path], metrics: Sequence[str] = ("gold", "proxy")) -> Tables:
    """Read a (folders x prompts) table of each of these metrics that all replies have, from evaluations' folders."""
    evaluations = [read_records(folder) for folder in folders]
    return {
        metric: np.array([[float(record[metric]) for record in records] for records in evaluations])
        for metric in metrics
        if all(metric in record for records in evaluations for record in records)
    }


def to_summary(estimate: statistics.Estimate, low: float = -np.inf, high: float = np.inf) -> Summary:
    """Convert an estimate, its interval cut to the range from `low` to `high`."""
    known = np.isfinite(estimate.low)
    return Summary(mean=estimate.mean, ci95=(max(low, estimate.low), min(high, estimate.high)) if known else None)


def summaries(tables: Mapping[str, Tables]) -> dict[str, dict[str, Summary]]:
    """Return label -> metric -> summary of the mean.

    A metric that is 0 or 1, or a tie, and not the same for all, is a proportion, such as a win rate or what a verifier
    says; its interval has a width even where all values are 0 or all 1.
    """
    values: dict[str, set[float]] = {}
    for of_label in tables.values():
        for metric, table in of_label.items():
            values.setdefault(metric, set()).update(np.unique(table).tolist())
    proportions = {metric for metric, known in values.items() if len(known) > 1 and known <= {0.0, 0.5, 1.0}}

    def summary(metric: str, table: np.ndarray) -> Summary:
        mean = statistics.estimate(table)
        return to_summary(statistics.proportion(mean, table) if metric in proportions else mean)

    return {
        label: {metric: summary(metric, table) for metric, table in of_label.items()}
        for label, of_label in tables.items()
    }


def primary_metric(tables: Mapping[str, Tables]) -> str | None:
    """Return the metric that decides: gold where a truth is known, else proxy; None where nothing was measured."""
    return next((metric for metric in ("gold", "proxy") if metric in tables.get(START, {})), None)


def verdicts(tables: Mapping[str, Tables]) -> list[Verdict]:
    """Compare all policies with the start on gold and proxy, and all pairs of policies on the primary metric."""
    result: list[Verdict] = []
    for metric in ("gold", "proxy"):
        labels = [label for label in tables if label != START and metric in tables[label]]
        if metric in tables.get(START, {}):
            pairs = [(label, START) for label in labels]
            result += verdict_family(f"{metric} against the start", metric, pairs, tables)
        if metric == primary_metric(tables):
            result += verdict_family(f"{metric} between policies", metric, list(combinations(labels, 2)), tables)
    return result


def verdict_family(
    name: str, metric: str, pairs: Sequence[tuple[str, str]], tables: Mapping[str, Tables]
) -> list[Verdict]:
    """Return verdicts that Holm's method corrects together."""
    scores = [(tables[a][metric], tables[b][metric]) for a, b in pairs]
    differences = [statistics.paired_difference(a, b) for a, b in scores]
    adjusted = statistics.holm([difference.p for difference in differences])
    return [
        Verdict(
            metric=metric,
            a=labels[0],
            b=labels[1],
            difference=difference.mean,
            ci95=(difference.low, difference.high),
            p_adjusted=p,
            verdict=statistics.verdict(difference.mean, p),
            family=name,
            family_size=len(pairs),
            effect_size=statistics.effect_size(a, b),
            detectable=_detectable(a, b, len(pairs)),
        )
        for labels, (a, b), difference, p in zip(pairs, scores, differences, adjusted, strict=True)
    ]


def _detectable(a: np.ndarray, b: np.ndarray, family_size: int) -> float | None:
    """Return the minimum detectable effect; None where nothing tells how prompts differ, or where they are so few that
    no difference could be found."""
    prompts = a.shape[1]
    if prompts < 2 or statistics.all_differ_alike(a, b) or statistics.sign_test(prompts) >= statistics.ALPHA:
        return None
    return statistics.Pilot.of(a, b).minimum_detectable_effect(statistics.Design(*a.shape), family_size)


def pairs(tables: Mapping[str, Tables]) -> list[Pair]:
    """Return the win matrix, each two labels once."""
    result = []
    for (a, scores_a), (b, scores_b) in combinations(_primary_scores(tables).items(), 2):
        won = statistics.wins(scores_a, scores_b)
        improvement = statistics.probability_of_improvement(scores_a, scores_b)
        win_rate = statistics.proportion(statistics.estimate(won), won)
        result.append(
            Pair(
                a=a,
                b=b,
                win_rate=to_summary(win_rate, 0.0, 1.0),
                probability_of_improvement=to_summary(improvement, 0.0, 1.0),
            )
        )
    return result


def ratings(tables: Mapping[str, Tables]) -> dict[str, Summary]:
    """Return Bradley-Terry ratings in log-odds; the start has 0."""
    scores = _primary_scores(tables)
    if len(scores) < 2:
        return {}
    estimates = statistics.bradley_terry_ratings(np.stack(list(scores.values())))
    return {label: to_summary(estimate) for label, estimate in zip(scores, estimates, strict=True)}


def _primary_scores(tables: Mapping[str, Tables]) -> dict[str, np.ndarray]:
    """Return label -> table of the primary metric, the start's first."""
    metric = primary_metric(tables)
    ordered = sorted(tables, key=lambda label: label != START)
    return {label: tables[label][metric] for label in ordered if metric in tables[label]}
