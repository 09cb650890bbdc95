"""Answers as files in the package's own data formats, which `data:` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import write_whole
from prefzoo.data.formats import reply_of
from prefzoo.data.rejects import Rejected
from prefzoo.errors import unknown
from prefzoo.feedback.feedback_types import KINDS, Answer, FeedbackError, Item
from prefzoo.types import Message

DATA_KINDS = {
    "compare": "preferences",
    "ab": "preferences",
    "thumb": "preferences",
    "rank": "rankings",
    "rate": "ratings",
    "rewrite": "demonstrations",
}
"""Kind of answer -> the key under `data:` that reads its file; marked spans are read by none."""
PREFERENCES = {"first": "a", "second": "b", "tie": "tie", "both_bad": "neither"}


def export_answers(items: Sequence[Item], answers: Sequence[Answer], path: Path, kind: str) -> dict[str, int]:
    """Write the answers of one kind, one line each, in the order in which they were given.

    Each line has the prompt, the replies, what was said, `annotator`, `seconds`, `at` (UTC), `item`, `probability` of
    the draw and, of comparisons, `strength`. Answers to gold questions check the annotators and are left out; so are
    rankings in which every reply is tied, of which no pair can be made.

    Returns:
        How many were `written`, and left out as `gold` and `all_tied`.
    """
    if kind not in KINDS:
        raise FeedbackError(unknown("kind of answers", kind, KINDS))
    by_id = {item.item_id: item for item in items}
    counts = {"written": 0, "gold": 0, "all_tied": 0}
    lines = []
    for answer in answers:
        item = by_id[answer.item_id]
        if item.gold is not None:
            counts["gold"] += 1
        elif kind == "rank" and len(set(answer.value["ranks"])) == 1:
            counts["all_tied"] += 1
        else:
            counts["written"] += 1
            lines.append(json.dumps(record(item, answer), ensure_ascii=False) + "\n")
    write_whole(path, "".join(lines))
    return counts


def record(item: Item, answer: Answer) -> dict[str, Any]:
    """One answer as a record of its data format."""
    at = datetime.fromtimestamp(answer.at or 0, timezone.utc)
    return {
        "prompt": item.prompt,
        **dict(_said(item, answer.value)),
        "annotator": answer.annotator,
        "seconds": round(answer.seconds, 3),
        "at": at.isoformat(timespec="milliseconds"),
        "item": item.item_id,
        "probability": answer.probability,
    }


def _reply(text: str) -> str | list[Message]:
    """A reply as a text, or as a message where the text alone would be read as something else."""
    try:
        as_it_is = reply_of(text, "reply", [])
    except Rejected:
        as_it_is = None
    return text if as_it_is == text else [{"role": "assistant", "content": text}]


def _said(item: Item, value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    texts = [_reply(reply["text"]) for reply in item.replies]
    if item.kind in ("compare", "ab"):
        yield from (("response_a", texts[0]), ("response_b", texts[1]))
        yield "preference", PREFERENCES[value["choice"]]
        yield "strength", value.get("strength")
    elif item.kind == "rank":
        yield from (("responses", texts), ("ranks", value["ranks"]))
    elif item.kind == "rate":
        yield "response", texts[0]
        yield "rating", sum(value["ratings"].values()) / len(value["ratings"])
        yield from value["ratings"].items()
    elif item.kind == "span":
        yield from (("response", item.replies[0]["text"]), ("spans", value["spans"]))
    elif item.kind == "rewrite":
        yield from (("completion", _reply(value["text"])), ("original", texts[0]))
    else:
        yield from (("completion", texts[0]), ("label", value["liked"]))
