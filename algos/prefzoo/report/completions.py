"""What each policy answered to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.results.results_schema import Results
from prefzoo.run.evaluation_records import read_records

MOST_PROMPTS = 100
MOST_CHARACTERS = 1_000_000
"""Of all replies on one page, so that a browser opens it at once."""


@dataclass(frozen=True)
class Answered:
    """One test prompt.

    Attributes:
        prompt: all its turns.
        slice: of the prompts it belongs to; empty where there are none.
        replies: label, reply, score by the metric that decides (None where it was not measured), tokens.
    """

    prompt: str
    slice: str
    replies: list[tuple[str, str, float | None, int | None]]


def side_by_side(results: Results, out: Path, most: int = 12) -> list[Answered]:
    """The first test prompts with what each policy (first seed) answered; fewer than `most` where replies are long."""
    answers: dict[str, Sequence[dict[str, Any]]] = {}
    for label, each in results.algorithms.items():
        if each.seeds:
            answers[label] = read_records((out / next(iter(each.seeds.values())).replies).parent)[:most]
    shown: list[Answered] = []
    characters = 0
    for i, record in enumerate(next(iter(answers.values()), [])):
        prompt = "\n".join(turn["content"] for turn in record["prompt"])
        replies = [
            (label, rows[i]["reply"], rows[i].get(results.primary), rows[i].get("length"))
            for label, rows in answers.items()
        ]
        characters += len(prompt) + sum(len(reply) for _, reply, _, _ in replies)
        if shown and characters > MOST_CHARACTERS:
            break
        shown.append(Answered(prompt, record.get("slice") or "", replies))
    return shown
