"""Items that people judge, their answers, and what an answer to each kind of item may be."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from prefzoo.errors import PrefzooError
from prefzoo.types import Message

Kind = Literal["compare", "rank", "rate", "span", "rewrite", "ab", "thumb"]
KINDS: tuple[Kind, ...] = get_args(Kind)
CHOICES = ("first", "second", "tie", "both_bad")
HIGHEST = 10
"""Ratings go from 0 to this."""
LONGEST_TEXT = 100_000
"""Letters of a rewritten reply or of a reason."""
MOST_SPANS = 200
MOST_DIMENSIONS = 20


class FeedbackError(PrefzooError):
    """An answer that cannot be kept as it is; nothing was written."""


class AnsweredAlready(FeedbackError):
    """Another live answer of this annotator to this item is there, or another answer of this id."""


@dataclass(frozen=True)
class Item:
    """One question to people.

    Attributes:
        item_id: unique in its store; it says nothing of the policies.
        kind: what is asked, one of `KINDS`.
        prompt: the conversation up to the assistant's turn.
        replies: `{"text": .., "policy": name or None}`; two for `compare` and `ab`, two or more for `rank`, else one.
        source: where it came from, such as `"pairs.jsonl line 3"`.
        position: its place among the items; None: after those that are there.
        probability: with which the rule chose it when it was first shown; 1 in a uniform order.
        gold: the right answer's value, where the item checks the annotators; else None.
        uncertainty: of the reward about it, from 0 (sure) to 1; None where no reward scored it.
        created: seconds since 1970; None: now.
    """

    item_id: str
    kind: str
    prompt: list[Message]
    replies: list[dict[str, Any]]
    source: str = ""
    position: int | None = None
    probability: float = 1.0
    gold: Mapping[str, Any] | None = None
    uncertainty: float | None = None
    created: float | None = None


Explain = Callable[[Item], Sequence[Sequence[tuple[str, float | None, float]]]]
"""`item -> for each of its replies that has an explanation, what is shown of it`: stretches of the reply, each with
what it made of the reward (None: nothing known) and that as a share of the reply's largest."""


@dataclass(frozen=True)
class Answer:
    """What one annotator says of one item.

    Attributes:
        answer_id: made by the client, so that an answer that is sent twice is one.
        value: see `check_value`; indices refer to the item's own order of replies, not to the one shown.
        shown_order: the item's replies by index, as they stood from left to right.
        seconds: how long it took.
        at, undone_at: seconds since 1970; None: now, and not undone.
        probability: with which the item was drawn for this annotator among those that were left; None: unknown.
    """

    answer_id: str
    item_id: str
    annotator: str
    kind: str
    value: Mapping[str, Any]
    shown_order: Sequence[int] = field(default_factory=list)
    seconds: float = 0.0
    at: float | None = None
    undone_at: float | None = None
    probability: float | None = None


@dataclass(frozen=True)
class Shown:
    """An item as it is shown to one annotator: the order of its replies, and the probability of its draw."""

    item: Item
    order: tuple[int, ...]
    probability: float


def check_item(item: Item) -> None:
    """Raise FeedbackError for an item that could not be shown."""
    if item.kind not in KINDS:
        raise FeedbackError(f"item {item.item_id}: kind {item.kind!r} is not one of {', '.join(KINDS)}")
    count = len(item.replies)
    fits = {"compare": count == 2, "ab": count == 2, "rank": count >= 2}.get(item.kind, count == 1)
    if not fits:
        raise FeedbackError(f"item {item.item_id}: {count} replies are not what {item.kind!r} asks about")
    if not item.prompt or not all(isinstance(reply.get("text"), str) for reply in item.replies):
        raise FeedbackError(f"item {item.item_id}: the prompt is empty, or a reply has no text")
    if item.gold is not None:
        check_value(item, item.gold)


def check_value(item: Item, value: Any) -> None:
    """Check an answer's value.

    compare, ab: `{"choice": one of CHOICES, "strength": "slightly" | "better" | None}`. rank: `{"ranks": [..]}`, 1 is
    best, one for each reply. rate: `{"ratings": {dimension: 0 to 10}}`. rewrite: `{"text": ..}`. thumb: `{"liked": True
    | False}`. span: `{"spans": [{"start", "end", "reason"}]}`, letters of the reply from 0, the end excluded.

    Raises:
        FeedbackError: for anything else.
    """
    if not isinstance(value, Mapping):
        raise FeedbackError(f"an answer is an object, not a {type(value).__name__}")
    expected, sound = _CHECKS[item.kind](item, value)
    if not sound:
        raise FeedbackError(f"this is no answer to {item.kind!r}, which wants {expected}")


def _choice(item: Item, value: Mapping[str, Any]) -> tuple[str, bool]:
    chosen, strength = value.get("choice"), value.get("strength")
    preferred = chosen in ("first", "second")
    fits = strength in ("slightly", "better") if preferred else strength is None
    return "choice: first, second, tie or both_bad; strength: slightly or better, for first and second", (
        isinstance(chosen, str)
        and chosen in CHOICES
        and (fits or strength is None)
        and set(value) <= {"choice", "strength"}
    )


def _ranks(item: Item, value: Mapping[str, Any]) -> tuple[str, bool]:
    ranks = value.get("ranks")
    most = len(item.replies)
    sound = isinstance(ranks, list) and len(ranks) == most and all(_whole(rank, 1, most) for rank in ranks)
    return f"ranks: {most} whole numbers from 1 to {most}, 1 is best", sound and set(value) == {"ranks"}


def _ratings(item: Item, value: Mapping[str, Any]) -> tuple[str, bool]:
    ratings = value.get("ratings")
    sound = isinstance(ratings, dict) and 0 < len(ratings) <= MOST_DIMENSIONS
    sound = sound and all(_within(rating, 0, HIGHEST) for rating in (ratings or {}).values())
    return f"ratings: a number from 0 to {HIGHEST} for each dimension", sound and set(value) == {"ratings"}


def _spans(item: Item, value: Mapping[str, Any]) -> tuple[str, bool]:
    spans, length = value.get("spans"), len(item.replies[0]["text"])
    sound = isinstance(spans, list) and len(spans) <= MOST_SPANS and set(value) == {"spans"}
    sound = sound and all(
        isinstance(span, dict)
        and set(span) == {"start", "end", "reason"}
        and _whole(span["start"], 0, length)
        and _whole(span["end"], span["start"] + 1, length)
        and _text(span["reason"])
        for span in spans or []
    )
    return f"spans: start and end within the reply's {length} letters, and a reason", sound


def _rewritten(item: Item, value: Mapping[str, Any]) -> tuple[str, bool]:
    return f"text: the better reply, not empty, at most {LONGEST_TEXT} letters", set(value) == {"text"} and _text(
        value["text"]
    )


def _liked(item: Item, value: Mapping[str, Any]) -> tuple[str, bool]:
    return "liked: true or false", set(value) == {"liked"} and isinstance(value["liked"], bool)


_CHECKS = {
    "compare": _choice,
    "ab": _choice,
    "rank": _ranks,
    "rate": _ratings,
    "span": _spans,
    "rewrite": _rewritten,
    "thumb": _liked,
}


def _text(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip()) and len(value) <= LONGEST_TEXT and _writable(value)


def _writable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:  # half a character
        return False
    return True


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _within(value: Any, low: float, high: float) -> bool:
    return (
        isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and low <= value <= high
    )
