"""The metrics of one trial, from the records of its evaluation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.errors import PrefzooError
from prefzoo.results import statistics
from prefzoo.results.analysis import PromptGroups, group_tables
from prefzoo.run.evaluation_records import RECORDS, distinct, not_numbers, read_records

StartScores = Mapping[str, np.ndarray]
"""gold and proxy of the start's replies"""


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
        slices = np.array([record["slice"] or "" for record in records])
        for name in sorted({*slices.tolist()} - {""}):
            columns[f"{metric}@{name}"] = columns[metric][slices == name]
    texts = [record["reply"] for record in records]
    return columns | {f"distinct_{n}": np.array([distinct(texts, n)]) for n in (1, 2)}


def column_means(columns: Mapping[str, np.ndarray], groups: PromptGroups) -> dict[str, float]:
    """Return the mean of each metric, in which each group of prompts counts once."""
    return {metric: float(np.mean(means)) for metric, means in group_tables({**columns}, groups).items()}
