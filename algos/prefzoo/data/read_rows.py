"""From records to rows: pairs as they are, and pairs out of rankings, ratings, labels and several annotators."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from prefzoo.data import vote_aggregation
from prefzoo.data.agreement import vote_agreement, with_seconds
from prefzoo.data.formats import Row, answerable, is_blank, pair, prompt_in, replies_of, reply_of, split_transcript
from prefzoo.data.pair_limits import PairLimits
from prefzoo.data.rankings_and_ratings import Records, number, rankings, ratings
from prefzoo.data.read_files import ALIASES, COLUMNS, ReadOptions, read_records
from prefzoo.data.read_result import ReadResult
from prefzoo.data.rejects import Rejected, UnreadableRecord, UnreadableValue, as_text, type_name, writable, wrong_type
from prefzoo.data.vote_aggregation import VoteRule
from prefzoo.data.votes import PairKey, VotedPair, add_votes, annotator_of, labels, thumb
from prefzoo.errors import DataError
from prefzoo.types import Message
from prefzoo.views import prompt_key

SHAPES = {
    "preferences": "'chosen' and 'rejected' (two transcripts with one prompt, or two replies beside a 'prompt'); or "
    "'prompt', 'response_a', 'response_b' and 'preference' (a, b or tie); or 'prompt', 'completion' and 'label'",
    "rankings": "'prompt' and 'ranking' (replies, best first), or 'prompt', 'responses' and 'ranks' (1 is best)",
    "ratings": "'prompt', 'response' and 'rating', or 'prompt', 'responses' and 'ratings'",
    "demonstrations": "'prompt' and 'completion', or 'messages' that end with the assistant's turn",
    "prompts": "'prompt'",
}
MOST_COLUMNS = 1000
"""As many names of columns are kept, for those that are not read to be told."""
PAIR = ("chosen", "rejected")
LABELLED_PAIR = ("response_a", "response_b", "preference")
THUMB = ("completion", "label")


def read_rows(
    kind: str, source: str, options: ReadOptions | None = None, given: Iterable[tuple[str, Any]] | None = None
) -> ReadResult:
    """Rows from a file or hub data set.

    Args:
        kind: one of `read_files.COLUMNS`: what is in it. `SHAPES` says which columns each may have.
        source: a file, or a hub id.
        given: its records where they were read already; it may have none.

    Raises:
        DataError: when it does not exist, or not one row of it can be read.
    """
    options = options or ReadOptions()
    result = ReadResult(columns=dict(options.columns))
    columns: dict[str, None] = {}  # a set that keeps their order
    groups: dict[str, str] = {}
    took: dict[str, list[float]] = {}

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for row_id, record in read_records(kind, source, options) if given is None else given:
            result.read += 1
            if isinstance(record, dict):
                if len(columns) < MOST_COLUMNS:
                    columns.update((writable(str(key)), None) for key in record)
                sound = False
                with result.using(row_id, record):
                    if (group := _group_in(record)) is not None:
                        groups[row_id] = group
                    sound = True
                if sound:
                    if (annotator := annotator_of(record)) is not None and (seconds := _seconds_in(record)) is not None:
                        took.setdefault(annotator, []).append(seconds)
                    yield row_id, record
            elif isinstance(record, UnreadableRecord):
                result.dropped.add(record.reason, row_id, record.text)
            else:
                result.dropped.add(f"not_an_object: {type_name(record)}", row_id, as_text(record))

    if kind == "preferences":
        _preferences(records(), result, options.annotators)
    elif kind == "rankings":
        rankings(records(), result, options.pairs, options.annotators)
    elif kind == "ratings":
        ratings(records(), result, options.pairs, options.attributes)
    else:
        for row_id, record in records():
            with result.using(row_id, record):
                demonstrated = kind == "demonstrations"
                result.rows.append(_demonstration(row_id, record) if demonstrated else Row(row_id, prompt_in(record)))
                result.used += 1
    if result.annotators and took:
        result.annotators = with_seconds(result.annotators, took)
    if groups:
        # The id of a row begins with that of the first record that it was made of, such as `line 17`.
        result.rows = [replace(row, group=groups.get(" ".join(row.id.split(" ")[:2]))) for row in result.rows]
    attributes = options.attributes if kind == "ratings" else ()
    aliases = (alias for alias, ours in ALIASES.items() if ours in COLUMNS[kind])
    known = {*COLUMNS[kind], *attributes, *options.columns.values(), *aliases}
    result.unread = [column for column in columns if column not in known][:MOST_COLUMNS]
    if not result.rows and given is None:
        raise DataError(_no_rows_message(kind, source, result, list(columns)))
    return result


def read_votes(source: str) -> tuple[list[VotedPair], ReadResult]:
    """Every vote in a file of preferences, by pair of replies; a record with a chosen reply is one for that.

    Returns:
        The pairs, and what was read and dropped; it has no rows.

    Raises:
        DataError: when there is no such file.
    """
    result = ReadResult()
    voted: dict[PairKey, VotedPair] = {}
    seen: set[Hashable] = set()
    for row_id, record in read_records("preferences", source):
        result.read += 1
        if not isinstance(record, dict):
            text = record.text if isinstance(record, UnreadableRecord) else as_text(record)
            result.dropped.add(getattr(record, "reason", "not_an_object"), row_id, text)
            continue
        with result.using(row_id, record):
            form = _form(record)
            if form == THUMB:
                raise Rejected("no_comparison_of_two_replies")
            if form == PAIR:
                row = pair(row_id, record)
                choices: list[int | None] = [0]
                assert row.chosen is not None and row.rejected is not None
                sides = VotedPair(row_id, row.prompt, row.chosen, row.rejected)
            else:
                a, b = replies_of(record, "response_a", "response_b")
                sides, choices = VotedPair(row_id, prompt_in(record), a, b), labels(record["preference"])
            add_votes(voted, sides, choices, annotator_of(record), seen)
            result.used += 1
    return list(voted.values()), result


def _no_rows_message(kind: str, source: str, result: ReadResult, columns: list[str]) -> str:
    if not result.read:
        return f"data.{kind}: {source!r} is empty: it has not one record."
    places = result.dropped.places().items()
    why = "; ".join(f"{reason}: {len(rows)} (first: {rows[0]})" for reason, rows in places)
    there = f" Its columns: {', '.join(map(repr, columns[:20]))}." if columns else ""
    return (
        f"data.{kind}: none of the {result.read} rows of {source!r} can be used. A row needs {SHAPES[kind]}. "
        f"Other names: data.columns.{there} Dropped: {why}."
    )


def _group_in(record: dict[str, Any]) -> str | None:
    """The group that a record names; None where it names none."""
    group = record.get("group")
    if isinstance(group, list | dict | bytes | UnreadableValue):
        raise wrong_type(group, "group", "a name or a number")
    return None if is_blank(group) else writable(str(group).strip())


def _preferences(records: Records, result: ReadResult, rule: VoteRule) -> None:
    """Pairs as they are; votes of annotators on one pair by the rule; thumbs up and down of one prompt paired,
    and replies to a prompt that has none of the other label as they are."""
    voted: dict[PairKey, VotedPair] = {}
    seen: set[Hashable] = set()
    limits = PairLimits()
    thumbs: dict[str, dict[bool, list[tuple[str, list[Message], str]]]] = {}
    for row_id, record in records:
        with result.using(row_id, record):
            form = _form(record)
            annotator = annotator_of(record)
            if rule == "reliability" and annotator is None and form != THUMB:
                raise Rejected("empty_value", "annotator")
            if form == PAIR:
                row = replace(pair(row_id, record), margin=_margin_in(record))
                if annotator is None:
                    result.rows.append(row)
                    result.used += 1
                else:
                    assert row.chosen is not None and row.rejected is not None
                    add_votes(voted, VotedPair(row_id, row.prompt, row.chosen, row.rejected), [0], annotator, seen)
            elif form == LABELLED_PAIR:
                prompt = prompt_in(record)
                a, b = replies_of(record, "response_a", "response_b")
                choices = labels(record["preference"])
                add_votes(voted, VotedPair(row_id, prompt, a, b), choices, annotator, seen)
            else:
                prompt = prompt_in(record)
                reply = reply_of(record["completion"], "completion", record["prompt"])
                liked = thumb(record["label"])
                sides = thumbs.setdefault(prompt_key(prompt), {True: [], False: []})
                limits.add(range(len(sides[True]) + len(sides[False])), [reply], len(sides[not liked]))
                sides[liked].append((row_id, prompt, reply))
    if voted:
        _add_voted_rows(list(voted.values()), result, rule)
    for sides in thumbs.values():
        replies = [*sides[True], *sides[False]]
        if sides[True] and sides[False]:
            result.used += len(replies)
            result.rows += [
                Row(f"{good[0]} over {bad[0]}", good[1], chosen=good[2], rejected=bad[2])
                for good in sides[True]
                for bad in sides[False]
            ]
        else:
            result.used += len(replies)
            result.rows += [
                Row(row_id, prompt, reply=reply, liked=bool(sides[True])) for row_id, prompt, reply in replies
            ]


def _add_voted_rows(pairs: list[VotedPair], result: ReadResult, rule: VoteRule) -> None:
    """Add the rows of what was voted on, and how far the votes agree."""
    dropped_before = result.dropped.total()
    skills: dict[str, float] = {}
    if rule == "soft":
        result.rows += vote_aggregation.soft_rows(pairs, result.dropped)
    else:
        first, skills = vote_aggregation.probabilities(pairs, rule)
        result.rows += vote_aggregation.decided_rows(pairs, first, result.dropped)
    result.annotators = {"rule": rule, **vote_agreement([pair.votes for pair in pairs], skills)}
    result.used += sum(len(pair.by_record()) for pair in pairs) - (result.dropped.total() - dropped_before)


def _seconds_in(record: dict[str, Any]) -> float | None:
    """How long a judgement took; None where a record does not say it, or means something else by it."""
    try:
        seconds = number(record.get("seconds"), "seconds")
    except Rejected:
        return None
    return seconds if seconds >= 0 else None


def _margin_in(record: dict[str, Any]) -> float | None:
    """By how much the chosen reply is better; None where a record says nothing of it."""
    return None if is_blank(record.get("margin")) else number(record["margin"], "margin")


def _form(record: dict[str, Any]) -> tuple[str, ...]:
    """The form of a record of preferences. A table of several has the columns of all, and most of them empty."""
    forms = (PAIR, LABELLED_PAIR, THUMB)
    form = max(forms, key=lambda form: sum(record.get(key) is not None for key in form) / len(form))
    if missing := [key for key in form if key not in record]:
        raise Rejected("missing_key", *missing)
    if empty := [key for key in form if record[key] is None]:
        raise Rejected("empty_value", *empty)
    return form


def _demonstration(row_id: str, record: dict[str, Any]) -> Row:
    if record.get("prompt") is not None or "messages" not in record:
        if missing := [key for key in ("prompt", "completion") if key not in record]:
            raise Rejected("missing_key", *missing)
        prompt = prompt_in(record)
        return Row(row_id, prompt, demonstration=reply_of(record["completion"], "completion", record["prompt"]))
    turns = split_transcript(record["messages"], "messages")
    if turns is None:
        if isinstance(record["messages"], str | list) and record["messages"]:
            raise Rejected("no_reply_at_the_end", "messages")
        raise wrong_type(record["messages"], "messages", "a list of messages")
    return Row(row_id, answerable(turns[0], record), demonstration=turns[1])
