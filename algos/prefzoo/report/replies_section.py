"""What each policy answered to the same prompts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefzoo.report.explained_replies import Explained, explanation_of, read_explanations
from prefzoo.report.sections import Html, Part, Points, Section, Text
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results
from prefzoo.run.evaluation_records import read_records

MOST_PROMPTS = 100
MOST_CHARACTERS = 1_000_000
"""Of all replies on one page, so that a browser opens it at once."""
MOST_SHOWN = 200
"""Characters of a reply where it is only named."""


@dataclass(frozen=True)
class Replies:
    """The replies to one test prompt.

    Attributes:
        turns: role and text of each turn of the prompt.
        slice: of the prompts it belongs to; empty where there are none.
        replies: label, reply, score by the metric that decides (None where it was not measured), tokens.
        explained: label to why its reply got its reward, where that was asked.
    """

    turns: list[tuple[str, str]]
    slice: str
    replies: list[tuple[str, str, float | None, int | None]]
    explained: Mapping[str, Explained] = field(default_factory=dict)

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
    said = [
        f"{label}: {shortened(reply)} {' '.join(each.explained[label].sentences)}"
        for each in prompts
        for label, reply, *_ in each.replies
        if label in each.explained
    ]
    words: list[Part] = [Text("What made the rewards of replies", "heading"), Points(said)] if said else []
    return Section("replies", "Side by side", [Html("replies.html.jinja", values), *map(_in_words, words)])


def _in_words(part: Part) -> Part:
    return replace(part, only=("markdown",))


def shortened(text: str) -> str:
    """Return a text in quotation marks, at most `MOST_SHOWN` characters of it."""
    return f"“{text if len(text) <= MOST_SHOWN else text[:MOST_SHOWN] + '…'}”"


def side_by_side(results: Results, out: Path, most: int = 12) -> list[Replies]:
    """Return test prompts with what each policy (first seed) answered, first those on which their scores differ most;
    fewer than `most` where replies are long."""
    labels = [label for label, result in results.algorithms.items() if result.seeds]
    explanations = read_explanations(out)
    prompts: list[Replies] = []
    characters = 0
    for same in shown_records(results, out)[:most]:
        each = _replies(results, labels, same)
        characters += len(each.prompt) + sum(len(reply) for _, reply, _, _ in each.replies)
        if prompts and characters > MOST_CHARACTERS:
            break
        pairs = [
            (label, explanation_of(explanations, label, record)) for label, record in zip(labels, same, strict=True)
        ]
        prompts.append(replace(each, explained={label: found for label, found in pairs if found is not None}))
    return prompts


def shown_records(results: Results, out: Path) -> list[Sequence[dict[str, Any]]]:
    """Return for each test prompt the record of every policy that has any (first seed), in the order in which they are
    shown."""
    trials = [next(iter(result.seeds.values())) for result in results.algorithms.values() if result.seeds]
    labels = [label for label, result in results.algorithms.items() if result.seeds]
    every = zip(*(read_records((out / trial.replies).parent) for trial in trials), strict=False)
    return sorted(every, key=lambda same: -_replies(results, labels, same).spread)


def _replies(results: Results, labels: Sequence[str], same: Sequence[dict[str, Any]]) -> Replies:
    return Replies(
        [(turn["role"], turn["content"]) for turn in same[0]["prompt"]],
        same[0].get("slice") or "",
        [
            (label, record["reply"], record.get(results.primary), record.get("length"))
            for label, record in zip(labels, same, strict=True)
        ],
    )
