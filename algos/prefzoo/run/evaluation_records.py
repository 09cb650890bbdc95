"""What an evaluation leaves on disk, readable without torch."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefzoo.data.words import words
from prefzoo.errors import PrefzooError

RECORDS = "replies.jsonl"
PAIR_LIKELIHOODS = "pairs.jsonl"
"""How likely the policy finds the replies of test pairs; see `run.stages.pair_likelihoods`."""
DETAILS = "details.json"
"""What a training reports by itself, that of the start included."""
SAMPLED_BY = "sampled_by.json"
"""How replies were drawn, where not by transformers."""
PRINCIPLES = "principles.json"
JUDGING = "judging.json"
"""What the judge that decides was asked about these replies."""


def read_records(folder: Path) -> list[dict[str, Any]]:
    """One dictionary a test prompt, as `evaluate` wrote it.

    Raises:
        PrefzooError: when the file is gone, or holds something else.
    """
    try:
        with (folder / RECORDS).open(encoding="utf-8") as file:
            records: list[dict[str, Any]] = [json.loads(line) for line in file]
    except FileNotFoundError:
        raise PrefzooError(
            f"{folder / RECORDS} is gone; delete the folder around it and compare again, which makes it anew"
        ) from None
    except ValueError as error:
        raise PrefzooError(f"{folder / RECORDS} cannot be read: {error}") from error
    if not records:
        raise PrefzooError(f"{folder / RECORDS} is empty")
    return records


def read_pair_likelihoods(folder: Path) -> list[dict[str, Any]]:
    """One dictionary a test pair; none where the policy scores no tokens, or an older version measured it."""
    if not (folder / PAIR_LIKELIHOODS).is_file():
        return []
    try:
        with (folder / PAIR_LIKELIHOODS).open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]
    except ValueError as error:
        raise PrefzooError(f"{folder / PAIR_LIKELIHOODS} cannot be read: {error}") from error


def not_numbers(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """What is infinite or not a number among the measurements, and of how many replies; none where all are sound."""
    bad = Counter(
        name
        for record in records
        for name, value in record.items()
        if isinstance(value, float) and not math.isfinite(value)
    )
    return [f"{name} of {count} of {len(records)} replies" for name, count in bad.items()]


def distinct(texts: Sequence[str], n: int) -> float:
    """distinct-n (Li et al. 2016, https://arxiv.org/abs/1510.03055): different n-grams of words (of signs, where a
    script writes no blanks), as a share of all n-grams, over all replies together; 0 when there are none."""
    grams: set[tuple[str, ...]] = set()
    count = 0
    for of_text in map(words, texts):
        grams.update(zip(*(of_text[i:] for i in range(n)), strict=False))
        count += max(0, len(of_text) - n + 1)
    return len(grams) / count if count else 0.0
