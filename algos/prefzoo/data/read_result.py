"""What was read from a file or hub data set."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejected, Rejects, as_text

Pairs = Literal["all", "adjacent", "plackett_luce"]
"""Which replies of a ranking or of ratings are paired: every two, or only those of neighbouring ranks; or every two by
the Plackett-Luce strengths that all rankings of one prompt together give them (see `plackett_luce`)."""


@dataclass
class ReadResult:
    """What a file, a hub data set or a source held, and how much of it is used.

    Attributes:
        rows: in the order in which their prompts or pairs came first.
        read: records, the dropped ones and blank lines included.
        used: records that rows were made of; the other ones are in `dropped`.
        dropped: records of which no row was made, and why.
        unpaired: pairs of replies to one prompt of which no row was made, because neither is better.
        unread: columns of the data that are not read.
        rated: `{"replies", "lowest", "highest"}` of what was rated; else empty.
        annotators: where items were judged by several people, how far they agree (see `agreement`), and the `rule` by
            which votes became preferences; else empty. Under `reliability` each of its `annotators` has a
            `reliability`: how often it is found to be right. Where records have `seconds`, `median_seconds` of all
            judgements and of each annotator's.
        columns: our name of a column -> the name that it has in the data.
    """

    rows: list[Row] = field(default_factory=list)
    read: int = 0
    used: int = 0
    dropped: Rejects = field(default_factory=Rejects)
    unpaired: Rejects = field(default_factory=Rejects)
    unread: list[str] = field(default_factory=list)
    rated: dict[str, float] = field(default_factory=dict)
    annotators: dict[str, Any] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    def with_prefix(self, prefix: str) -> ReadResult:
        """A copy with `prefix` before the id of each row and record."""
        dropped, unpaired = Rejects(), Rejects()
        dropped.merge(self.dropped, prefix)
        unpaired.merge(self.unpaired, prefix)
        rows = [replace(row, id=prefix + row.id) for row in self.rows]
        return replace(self, rows=rows, dropped=dropped, unpaired=unpaired)

    @contextmanager
    def using(self, row_id: str, record: dict[str, Any]) -> Iterator[None]:
        """Count a record as dropped if the block raises `Rejected`, and go on."""
        try:
            yield
        except Rejected as error:
            shown = error.shown or record.get("prompt") or record.get("chosen") or record
            self.dropped.add(error.reason(self.columns), row_id, as_text(shown))
        except RecursionError:
            self.dropped.add("nested_too_deeply", row_id, "")
