"""From tables of seeds by prompts to verdicts, win rates and ratings, as they stand in `results.json`."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.data.formats import slices_of
from prefzoo.judges.dimensions import METRIC as DIMENSION
from prefzoo.judges.fact_checking import METRIC as KNOWLEDGE
from prefzoo.results import statistics
from prefzoo.results.length_adjustment import length_adjusted
from prefzoo.results.results_schema import AlgorithmResult, Pair, Summary, Verdict
from prefzoo.results.tuning_schema import VerdictName
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START

Tables = dict[str, np.ndarray]
"""metric -> (seeds x prompts), or where that is said (seeds x groups)"""
PromptGroups = Mapping[str, statistics.Groups]
"""slice -> the groups of its prompts; under `ALL` those of all test prompts"""
SUPPORTED, CONTRADICTED = f"{KNOWLEDGE}supported", f"{KNOWLEDGE}contradicted"
ALL = ""
PAIRS = "pairs/"
"""Begins the names of metrics of test pairs, whose tables are of groups already."""
NO_GROUPS: PromptGroups = {}
NO_SEARCHES: Mapping[str, float] = {}


def read_tables(folders: Sequence[Path], metrics: Sequence[str] = ("gold", "proxy")) -> Tables:
    """Read a (folders x prompts) table of each of these metrics that all replies have, from evaluations' folders."""
    evaluations = [read_records(folder) for folder in folders]
    return {
        metric: np.array([[float(record[metric]) for record in records] for records in evaluations])
        for metric in metrics
        if all(metric in record for records in evaluations for record in records)
    }


def prompt_groups(records: list[dict[str, Any]]) -> PromptGroups:
    """Return the groups of the prompts of an evaluation; records of older versions have none."""
    slices = {ALL: records}
    for record in records:
        for name in slices_of(record.get("slice")):
            slices.setdefault(name, []).append(record)
    return {
        name: statistics.number_groups([record.get("group") for record in of_slice])
        for name, of_slice in slices.items()
    }


def group_tables(tables: Tables, groups: PromptGroups) -> Tables:
    """Return (seeds x groups) tables of (seeds x prompts) tables."""
    return {
        name: table if name.startswith(PAIRS) else statistics.group_means(table, groups.get(name.partition("@")[2]))
        for name, table in tables.items()
    }


def to_summary(estimate: statistics.Estimate, low: float = -np.inf, high: float = np.inf) -> Summary:
    """Convert an estimate, its interval cut to the range from `low` to `high`."""
    known = np.isfinite(estimate.low)
    return Summary(mean=estimate.mean, ci95=(max(low, estimate.low), min(high, estimate.high)) if known else None)


def summaries(
    tables: Mapping[str, Tables], groups: PromptGroups = NO_GROUPS, shares: Collection[str] = ()
) -> dict[str, dict[str, Summary]]:
    """Return label -> metric -> summary of the mean, over groups of prompts where there are any.

    A metric that is 0 or 1, or a tie, and not the same for all, is a proportion, such as a win rate or what a verifier
    says; its interval lies within 0 and 1 and has a width even where all values are 0 or all 1. `shares` are other
    metrics between 0 and 1. A KL that is the same of all replies is a bound, and has no interval.
    """
    values: dict[str, set[float]] = {}
    for of_label in tables.values():
        for metric, table in of_label.items():
            values.setdefault(metric, set()).update(np.unique(table).tolist())
    proportions = {metric for metric, known in values.items() if len(known) > 1 and known <= {0.0, 0.5, 1.0}}

    def summary(metric: str, table: np.ndarray, means: np.ndarray) -> Summary:
        mean = statistics.estimate(means)
        if is_bound(metric, table):
            return Summary(mean=mean.mean, ci95=None)
        return to_summary(statistics.proportion(mean, means) if metric in proportions | {*shares} else mean)

    return {
        label: {
            metric: summary(metric, of_label[metric], means) for metric, means in group_tables(of_label, groups).items()
        }
        for label, of_label in tables.items()
    }


