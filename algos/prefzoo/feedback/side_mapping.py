"""From what an annotator said of the replies as they were shown to what it says of the item's own order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefzoo.feedback.feedback_types import FeedbackError, Shown

SIDES = ("first", "second")


def own_value(shown: Shown, said: Any) -> dict[str, Any]:
    """The value of an answer whose sides, ranks or letters are those of the page.

    Letters of a span are those of a browser's text field, in which each line ends with one letter.

    Raises:
        FeedbackError: when its form is not that of a value; `check_value` looks at the content.
    """
    if not isinstance(said, Mapping):
        raise FeedbackError(f"an answer is an object, not a {type(said).__name__}")
    value = dict(said)
    if value.get("choice") in SIDES:
        value["choice"] = SIDES[shown.order[SIDES.index(value["choice"])]]
    ranks = value.get("ranks")
    if isinstance(ranks, list) and len(ranks) == len(shown.order):
        by_reply = dict(zip(shown.order, ranks, strict=True))
        value["ranks"] = [by_reply[i] for i in range(len(ranks))]
    if isinstance(value.get("spans"), list):
        places = letter_places(shown.item.replies[0]["text"])
        value["spans"] = [_moved(span, places) for span in value["spans"]]
    return value


def letter_places(text: str) -> list[int]:
    """Where each letter of a browser's text field, in which `\\r\\n` is one, stands in the text; and the text's end."""
    starts = [i for i in range(len(text)) if not (text[i] == "\n" and i and text[i - 1] == "\r")]
    return [*starts, len(text)]


def _moved(span: Any, places: list[int]) -> Any:
    if not isinstance(span, Mapping):
        return span
    moved = dict(span)
    for end in ("start", "end"):
        at = moved.get(end)
        if isinstance(at, int) and not isinstance(at, bool) and 0 <= at < len(places):
            moved[end] = places[at]
    return moved
