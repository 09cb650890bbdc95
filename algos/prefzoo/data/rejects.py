"""Records and rows that are not used: the reason, which names the key, and the place where a person finds them."""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

LISTED = 20_000
"""Of each reason as many places are named; more are counted."""
REASONS = 100
"""So many reasons are told apart to the last word; others by their first words."""


@dataclass
class Rejects:
    """What is not used: `reason -> [(place, the beginning of its text)]`. Nothing is dropped elsewhere.

    A place is a row's id, e.g. `"pairs.jsonl line 17"`. A reason is words joined by `_`, and after a colon and a space
    the key that it is about, where there is one: `"missing_key: rejected"`. `unlisted` counts what is not in `rows`.
    """

    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    unlisted: Counter[str] = field(default_factory=Counter)

    def add(self, reason: str, row_id: str, text: str) -> None:
        self._add(reason, row_id, writable(" ".join(text[:1000].split())[:120]))

    def _add(self, reason: str, row_id: str, shown: str) -> None:
        if reason not in self.rows:
            reason = writable(reason)[:300]
            reason = reason if len(self.rows) < REASONS else reason.partition(":")[0]
        listed = self.rows.setdefault(reason, [])
        if len(listed) < LISTED:
            listed.append((row_id, shown))
        else:
            self.unlisted[reason] += 1

    def counts(self) -> dict[str, int]:
        return {reason: len(rows) + self.unlisted[reason] for reason, rows in sorted(self.rows.items())}

    def total(self) -> int:
        return sum(self.counts().values())

    def places(self) -> dict[str, list[str]]:
        """Every place that is named by reason, in the order of the files and of their lines."""
        return {r: sorted((row_id for row_id, _ in rows), key=in_order) for r, rows in sorted(self.rows.items())}

    def merge(self, other: Rejects, prefix: str = "") -> None:
        """Add what another one holds, with `prefix` before each of its places."""
        for reason, rows in other.rows.items():
            for row_id, shown in rows:
                self._add(reason, prefix + row_id, shown)
            if unlisted := other.unlisted[reason]:
                self.unlisted[reason if reason in self.rows else reason.partition(":")[0]] += unlisted


@dataclass(frozen=True)
class UnreadableRecord:
    """Text in a file where a record should be, and the reason why it is none."""

    reason: str
    text: str


@dataclass(frozen=True)
class UnreadableValue:
    """A value in a table that Python cannot hold, and why."""

    problem: str


class Rejected(Exception):
    """Raised for a record that cannot become a row.

    Attributes:
        code: why, words joined by `_`.
        keys: the columns that it is about, under our names; none where it is about the record.
        detail: what is wrong with the value, if more must be said.
        shown: the value itself, where it says more than the beginning of the record.
    """

    def __init__(self, code: str, *keys: str, detail: str = "", shown: str | None = None) -> None:
        super().__init__(code)
        self.code, self.keys, self.detail, self.shown = code, keys, detail, shown

    def reason(self, columns: dict[str, str]) -> str:
        """The reason that it is counted under; `columns` gives the names that our keys have in the user's data."""
        named = ", ".join(columns.get(key, key) for key in self.keys)
        return f"{self.code}: {named}{self.detail}" if named else self.code


def writable(text: str) -> str:
    """A text with a question mark in the place of each half of a character, which no file could take."""
    return text.encode("utf-8", "replace").decode()


def wrong_type(value: Any, key: str, allowed: str) -> Rejected:
    """For a value of a type that its column may not hold; nothing at all is called an empty value."""
    if value is None or value == [] or (isinstance(value, str) and not value.strip()):
        return Rejected("empty_value", key)
    return Rejected("wrong_type", key, detail=f" is {type_name(value)}, not {allowed}", shown=as_text(value))


def as_text(value: Any) -> str:
    """A value as text, whatever it is."""
    try:
        return str(value)
    except (RecursionError, ValueError):  # nested deeper, or a longer number, than Python writes
        return type_name(value)


TYPE_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "a number",
    float: "a number",
    str: "a text",
    list: "a list",
    dict: "an object",
    type(None): "nothing",
    UnreadableValue: "a value that cannot be read",
}


def type_name(value: Any) -> str:
    """The type of a value, for people."""
    if isinstance(value, float) and math.isnan(value):
        return "NaN"
    return TYPE_NAMES.get(type(value), type(value).__name__)


def in_order(place: str) -> list[tuple[int, str]]:
    """A key to sort places by, so that line 10 comes after line 9."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", place)]
