"""What each policy answered to the same prompts."""

from __future__ import annotations

import math
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
        turns: role and text of each turn of the prompt.
        slice: of the prompts it belongs to; empty where there are none.
        replies: label, reply, score by the metric that decides (None where it was not measured), tokens.
    """

    turns: list[tuple[str, str]]
    slice: str
    replies: list[tuple[str, str, float | None, int | None]]

    @property
    def roles(self) -> bool:
        """Whether a reader must be told who says what: not where all of it is one turn of the user."""
        return [role for role, _ in self.turns] != ["user"]

    @property
    def prompt(self) -> str:
        """All turns as one text."""
        return "\n".join(f"{role}: {text}" if self.roles else text for role, text in self.turns)

    @property
    def spread(self) -> float:
        """How far the best and the worst reply are apart; 0 where fewer than two are scored."""
        scores = [score for _, _, score, _ in self.replies if score is not None and math.isfinite(score)]
        return max(scores) - min(scores) if len(scores) > 1 else 0.0


def replies_section(results: Results, out: Path) -> Section:
    """Return the section of replies with a form that filters them."""
    prompts = side_by_side(results, out, MOST_PROMPTS)
    values = {"prompts": prompts, "results": results, "fixed": fixed, "sorted": any(each.spread for each in prompts)}
    return Section("replies", "Side by side", [Html("replies.html.jinja", values)])


def side_by_side(results: Results, out: Path, most: int = 12) -> list[Replies]:
    """Return test prompts with what each policy (first seed) answered, first those on which their scores differ most;
    fewer than `most` where replies are long."""
    records: dict[str, Sequence[dict[str, Any]]] = {}
    for label, result in results.algorithms.items():
        if result.seeds:
            records[label] = read_records((out / next(iter(result.seeds.values())).replies).parent)
    every = [
        Replies(
            [(turn["role"], turn["content"]) for turn in same[0]["prompt"]],
            same[0].get("slice") or "",
            [
                (label, record["reply"], record.get(results.primary), record.get("length"))
                for label, record in zip(records, same, strict=True)
            ],
        )
        for same in zip(*records.values(), strict=False)
    ]
    prompts: list[Replies] = []
    characters = 0
    for each in sorted(every, key=lambda each: -each.spread)[:most]:
        characters += len(each.prompt) + sum(len(reply) for _, reply, _, _ in each.replies)
        if prompts and characters > MOST_CHARACTERS:
            break
        prompts.append(each)
    return prompts
