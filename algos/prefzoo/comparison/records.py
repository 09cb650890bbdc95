"""What an evaluation leaves on disk, readable without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

RECORDS = "replies.jsonl"
PRINCIPLES = "principles.json"
JUDGING = "judging.json"
"""What the judge that decides was asked about these replies."""


def read_records(folder: Path) -> list[dict[str, Any]]:
    """One dictionary a test prompt, as `evaluate` wrote it."""
    with (folder / RECORDS).open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def distinct(texts: Sequence[str], n: int) -> float:
    """distinct-n (Li et al. 2016, https://arxiv.org/abs/1510.03055): different n-grams of words, as a share of all
    n-grams, over all replies together; 0 when there are none."""
    grams = [tuple(words[i : i + n]) for words in map(str.split, texts) for i in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else 0.0
