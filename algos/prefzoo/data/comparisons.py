"""From records to rows: pairs as they are, and pairs out of rankings, ratings, labels and several annotators."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any, Literal

from prefzoo.data.formats import Dropped, Row, Unusable, answerable, as_list, pair, prompt_of, reply_of
from prefzoo.data.formats import split_transcript as split_conversation
from prefzoo.data.labels import Votes, agreement, labels, majority, thumb, vote
from prefzoo.data.reading import Options, read_records
from prefzoo.data.views import prompt_key
from prefzoo.errors import DataError
from prefzoo.interface import Message

Pairs = Literal["all", "adjacent"]
"""Which replies of a ranking or of ratings are paired: every two, or only those of neighbouring ranks."""

SHAPES = {
    "preferences": "'chosen' and 'rejected' (two transcripts with one prompt, or two replies beside a 'prompt'); or "
    "'prompt', 'response_a', 'response_b' and 'preference' (a, b or tie); or 'prompt', 'completion' and 'label'",
    "rankings": "'prompt' and 'ranking' (replies, best first), or 'prompt', 'responses' and 'ranks' (1 is best)",
    "ratings": "'prompt', 'response' and 'rating', or 'prompt', 'responses' and 'ratings'",
    "demonstrations": "'prompt' and 'completion', or 'messages' that end with the assistant's turn",
    "prompts": "'prompt'",
}
REPLY_KEYS = ("response", "completion", "text", "content")
RATING_KEYS = ("rating", "score", "overall_score")


@dataclass
class Found:
    """What a file or hub data set held.

    Attributes:
        rows: in the order in which their prompts or pairs came first.
        read: records, the dropped ones included.
        annotators: where items were judged by several people `{"items", "judgements", "items_with_several",
            "disagreed"}`: `disagreed` counts items on which not all said the same; else empty.
    """

    rows: list[Row] = field(default_factory=list)
    read: int = 0
    annotators: dict[str, int] = field(default_factory=dict)


@dataclass
class _Judged:
    """One prompt with its replies, and for each reply the ratings that it got."""

    id: str
    prompt: list[Message]
    ratings: dict[str, list[float]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


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
    found = Found()

    def records() -> Iterator[tuple[str, dict[str, Any]]]:
        for row_id, record in read_records(kind, source, options):
            found.read += 1
            if isinstance(record, dict):
                yield row_id, record
            else:
                dropped.add("unreadable", row_id, str(record))

    if kind == "preferences":
        _preferences(records(), found, dropped)
    elif kind == "ratings":
        _ratings(records(), found, dropped, pairs)
    else:
        make: Callable[[str, dict[str, Any]], Iterable[Row]] = {
            "rankings": lambda row_id, record: _ranking(row_id, record, dropped, pairs),
            "demonstrations": lambda row_id, record: [_demonstration(row_id, record)],
            "prompts": lambda row_id, record: [Row(row_id, answerable(prompt_of(record.get("prompt"))))],
        }[kind]
        for row_id, record in records():
            with _dropping(dropped, row_id, record):
                found.rows += make(row_id, record)
    if not found.rows:
        raise DataError(
            f"data.{kind}: none of the {found.read} rows of {source!r} can be used. A row needs {SHAPES[kind]}. "
            f"Other names: data.columns. Dropped: {dropped.counts()}."
        )
    return found


class _dropping:
    """Counts a record that turns out to be unusable, and goes on."""

    def __init__(self, dropped: Dropped, row_id: str, record: dict[str, Any]) -> None:
        self.dropped, self.row_id, self.record = dropped, row_id, record

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        if not isinstance(error, Unusable):
            return False
        shown = self.record.get("prompt") or self.record.get("chosen") or self.record
        self.dropped.add(str(error), self.row_id, str(shown))
        return True


def _preferences(records: Iterable[tuple[str, dict[str, Any]]], found: Found, dropped: Dropped) -> None:
    """Pairs as they are; votes of annotators on one pair by majority; thumbs up and down of one prompt paired."""
    votes: dict[tuple[str, frozenset[str]], Votes] = {}
    thumbs: dict[str, dict[bool, list[tuple[str, list[Message], str]]]] = {}
    for row_id, record in records:
        with _dropping(dropped, row_id, record):
            if {"chosen", "rejected"} <= record.keys():
                row = pair(row_id, record)
                if record.get("annotator") is None:
                    found.rows.append(row)
                else:
                    vote(votes, row, [0])
            elif {"response_a", "response_b", "preference"} <= record.keys():
                prompt = answerable(prompt_of(record.get("prompt")))
                a, b = (reply_of(record[key], record["prompt"]) for key in ("response_a", "response_b"))
                vote(votes, Row(row_id, prompt, chosen=a, rejected=b), labels(record["preference"]))
            elif {"prompt", "completion", "label"} <= record.keys():
                prompt = answerable(prompt_of(record["prompt"]))
                reply = reply_of(record["completion"], record["prompt"])
                group = thumbs.setdefault(prompt_key(prompt), {True: [], False: []})
                group[thumb(record["label"])].append((row_id, prompt, reply))
            else:
                raise Unusable("unreadable")
    found.rows += majority(votes.values(), dropped)
    if votes:
        found.annotators = agreement([item.cast for item in votes.values()])
    for sides in thumbs.values():
        alone = not (sides[True] and sides[False])
        for row_id, _, reply in [*sides[True], *sides[False]] if alone else []:
            dropped.add("no_reply_of_the_other_label", row_id, reply)
        found.rows += [
            Row(f"{good[0]} over {bad[0]}", good[1], chosen=good[2], rejected=bad[2])
            for good in sides[True]
            for bad in sides[False]
        ]


def _ranking(row_id: str, record: dict[str, Any], dropped: Dropped, pairs: Pairs) -> list[Row]:
    prompt = answerable(prompt_of(record.get("prompt")))
    if record.get("ranking") is not None:
        replies = [reply_of(reply) for reply in as_list(record["ranking"])]
        scores = [-float(place) for place in range(len(replies))]
    else:
        replies = [reply_of(reply) for reply in as_list(record.get("responses"))]
        scores = [-_number(rank) for rank in as_list(record.get("ranks"))]
    if len(replies) != len(scores):
        raise Unusable("as_many_ranks_as_replies_needed")
    if len(replies) < 2:
        raise Unusable("fewer_than_two_replies")
    rows = _pairs(row_id, prompt, dict(zip(replies, scores, strict=True)), dropped, pairs)
    if len(replies) > 2 and len(set(scores)) == len(scores):
        order = sorted(range(len(replies)), key=lambda i: -scores[i])
        rows.append(Row(f"{row_id} ranking", prompt, ranking=[replies[i] for i in order]))
    return rows


def _ratings(records: Iterable[tuple[str, dict[str, Any]]], found: Found, dropped: Dropped, pairs: Pairs) -> None:
    """The mean rating of each reply, and pairs of replies to one prompt that are rated differently."""
    judged: dict[str, _Judged] = {}
    for row_id, record in records:
        with _dropping(dropped, row_id, record):
            prompt = answerable(prompt_of(record.get("prompt")))
            rated = _rated(record)
            item = judged.setdefault(prompt_key(prompt), _Judged(row_id, prompt))
            for reply, rating in rated:
                item.ratings.setdefault(reply, []).append(rating)
                item.ids.setdefault(reply, row_id if len(rated) == 1 else f"{row_id} reply {len(item.ids) + 1}")
    for item in judged.values():
        means = {reply: sum(ratings) / len(ratings) for reply, ratings in item.ratings.items()}
        found.rows += _pairs(item.id, item.prompt, means, dropped, pairs)
        found.rows += [Row(f"{item.ids[r]} rating", item.prompt, reply=r, rating=mean) for r, mean in means.items()]
    each = [ratings for item in judged.values() for ratings in item.ratings.values()]
    if any(len(ratings) > 1 for ratings in each):
        found.annotators = agreement(each)


def _rated(record: dict[str, Any]) -> list[tuple[str, float]]:
    if record.get("response") is not None:
        return [(reply_of(record["response"], record["prompt"]), _number(record.get("rating")))]
    replies = as_list(record.get("responses"))
    if replies and all(isinstance(reply, dict) and "role" not in reply for reply in replies):
        return [(reply_of(_first(reply, REPLY_KEYS)), _number(_first(reply, RATING_KEYS))) for reply in replies]
    ratings = as_list(record.get("ratings"))
    if len(ratings) != len(replies):
        raise Unusable("as_many_ratings_as_replies_needed")
    return [(reply_of(reply), _number(rating)) for reply, rating in zip(replies, ratings, strict=True)]


def _first(record: dict[str, Any], keys: Sequence[str]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _number(value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise Unusable("not_a_number")
    return number


def _pairs(row_id: str, prompt: list[Message], scores: dict[str, float], dropped: Dropped, pairs: Pairs) -> list[Row]:
    """Better and worse replies by score; a pair of equal scores is counted as tied."""
    levels = sorted(set(scores.values()), reverse=True)
    near = set(pairwise(levels))
    rows = []
    for a, b in combinations(scores, 2):
        if scores[a] == scores[b]:
            dropped.add("tied_replies", row_id, a)
            continue
        good, bad = (a, b) if scores[a] > scores[b] else (b, a)
        if pairs == "all" or (scores[good], scores[bad]) in near:
            rows.append(Row(row_id, prompt, chosen=good, rejected=bad))
    if len(rows) > 1:
        rows = [Row(f"{row_id} pair {i}", r.prompt, r.chosen, r.rejected) for i, r in enumerate(rows, 1)]
    return rows


def _demonstration(row_id: str, record: dict[str, Any]) -> Row:
    if record.get("prompt") is not None:
        prompt = answerable(prompt_of(record["prompt"]))
        return Row(row_id, prompt, demonstration=reply_of(record.get("completion"), record["prompt"]))
    parts = split_conversation(as_list(record.get("messages")))
    if parts is None:
        raise Unusable("unreadable")
    return Row(row_id, answerable(parts[0]), demonstration=parts[1])
