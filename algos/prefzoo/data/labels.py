"""What annotators said of two replies, and what most of them said."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefzoo.data.formats import Dropped, Row, Unusable, as_list
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
    """One pair of replies and what each annotator said: 0 the first is better, 1 the second, None neither."""

    row: Row
    cast: list[int | None] = field(default_factory=list)


def vote(votes: dict[tuple[str, frozenset[str]], Votes], row: Row, cast: Sequence[int | None]) -> None:
    """Add what one annotator (or several) said of `row`'s pair, 0 for its chosen reply, to what others said of it."""
    assert row.chosen is not None and row.rejected is not None
    key = (prompt_key(row.prompt), frozenset((row.chosen, row.rejected)))
    item = votes.setdefault(key, Votes(row))
    turned = item.row.chosen != row.chosen
    item.cast += [1 - vote if turned and vote is not None else vote for vote in cast]


def labels(value: Any) -> list[int | None]:
    """The votes in a `preference` column: one label, or a list of them.

    Raises:
        Unusable: for a word that is not in `LABELS`.
    """
    listed = value if isinstance(value, list) or str(value).lstrip().startswith("[") else [value]
    words = [str(word).strip().lower() for word in as_list(listed)]
    if not words or not set(words) <= LABELS.keys():
        raise Unusable("unreadable_label")
    return [LABELS[word] for word in words]


def thumb(value: Any) -> bool:
    """Whether a reply got a thumb up; raises Unusable for what is neither true nor false."""
    words = {"true": True, "1": True, "false": False, "0": False}
    if str(value).strip().lower() not in words:
        raise Unusable("unreadable_label")
    return words[str(value).strip().lower()]


def majority(items: Iterable[Votes], dropped: Dropped) -> list[Row]:
    """The pair of each item as most annotators see it; items without a majority are dropped."""
    rows = []
    for item in items:
        first, second = item.cast.count(0), item.cast.count(1)
        if first == second:
            dropped.add("annotators_tied", item.row.id, item.row.prompt[-1]["content"])
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
