"""The metrics of one trial, from the records of its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.data.formats import slices_of
from prefzoo.errors import PrefzooError
from prefzoo.results import statistics
from prefzoo.results.analysis import PAIRS, PromptGroups, group_tables
from prefzoo.run.evaluation_records import RECORDS, distinct, not_numbers, read_records

StartScores = Mapping[str, np.ndarray]
"""gold and proxy of the start's replies"""

ACCURACIES = (f"{PAIRS}likelihood_accuracy", f"{PAIRS}implicit_accuracy")


def finite_records(folder: Path) -> list[dict[str, Any]]:
    """Read the records of an evaluation.

    Raises:
        PrefzooError: when a measurement is infinite or not a number, or the file is gone.
    """
    records = read_records(folder)
    if bad := not_numbers(records):
        raise PrefzooError(f"{folder / RECORDS} holds what is no finite number: {', '.join(bad)}")
    return records


def start_scores_of(folder: Path) -> dict[str, np.ndarray]:
    """Return gold and proxy of an evaluation, as far as it is there and sound."""
    records = read_records(folder) if folder.is_dir() else []
    if not records or not_numbers(records):
        return {}
    return {name: np.array([record[name] for record in records]) for name in ("gold", "proxy") if name in records[0]}


def metric_columns(records: Sequence[Mapping[str, Any]], start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return metric -> a value for each prompt, or one for the whole; wins are those over the start's scores."""
    columns = {
        metric: np.array([float(record[metric]) for record in records])
        for metric, value in records[0].items()
        if isinstance(value, int | float)
    }
    metric = "gold" if "gold" in columns else "proxy"
    if metric in columns:
        if metric in start:
            columns["win_rate"] = statistics.wins(columns[metric], start[metric])
        slices = [slices_of(record["slice"]) for record in records]
        for name in sorted({name for names in slices for name in names}):
            columns[f"{metric}@{name}"] = columns[metric][[name in names for names in slices]]
    texts = [record["reply"] for record in records]
    return columns | {f"distinct_{n}": np.array([distinct(texts, n)]) for n in (1, 2)}


def pair_columns(
    lines: Sequence[Mapping[str, Any]], start: Sequence[Mapping[str, Any]] | None
) -> dict[str, np.ndarray]:
    """Return what a policy makes of test pairs: metric -> a value for each pair, or for each group of pairs.

    The log-ratio of a reply is its log-probability under the policy less that under the start, in nats: the reward that
    the policy itself is best for, up to a factor and a constant of the prompt (Rafailov et al. 2023).

    - `pairs/likelihood_accuracy`: the chosen reply is more likely than the rejected one (Chen et al. 2024,
      https://arxiv.org/abs/2405.19534); ties count half. The start has this alone.
    - `pairs/implicit_accuracy`: its log-ratio is higher.
    - `pairs/chosen`, `pairs/rejected`, `pairs/margin`: the log-ratios, and the first less the second.
    - `pairs/gold_correlation`, one number: Pearson's, of log-ratio and gold over all these replies, each less the mean
      of its pair. Absent where either is the same within all pairs.
    - `pairs/unlikely`, one number: the share of pairs of which a reply has no finite log-probability, by the policy or
      the start; in the place of all others, where there is one.

    Args:
        lines: of the policy, see `run.stages.pair_likelihoods`.
        start: of the start with the same seed, in the same order; None for the start itself.
    """
    known = lines if start is None else start
    if not lines or not known:
        return {}
    own, reference = (np.array([[line["chosen"], line["rejected"]] for line in each]) for each in (lines, known))
    finite = (np.isfinite(own) & np.isfinite(reference)).all(1)
    if not finite.all():
        return {f"{PAIRS}unlikely": np.array([1 - float(finite.mean())])}
    groups = statistics.number_groups([line["group"] for line in known])

    def column(values: np.ndarray) -> np.ndarray:
        return statistics.group_means(values, groups)

    columns = {ACCURACIES[0]: column(statistics.wins(*own.T))}
    if start is None:
        return columns
    chosen, rejected = (own - reference).T
    columns |= {
        ACCURACIES[1]: column(statistics.wins(chosen, rejected)),
        f"{PAIRS}chosen": column(chosen),
        f"{PAIRS}rejected": column(rejected),
        f"{PAIRS}margin": column(chosen - rejected),
    }
    if "gold" in known[0]:
        margin, gap = chosen - rejected, np.subtract(*np.array([line["gold"] for line in known]).T)
        if (scale := float(np.linalg.norm(margin) * np.linalg.norm(gap))) > 0:
            columns[f"{PAIRS}gold_correlation"] = np.array([float(margin @ gap) / scale])
    return columns


def column_means(columns: Mapping[str, np.ndarray], groups: PromptGroups) -> dict[str, float]:
    """Return the mean of each metric, in which each group of prompts counts once."""
    return {metric: float(np.mean(means)) for metric, means in group_tables({**columns}, groups).items()}
