"""What each policy answered to the same prompts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.report.sections import Html, Section
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.run.evaluation_records import read_records

MOST_PROMPTS = 100
MOST_CHARACTERS = 1_000_000
"""Of all replies on one page, so that a browser opens it at once."""


@dataclass(frozen=True)
class Replies:
    """The replies to one test prompt.

    Attributes:
        prompt: all its turns.
        slice: of the prompts it belongs to; empty where there are none.
        replies: label, reply, score by the metric that decides (None where it was not measured), tokens.
    """

    prompt: str
    slice: str
    replies: list[tuple[str, str, float | None, int | None]]


def replies_section(results: Results, out: Path) -> Section:
    """Return the section of replies with a form that filters them."""
    values = {"prompts": side_by_side(results, out, MOST_PROMPTS), "results": results, "fixed": fixed}
    return Section("replies", "Side by side", [Html("replies.html.jinja", values)])


def side_by_side(results: Results, out: Path, most: int = 12) -> list[Replies]:
    """Return the first test prompts with what each policy (first seed) answered; fewer than `most` where replies are
    long."""
    records: dict[str, Sequence[dict[str, Any]]] = {}
    for label, result in results.algorithms.items():
        if result.seeds:
            records[label] = read_records((out / next(iter(result.seeds.values())).replies).parent)[:most]
    prompts: list[Replies] = []
    characters = 0
    for i, record in enumerate(next(iter(records.values()), [])):
        prompt = "\n".join(turn["content"] for turn in record["prompt"])
        replies = [
            (label, rows[i]["reply"], rows[i].get(results.primary), rows[i].get("length"))
            for label, rows in records.items()
        ]
        characters += len(prompt) + sum(len(reply) for _, reply, _, _ in replies)
        if prompts and characters > MOST_CHARACTERS:
            break
        prompts.append(Replies(prompt, record.get("slice") or "", replies))
    return prompts
