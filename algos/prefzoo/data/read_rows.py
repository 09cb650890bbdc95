"""From records to rows: pairs as they are, and pairs out of rankings, ratings, labels and several annotators."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any

from prefzoo.data import agreement, vote_aggregation
from prefzoo.data.formats import Row, answerable, pair, prompt_in, reply_of
from prefzoo.data.formats import split_transcript as split_conversation
from prefzoo.data.rankings_and_ratings import rankings, ratings
from prefzoo.data.read_files import ALIASES, COLUMNS, Options, read_records
from prefzoo.data.read_result import Dropping, Found, Pairs
from prefzoo.data.rejects import Broken, Dropped, Unusable, kind_of, wrong_type
from prefzoo.data.vote_aggregation import Annotators
from prefzoo.data.votes import Votes, labels, named, thumb, vote
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
FORMS = (("chosen", "rejected"), ("response_a", "response_b", "preference"), ("completion", "label"))
"""The columns by which a row of preferences is known to be a pair, a vote, or a reply with a thumb up or down."""


def read_rows(kind: str, source: str, dropped: Dropped, options: Options | None = None, pairs: Pairs = "all") -> Found:
    """Rows from a file or hub data set.

    Args:
        kind: one of `reading.COLUMNS`: what is in it. `SHAPES` says which columns each may have.
        source: a file, or a hub id.
        dropped: is told of every record that is not used, and why.
        options: how it is read.
        pairs: which pairs are made of rankings and ratings; replies of equal rank are never paired.

    Raises:
        DataError: when it does not exist, or not one row of it can be read.
    """
    options = options or Options()
    if not vote_aggregation.voted_on(kind, pairs):
        options = replace(options, annotators="majority")  # no names are asked for where nothing is voted on
    found = Found()
    columns: dict[str, None] = {}  # a set that keeps their order

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for row_id, record in read_records(kind, source, options):
            found.read += 1
            if isinstance(record, dict):
                columns.update(dict.fromkeys(map(str, record)))
                yield row_id, record
            elif isinstance(record, Broken):
                dropped.add(record.reason, row_id, record.text)
            else:
                dropped.add(f"not_an_object: {kind_of(record)}", row_id, str(record))

    dropping = Dropping(dropped, dict(options.columns))
    if kind == "preferences":
        _preferences(records(), found, dropping, options.annotators)
    elif kind == "rankings":
        rankings(records(), found, dropping, pairs, options.annotators)
    elif kind == "ratings":
        ratings(records(), found, dropping, pairs)
    else:
        make: Callable[[str, dict[str, Any]], Iterable[Row]] = {
            "demonstrations": lambda row_id, record: [_demonstration(row_id, record)],
            "prompts": lambda row_id, record: [Row(row_id, prompt_in(record))],
        }[kind]
        for row_id, record in records():
            with dropping(row_id, record):
                found.rows += make(row_id, record)
                found.used += 1
    known = {*COLUMNS[kind], *options.columns.values(), *(a for a, ours in ALIASES.items() if ours in COLUMNS[kind])}
    found.unread = [column for column in columns if column not in known]
    if not found.rows:
        raise DataError(_none_of_it(kind, source, found, dropped, list(columns)))
    return found


def _none_of_it(kind: str, source: str, found: Found, dropped: Dropped, columns: list[str]) -> str:
    if not found.read:
        return f"data.{kind}: {source!r} is empty: it has not one record."
    why = "; ".join(f"{reason}: {len(where)} (first: {where[0]})" for reason, where in dropped.places().items())
    there = f" Its columns: {', '.join(map(repr, columns[:20]))}." if columns else ""
    return (
        f"data.{kind}: none of the {found.read} rows of {source!r} can be used. A row needs {SHAPES[kind]}. "
        f"Other names: data.columns.{there} Dropped: {why}."
    )


def _preferences(
    records: Iterable[tuple[str, dict[str, Any]]], found: Found, dropping: Dropping, rule: Annotators
) -> None:
    """Pairs as they are; votes of annotators on one pair by the rule; thumbs up and down of one prompt paired."""
    votes: dict[tuple[str, frozenset[str]], Votes] = {}
    thumbs: dict[str, dict[bool, list[tuple[str, list[Message], str]]]] = {}
    for row_id, record in records:
        with dropping(row_id, record):
            form = _form(record)
            annotator = named(record)
            if rule == "reliability" and annotator is None and form != FORMS[2]:
                raise Unusable("empty_value", "annotator")
            if form == FORMS[0]:
                row = pair(row_id, record)
                if annotator is None:
                    found.rows.append(row)
                    found.used += 1
                else:
                    vote(votes, row, [0], annotator)
            elif form == FORMS[1]:
                prompt = prompt_in(record)
                a, b = (reply_of(record[key], key, record["prompt"]) for key in ("response_a", "response_b"))
                said = labels(record["preference"])
                vote(votes, Row(row_id, prompt, chosen=a, rejected=b), said, annotator)
            else:
                prompt = prompt_in(record)
                reply = reply_of(record["completion"], "completion", record["prompt"])
                group = thumbs.setdefault(prompt_key(prompt), {True: [], False: []})
                group[thumb(record["label"])].append((row_id, prompt, reply))
    if votes:
        _count_votes(list(votes.values()), found, dropping.dropped, rule)
    for sides in thumbs.values():
        each = [*sides[True], *sides[False]]
        if not (sides[True] and sides[False]):
            for row_id, _, reply in each:
                dropping.dropped.add("no_reply_of_the_other_label", row_id, reply)
            continue
        found.used += len(each)
        found.rows += [
            Row(f"{good[0]} over {bad[0]}", good[1], chosen=good[2], rejected=bad[2])
            for good in sides[True]
            for bad in sides[False]
        ]


def _count_votes(items: list[Votes], found: Found, dropped: Dropped, rule: Annotators) -> None:
    """Rows of what was voted on, and how far the votes agree."""
    found.annotators = {"rule": rule, **agreement.of_votes([item.cast for item in items])}
    before = dropped.total()
    if rule == "soft":
        found.rows += vote_aggregation.soft(items, dropped)
    else:
        first, skills = vote_aggregation.chances(items, rule)
        found.rows += vote_aggregation.hard(items, first, dropped)
        found.annotators = vote_aggregation.with_skills(found.annotators, skills)
    found.used += sum(len(item.records()) for item in items) - (dropped.total() - before)


def _form(record: dict[str, Any]) -> tuple[str, ...]:
    """Which of `FORMS` a record has. A table of several forms has the columns of all, and most of them empty."""
    form = max(FORMS, key=lambda form: sum(record.get(key) is not None for key in form) / len(form))
    if missing := [key for key in form if key not in record]:
        raise Unusable("missing_key", *missing)
    if empty := [key for key in form if record[key] is None]:
        raise Unusable("empty_value", *empty)
    return form


def _demonstration(row_id: str, record: dict[str, Any]) -> Row:
    if record.get("prompt") is not None or "messages" not in record:
        if missing := [key for key in ("prompt", "completion") if key not in record]:
            raise Unusable("missing_key", *missing)
        prompt = prompt_in(record)
        return Row(row_id, prompt, demonstration=reply_of(record["completion"], "completion", record["prompt"]))
    parts = split_conversation(record["messages"], "messages")
    if parts is None:
        if isinstance(record["messages"], str | list) and record["messages"]:
            raise Unusable("no_reply_at_the_end", "messages")
        raise wrong_type(record["messages"], "messages", "a list of messages")
    return Row(row_id, answerable(parts[0]), demonstration=parts[1])
