"""What annotators said of two replies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefzoo.data.formats import Row, as_list
from prefzoo.data.rejects import Unusable
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


@dataclass(frozen=True)
class Vote:
    """What one annotator said of two replies.

    Attributes:
        choice: 0 the first is better, 1 the second, None neither.
        annotator: who said it; None where nobody is named.
        record: id of the record that it stands in.
    """

    choice: int | None
    annotator: str | None
    record: str


@dataclass
class Votes:
    """One pair of replies and what every annotator said of it.

    Attributes:
        row: the pair, as the first record has it: its chosen reply is the first.
        cast: every vote.
        said: what each annotator who is named has said, so that a record that came twice counts once.
    """

    row: Row
    cast: list[Vote] = field(default_factory=list)
    said: set[tuple[str, tuple[int | None, ...]]] = field(default_factory=set)

    def records(self) -> dict[str, list[Vote]]:
        """The votes of each record."""
        found: dict[str, list[Vote]] = {}
        for each in self.cast:
            found.setdefault(each.record, []).append(each)
        return found

    def count(self, choice: int) -> int:
        """How many votes there are for the first (0) or the second reply (1)."""
        return sum(vote.choice == choice for vote in self.cast)

    def preferring(self, choice: int, row_id: str, vote: int | None = None) -> Row:
        """The row in which that reply is the chosen one; see `Row.vote`."""
        sides = (self.row.chosen, self.row.rejected)
        return Row(row_id, self.row.prompt, chosen=sides[choice], rejected=sides[1 - choice], vote=vote)


def vote(
    votes: dict[tuple[str, frozenset[str]], Votes], row: Row, cast: Sequence[int | None], annotator: str | None = None
) -> None:
    """Add what one annotator (or several) said of `row`'s pair, 0 for its chosen reply, to what others said of it.

    Raises:
        Unusable: when this annotator said the same of this pair before.
    """
    assert row.chosen is not None and row.rejected is not None
    key = (prompt_key(row.prompt), frozenset((row.chosen, row.rejected)))
    item = votes.setdefault(key, Votes(row))
    turned = item.row.chosen != row.chosen
    turned_cast = tuple(1 - vote if turned and vote is not None else vote for vote in cast)
    if annotator is not None:
        if (annotator, turned_cast) in item.said:
            raise Unusable("repeated_judgement", "annotator", detail=" says it again")
        item.said.add((annotator, turned_cast))
    item.cast += [Vote(choice, annotator, row.id) for choice in turned_cast]


def named(record: Mapping[str, Any]) -> str | None:
    """Who judged a record; None where the column is missing or holds no name (nothing, blanks, NaN)."""
    value = record.get("annotator")
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    return str(value).strip() or None


def labels(value: Any) -> list[int | None]:
    """The votes in a `preference` column: one label, or a list of them.

    Raises:
        Unusable: for a word that is not in `LABELS`.
    """
    listed = value if isinstance(value, list) or str(value).lstrip().startswith("[") else [value]
    words = [str(word).strip().lower() for word in as_list(listed, "preference")]
    if not words or not set(words) <= LABELS.keys():
        raise Unusable("unreadable_label", "preference", detail=f" is not one of {', '.join(LABELS)}", shown=str(value))
    return [LABELS[word] for word in words]


def thumb(value: Any) -> bool:
    """Whether a reply got a thumb up; raises Unusable for what is neither true nor false."""
    words = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
    if str(value).strip().lower() not in words:
        raise Unusable("unreadable_label", "label", detail=" is neither true nor false", shown=str(value))
    return words[str(value).strip().lower()]
