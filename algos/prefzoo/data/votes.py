"""Votes of annotators on two replies, and how they are read."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefzoo.data.formats import Row, as_list
from prefzoo.data.rejects import Rejected, as_text, writable
from prefzoo.types import Message
from prefzoo.views import prompt_key

LABELS: dict[str, int | None] = {
    "a": 0,
    "response_a": 0,
    "b": 1,
    "response_b": 1,
    "tie": None,
    "both": None,
    "neither": None,
}
MOST_LABELS = 10_000
"""On one pair, in one record."""
THUMBS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}


@dataclass(frozen=True)
class Vote:
    """One annotator's vote on two replies.

    Attributes:
        choice: 0 the first is better, 1 the second, None neither.
        annotator: None where nobody is named.
        record: id of the record that it stands in.
    """

    choice: int | None
    annotator: str | None
    record: str


@dataclass
class VotedPair:
    """Two replies to a prompt, named and ordered as the first record has them, and every vote on them."""

    id: str
    prompt: list[Message]
    first: str
    second: str
    votes: list[Vote] = field(default_factory=list)

    @property
    def replies(self) -> tuple[str, ...]:
        """Both replies in an order that does not depend on that of the records."""
        return tuple(sorted((self.first, self.second)))

    def by_record(self) -> dict[str, list[Vote]]:
        """The votes of each record."""
        records: dict[str, list[Vote]] = {}
        for vote in self.votes:
            records.setdefault(vote.record, []).append(vote)
        return records

    def count(self, choice: int) -> int:
        """How many votes there are for the first (0) or the second reply (1)."""
        return sum(vote.choice == choice for vote in self.votes)

    def row(self, choice: int, row_id: str, vote: int | None = None) -> Row:
        """The row in which the first (0) or the second reply (1) is the chosen one; see `Row.vote`."""
        sides = (self.first, self.second)
        return Row(row_id, self.prompt, chosen=sides[choice], rejected=sides[1 - choice], vote=vote)


PairKey = tuple[str, frozenset[str]]


def add_votes(
    pairs: dict[PairKey, VotedPair],
    pair: VotedPair,
    choices: Sequence[int | None],
    annotator: str | None,
    seen: set[Hashable],
) -> None:
    """Add votes of one annotator (or several) on a pair to those on the same pair in `pairs`.

    Raises:
        Rejected: when this annotator said the same of this pair before.
    """
    key = (prompt_key(pair.prompt), frozenset((pair.first, pair.second)))
    known = pairs.setdefault(key, pair)
    turned = known.first != pair.first
    choices = tuple(1 - choice if turned and choice is not None else choice for choice in choices)
    refuse_repetition(annotator, (key, choices), seen)
    known.votes += [Vote(choice, annotator, pair.id) for choice in choices]


def refuse_repetition(annotator: str | None, judgement: Hashable, seen: set[Hashable]) -> None:
    """Raise Rejected when an annotator who is named gives a judgement again that is in `seen`; else add it."""
    if annotator is not None:
        if (annotator, judgement) in seen:
            raise Rejected("repeated_judgement", "annotator", detail=" says it again")
        seen.add((annotator, judgement))


def annotator_of(record: Mapping[str, Any]) -> str | None:
    """Who judged a record; None where the column is missing or holds no name (nothing, blanks, NaN)."""
    value = record.get("annotator")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return writable(as_text(value)).strip() or None


def labels(value: Any) -> list[int | None]:
    """The votes in a `preference` column: one label, or a list of them. Raises Rejected for other words."""
    listed = value if isinstance(value, list) or as_text(value).lstrip().startswith("[") else [value]
    words = [as_text(word).strip().lower() for word in as_list(listed, "preference")]
    if len(words) > MOST_LABELS:
        raise Rejected(f"more_than_{MOST_LABELS}_labels", "preference")
    if not words or not set(words) <= LABELS.keys():
        detail = f" is not one of {', '.join(LABELS)}"
        raise Rejected("unreadable_label", "preference", detail=detail, shown=as_text(value))
    return [LABELS[word] for word in words]


def thumb(value: Any) -> bool:
    """Whether a reply got a thumb up. Raises Rejected for what is neither true nor false."""
    if (word := as_text(value).strip().lower()) not in THUMBS:
        raise Rejected("unreadable_label", "label", detail=" is neither true nor false", shown=as_text(value))
    return THUMBS[word]
