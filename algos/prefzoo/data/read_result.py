"""What a file or hub data set held, and how much of it is used."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from prefzoo.data.formats import Row
from prefzoo.data.rejects import Dropped, Unusable

Pairs = Literal["all", "adjacent", "plackett_luce"]
"""Which replies of a ranking or of ratings are paired: every two, or only those of neighbouring ranks; or every two by
the Plackett-Luce strengths that all rankings of one prompt together give them (see `strengths`)."""


@dataclass
class Found:
    """What a file or hub data set held.

    Attributes:
        rows: in the order in which their prompts or pairs came first.
        read: records, the dropped ones and blank lines included.
        used: records that rows were made of; the other ones are all dropped.
        unpaired: pairs of replies to one prompt of which no row was made, because neither is better.
        unread: columns that stand in the data and are not read.
        rated: `{"replies", "lowest", "highest"}` of what was rated; else empty.
        annotators: where items were judged by several people, how far they agree (see `agreement.of_votes` and
            `agreement.of_ratings`), and the `rule` by which votes became preferences; else empty. Under `reliability`
            each of its `annotators` has a `reliability`: how often it is found to be right.
    """

    rows: list[Row] = field(default_factory=list)
    read: int = 0
    used: int = 0
    unpaired: Dropped = field(default_factory=Dropped)
    unread: list[str] = field(default_factory=list)
    rated: dict[str, float] = field(default_factory=dict)
    annotators: dict[str, Any] = field(default_factory=dict)


class Dropping:
    """Counts a record that turns out to be unusable, and goes on."""

    def __init__(self, dropped: Dropped, columns: dict[str, str]) -> None:
        self.dropped, self.columns = dropped, columns

    @contextmanager
    def __call__(self, row_id: str, record: dict[str, Any]) -> Iterator[None]:
        try:
            yield
        except Unusable as error:
            shown = error.shown or record.get("prompt") or record.get("chosen") or record
            self.dropped.add(error.reason(self.columns), row_id, str(shown))