def difference(metric: str, policy: np.ndarray, start: np.ndarray, groups: PromptGroups) -> Summary:
    """Return the summary of a policy's difference to the start, from (seeds x prompts) tables of a metric."""
    means = [group_tables({metric: table}, groups)[metric] for table in (policy, start)]
    found = statistics.paired_difference(*means)
    return Summary(mean=found.mean, ci95=None) if is_bound(metric, policy) else to_summary(found)


def is_share(table: np.ndarray) -> bool:
    """Return whether a table holds wins, ties and defeats alone, or what is true or not."""
    return bool(np.isin(table, (0.0, 0.5, 1.0)).all())


def is_bound(metric: str, table: np.ndarray) -> bool:
    """Return whether a metric was computed for a policy, and not measured on its replies."""
    return metric == "kl" and table.size > 1 and bool(table.any() and np.ptp(table) == 0)


def summarize(
    algorithms: Mapping[str, AlgorithmResult],
    tables: Mapping[str, Tables],
    groups: PromptGroups,
    metric: str,
    shares: Sequence[str],
) -> None:
    """Write into each result its means, the interquartile mean of `metric`, and how it differs from the start."""
    start, of_all = tables[START], groups.get(ALL)
    for label, summary in summaries(tables, groups, shares).items():
        result = algorithms[label]
        result.summary = summary
        if metric in start and metric in tables[label]:
            bounds = (0.0, 1.0) if is_share(tables[label][metric]) else (-np.inf, np.inf)
            middle = statistics.interquartile_mean(tables[label][metric], of_all)
            result.interquartile_mean = to_summary(middle, *bounds)
        if label != START:
            result.length_adjusted = length_adjusted(tables[label], start, metric, of_all)
            result.over_start = {
                name: difference(name, table, start[name], groups)
                for name, table in tables[label].items()
                if name in start
            }


def primary_metric(tables: Mapping[str, Tables]) -> str | None:
    """Return the metric that decides: gold where a truth is known, else proxy; None where nothing was measured."""
    return next((metric for metric in ("gold", "proxy") if metric in tables.get(START, {})), None)


def verdicts(
    tables: Mapping[str, Tables],
    groups: PromptGroups = NO_GROUPS,
    search_sds: Mapping[str, float] = NO_SEARCHES,
) -> list[Verdict]:
    """Compare all policies with the start on gold and proxy, and all pairs of policies on the primary metric. All
    comparisons with the start by dimension are one family, and so are those by what documents support and contradict;
    to contradict them less is better.

    Args:
        search_sds: of labels whose settings were searched, how far apart what searches find is. Two policies are
            compared as algorithms, of which another search might have found other settings.
    """
    result: list[Verdict] = []
    tables = {label: group_tables(of_label, groups) for label, of_label in tables.items()}
    for metric in ("gold", "proxy"):
        labels = [label for label in tables if label != START and metric in tables[label]]
        if metric in tables.get(START, {}):
            pairs = [(metric, label, START) for label in labels]
            result += verdict_family(f"{metric} against the start", pairs, tables)
        if metric == primary_metric(tables):
            pairs = [(metric, *two) for two in combinations(labels, 2)]
            result += verdict_family(f"{metric} between policies", pairs, tables, search_sds)
    names = [name for name in tables.get(START, {}) if name.startswith(DIMENSION)]
    labels = [label for label in tables if label != START and {*names} <= tables[label].keys()]
    by_dimension = [(name, label, START) for name in names for label in labels]
    result += verdict_family("dimensions against the start", by_dimension, tables) if by_dimension else []
    names = [name for name in (SUPPORTED, CONTRADICTED) if name in tables.get(START, {})]
    labels = [label for label in tables if label != START and {*names} <= tables[label].keys()]
    by_knowledge = [(name, label, START) for name in names for label in labels]
    family = verdict_family("knowledge against the start", by_knowledge, tables) if by_knowledge else []
    return result + [_lower_is_better(each) if each.metric == CONTRADICTED else each for each in family]


