"""What annotators said of two replies, and what most of them said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefzoo.data.formats import Row, as_list
from prefzoo.data.reasons import Dropped, Unusable
from prefzoo.data.views import prompt_key

LABELS: dict[str, int | None] = {
    "a": 0,
    "response_a": 0,
    "b": 1,
    "response_b": 1,
    "tie": None,
    "both": None,
    "neither": None,
}


@dataclass
class Votes:
    """One pair of replies and what each annotator said: 0 the first is better, 1 the second, None neither.

    Attributes:
        row: the pair, as the first record has it.
        cast: every vote.
        records: ids of the records that the votes stand in.
        said: what each annotator who is named has said, so that a record that came twice counts once.
    """

    row: Row
    cast: list[int | None] = field(default_factory=list)
    records: list[str] = field(default_factory=list)
    said: set[tuple[str, tuple[int | None, ...]]] = field(default_factory=set)


def vote(
    votes: dict[tuple[str, frozenset[str]], Votes], row: Row, cast: Sequence[int | None], annotator: Any = None
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
        if (str(annotator), turned_cast) in item.said:
            raise Unusable("repeated_judgement", "annotator", detail=" says it again")
        item.said.add((str(annotator), turned_cast))
    item.cast += turned_cast
    item.records.append(row.id)


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


def majority(items: Iterable[Votes], dropped: Dropped) -> list[Row]:
    """The pair of each item as most annotators see it; the records of an item without a majority are dropped."""
    rows = []
    for item in items:
        first, second = item.cast.count(0), item.cast.count(1)
        if first == second:
            for record in item.records:
                dropped.add("annotators_tied", record, item.row.prompt[-1]["content"])
        elif first > second:
            rows.append(item.row)
        else:
            rows.append(Row(item.row.id, item.row.prompt, chosen=item.row.rejected, rejected=item.row.chosen))
    return rows


def agreement(judgements: Sequence[Sequence[Any]]) -> dict[str, int]:
    """How far annotators agreed, from what each said of each item; see `comparisons.Found.annotators`."""
    several = [each for each in judgements if len(each) > 1]
    return {
        "items": len(judgements),
        "judgements": sum(map(len, judgements)),
        "items_with_several": len(several),
        "disagreed": sum(len(set(each)) > 1 for each in several),
    }
