"""A batch learned from in parts, so that the activations of a few rows are held at a time.

A processor's cores are busy with a few hundred tokens; more at once cost memory and gain no speed. On a GPU they do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from prefzoo.trainers.rollouts import prompts_and_replies

TOKENS_AT_ONCE = 512
"""Of prompts and replies, padding included."""


def parts_of(batch: dict[str, Any], tokens: int = TOKENS_AT_ONCE) -> list[dict[str, Any]]:
    """Divide a rollout into parts of rows of like length; one that is small enough stays as it is.

    Args:
        batch: what has an entry for each row (tensors, lists) is divided, all else is in each part.
        tokens: how many a part has at most, unless it is a single row.
    """
    lengths: list[int] = prompts_and_replies(batch)[1].sum(1).tolist()
    if len(lengths) * max(lengths) <= tokens:
        return [batch]
    groups: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        if groups and (len(groups[-1]) + 1) * lengths[groups[-1][0]] <= tokens:
            groups[-1].append(row)
        else:
            groups.append([row])
    return [{name: _rows_of(value, rows, len(lengths)) for name, value in batch.items()} for rows in groups]


def _rows_of(value: Any, rows: list[int], of: int) -> Any:
    if isinstance(value, Tensor):
        return value[rows] if value.dim() and len(value) == of else value
    return [value[row] for row in rows] if isinstance(value, list) and len(value) == of else value


def join_metrics(metrics: Mapping[str, list[float]], already: Mapping[str, int], weights: Sequence[float]) -> None:
    """Replace what the parts of a batch added to each metric by what the batch would have added at once. A metric to
    which not every part added stays as it is.

    Args:
        metrics: values of each; a name that ends in `_min` or `_max` is that of the rows, others are means of tokens.
        already: how many values each had before the parts.
        weights: how many tokens of replies were in each part.
    """
    for name, values in metrics.items():
        added = values[already.get(name, 0) :]
        if len(added) != len(weights):
            continue
        if name.endswith(("_min", "_max")):
            joined = min(added) if name.endswith("_min") else max(added)
        else:
            joined = sum(v * w for v, w in zip(added, weights, strict=True)) / max(sum(weights), 1)
        values[already.get(name, 0) :] = [joined]
