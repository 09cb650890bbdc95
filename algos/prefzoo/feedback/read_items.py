"""Items out of a data file: its prompts and replies, whatever is said of them there already."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

from prefzoo.data.formats import as_list, is_blank, pair, prompt_in, reply_of, split_transcript
from prefzoo.data.rankings_and_ratings import REPLY_KEYS
from prefzoo.data.read_files import read_records
from prefzoo.data.rejects import Rejected, Rejects, UnreadableRecord, as_text, type_name
from prefzoo.data.votes import labels
from prefzoo.errors import DataError
from prefzoo.feedback.feedback_types import Item
from prefzoo.types import Message

LISTS = ("responses", "ranking")
SINGLE = ("completion", "response")
MOST_RANKED = 9
"""Replies of one ranking; each has a digit's key."""
Identifier = Callable[..., str]


def items_of_file(source: str, kind: str, identify: Identifier, gold: bool = False) -> tuple[list[Item], Rejects]:
    """One kind of items from the records of a file, and what could not be used.

    A record has a `prompt` (or conversations that share one) and replies: `responses`, `ranking`, `response_a` and
    `response_b`, `chosen` and `rejected`, `response`, or `completion`; a number from 0 to 1 in `uncertainty` says how
    unsure a reward is about it. Of three replies and more, `compare` asks about each two, `rank` about all, and a
    question on one reply is asked of each.

    Args:
        identify: makes an id of the content.
        gold: whether the records say which reply is the better one, and annotators are checked by it.

    Raises:
        DataError: when the file cannot be read, or no record of it used.
    """
    items: dict[str, Item] = {}
    dropped = Rejects()
    for row_id, record in read_records("rankings", source):
        try:
            if not isinstance(record, dict):
                raise _no_record(record)
            prompt, texts = replies_in(record)
            value = _gold(record) if gold else None
            found = list(make_items(kind, prompt, [(text, None) for text in texts], row_id, identify))
            if not found:
                raise Rejected("fewer_than_two_replies")
            for item in found:
                known = _with(item, value, _uncertainty(record), source, identify)
                if known.item_id in items:
                    dropped.add("repeated", row_id, known.prompt[-1]["content"])
                items[known.item_id] = known
        except Rejected as rejected:
            dropped.add(rejected.reason({}), row_id, rejected.shown or as_text(record))
    if not items:
        why = "; ".join(f"{reason}: {len(rows)} (first: {rows[0]})" for reason, rows in dropped.places().items())
        raise DataError(f"{source}: nothing in it can be shown for {kind!r}. Dropped: {why or 'it is empty'}.")
    return list(items.values()), dropped


def make_items(
    kind: str, prompt: list[Message], replies: Sequence[tuple[str, str | None]], source: str, identify: Identifier
) -> Iterator[Item]:
    """The items of one kind that can be made of replies, each with the name of its policy, to one prompt. Replies that
    are the same text are one, that of the first policy."""
    distinct = list({text: (text, policy) for text, policy in reversed(replies)}.values())[::-1]
    if kind in ("compare", "ab"):
        groups: list[Sequence[tuple[str, str | None]]] = list(combinations(distinct, 2))
    elif kind == "rank":
        groups = [distinct[:MOST_RANKED]] if len(distinct) > 1 else []
    else:
        groups = [[reply] for reply in distinct]
    for group in groups:
        shown = [{"text": text, "policy": policy} for text, policy in group]
        for text in (*(turn["content"] for turn in prompt), *(text for text, _ in group)):
            try:
                text.encode()
            except UnicodeEncodeError as error:
                raise Rejected("half_a_character") from error
        yield Item(identify(kind, prompt, shown), kind, prompt, shown, source)


def replies_in(record: dict[str, Any]) -> tuple[list[Message], list[str]]:
    """The prompt of a record and its replies, in the record's order."""
    if not is_missing(record, "chosen") and not is_missing(record, "rejected"):
        row = pair("", record)
        assert row.chosen is not None and row.rejected is not None
        return row.prompt, [row.chosen, row.rejected]
    if not is_missing(record, "messages"):
        turns = split_transcript(record["messages"], "messages")
        if turns is None:
            raise Rejected("no_reply_at_the_end", "messages")
        return prompt_in({**record, "prompt": turns[0]}), [turns[1]]
    prompt = prompt_in(record)
    for key in LISTS:
        if not is_missing(record, key):
            return prompt, [_reply(reply, key) for reply in as_list(record[key], key)]
    sides = [key for key in ("response_a", "response_b", *SINGLE) if not is_missing(record, key)]
    if not sides:
        raise Rejected("missing_key", "responses")
    return prompt, [reply_of(record[key], key, record["prompt"]) for key in sides]


def is_missing(record: Mapping[str, Any], key: str) -> bool:
    """Whether a record has nothing under a key."""
    value = record.get(key)
    return value is None or (isinstance(value, float) and math.isnan(value))


def _reply(reply: Any, key: str) -> str:
    if isinstance(reply, dict) and "role" not in reply:
        reply = next((reply[name] for name in REPLY_KEYS if reply.get(name) is not None), None)
    return reply_of(reply, key)


def _no_record(record: Any) -> Rejected:
    if isinstance(record, UnreadableRecord):
        return Rejected(record.reason, shown=record.text)
    return Rejected("not_an_object", detail=f": {type_name(record)}", shown=as_text(record))


def _gold(record: dict[str, Any]) -> dict[str, Any]:
    """Which reply of a pair is the better one."""
    if not is_missing(record, "chosen"):
        return {"choice": "first", "strength": None}
    if is_missing(record, "preference"):
        raise Rejected("missing_key", "preference")
    said = set(labels(record["preference"]))
    if said not in ({0}, {1}):
        raise Rejected("unreadable_label", "preference", detail=" names no better reply")
    return {"choice": "first" if said == {0} else "second", "strength": None}


def _uncertainty(record: Mapping[str, Any]) -> float | None:
    value = record.get("uncertainty")
    if is_blank(value):
        return None
    try:
        number = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        number = math.nan
    if not 0 <= number <= 1:
        raise Rejected("number_out_of_range", "uncertainty", detail=" is not from 0 to 1", shown=as_text(value))
    return number


def _with(
    item: Item, gold: Mapping[str, Any] | None, uncertainty: float | None, source: str, identify: Identifier
) -> Item:
    from dataclasses import replace

    item_id = item.item_id if gold is None else identify("gold", item.kind, item.prompt, item.replies)
    return replace(item, item_id=item_id, gold=gold, uncertainty=uncertainty, source=f"{source} {item.source}")