def _lower_is_better(verdict: Verdict) -> Verdict:
    opposite: dict[str, VerdictName] = {"better": "worse", "worse": "better"}
    return verdict.model_copy(update={"verdict": opposite.get(verdict.verdict, verdict.verdict)})


def verdict_family(
    name: str,
    pairs: Sequence[tuple[str, str, str]],
    tables: Mapping[str, Tables],
    search_sds: Mapping[str, float] = NO_SEARCHES,
) -> list[Verdict]:
    """Return verdicts that Holm's method corrects together, from (seeds x groups) tables; see `verdicts`.

    Args:
        pairs: metric, and the two labels that are compared by it.
    """
    scores = [(tables[a][metric], tables[b][metric]) for metric, a, b in pairs]
    errors = [math.hypot(*(search_sds.get(label, 0.0) for label in labels)) for _, *labels in pairs]
    plain = [statistics.paired_difference(a, b) for a, b in scores]
    differences = [
        statistics.widened(each, error, *a.shape) for (a, _), each, error in zip(scores, plain, errors, strict=True)
    ]
    adjusted = statistics.holm([difference.p for difference in differences])
    return [
        Verdict(
            metric=metric,
            a=first,
            b=second,
            difference=difference.mean,
            ci95=(difference.low, difference.high),
            p_adjusted=p,
            verdict=statistics.verdict(difference.mean, p),
            family=name,
            family_size=len(pairs),
            effect_size=statistics.effect_size(a, b),
            detectable=_detectable(a, b, len(pairs), difference.error / each.error if each.error > 0 else 1.0),
            skewness=difference.skewness,
            search_sd=error or None,
        )
        for (metric, first, second), (a, b), each, difference, p, error in zip(
            pairs, scores, plain, differences, adjusted, errors, strict=True
        )
    ]


def _detectable(a: np.ndarray, b: np.ndarray, family_size: int, wider: float) -> float | None:
    """Return the minimum detectable effect; None where nothing tells how prompts differ, or where they are so few that
    no difference could be found.

    Args:
        wider: how many times as wide as by seeds and prompts the interval is.
    """
    prompts = a.shape[1]
    if prompts < 2 or statistics.all_differ_alike(a, b) or statistics.sign_test(prompts) >= statistics.ALPHA:
        return None
    return wider * statistics.Pilot.of(a, b).minimum_detectable_effect(statistics.Design(*a.shape), family_size)


def pairs(tables: Mapping[str, Tables], groups: PromptGroups = NO_GROUPS) -> list[Pair]:
    """Return the win matrix, each two labels once."""
    result, of_all = [], groups.get(ALL)
    for (a, scores_a), (b, scores_b) in combinations(_primary_scores(tables).items(), 2):
        won = statistics.group_means(statistics.wins(scores_a, scores_b), of_all)
        improvement = statistics.probability_of_improvement(scores_a, scores_b, of_all)
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


def ratings(tables: Mapping[str, Tables], groups: PromptGroups = NO_GROUPS) -> dict[str, Summary]:
    """Return Bradley-Terry ratings in log-odds; the start has 0."""
    scores = _primary_scores(tables)
    if len(scores) < 2:
        return {}
    estimates = statistics.bradley_terry_ratings(np.stack(list(scores.values())), groups.get(ALL))
    return {label: to_summary(estimate) for label, estimate in zip(scores, estimates, strict=True)}


def _primary_scores(tables: Mapping[str, Tables]) -> dict[str, np.ndarray]:
    """Return label -> table of the primary metric, the start's first."""
    metric = primary_metric(tables)
    ordered = sorted(tables, key=lambda label: label != START)
    return {label: tables[label][metric] for label in ordered if metric in tables[label]}
