"""Rankings and ratings: replies to one prompt in an order, and the pairs that it makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise
from typing import Any

from prefzoo.data.formats import Row, as_list, prompt_in, reply_of
from prefzoo.data.found import Dropping, Found, Pairs
from prefzoo.data.labels import agreement
from prefzoo.data.reasons import Dropped, Unusable
from prefzoo.data.views import prompt_key
from prefzoo.interface import Message

REPLY_KEYS = ("response", "completion", "text", "content")
RATING_KEYS = ("rating", "score", "overall_score")


@dataclass
class _Judged:
    """One prompt with its replies, and for each reply the ratings that it got."""

    id: str
    prompt: list[Message]
    ratings: dict[str, list[float]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)


def ranking(row_id: str, record: dict[str, Any], unpaired: Dropped, pairs: Pairs) -> list[Row]:
    """The pairs in a ranking, and the whole of it where it has more than two replies and no ties.

    Args:
        row_id, record: what was read.
        unpaired: is told of the pairs of which neither reply is better.
        pairs: which ones are made.

    Raises:
        Unusable: when there is no pair in it.
    """
    prompt = prompt_in(record)
    key = "ranking" if record.get("ranking") is not None or "responses" not in record else "responses"
    replies = [reply_of(reply, key) for reply in _listed(record, key)]
    if key == "ranking":
        scores = [-float(place) for place in range(len(replies))]
    else:
        scores = [-_number(rank, "ranks") for rank in _listed(record, "ranks")]
    if len(replies) != len(scores):
        raise Unusable("as_many_ranks_as_replies_needed")
    placed: dict[str, float] = {}
    for reply, score in zip(replies, scores, strict=True):
        if placed.setdefault(reply, score) != score:
            raise Unusable("one_reply_at_two_ranks", key, shown=reply)
    for reply in (reply for i, reply in enumerate(replies) if reply in replies[:i]):
        unpaired.add("repeated_reply", row_id, reply)
    if len(placed) < 2:
        raise Unusable("fewer_than_two_replies")
    if len(set(placed.values())) == 1:
        raise Unusable("every_reply_tied")
    rows = _pairs(row_id, prompt, placed, unpaired, pairs)
    if len(placed) > 2 and len(set(placed.values())) == len(placed):
        rows.append(Row(f"{row_id} ranking", prompt, ranking=sorted(placed, key=lambda reply: -placed[reply])))
    return rows


def ratings(records: Iterable[tuple[str, dict[str, Any]]], found: Found, dropping: Dropping, pairs: Pairs) -> None:
    """The mean rating of each reply, and pairs of replies to one prompt that are rated differently."""
    judged: dict[str, _Judged] = {}
    said: set[tuple[str, ...]] = set()
    for row_id, record in records:
        with dropping(row_id, record):
            prompt = prompt_in(record)
            rated = _rated(record)
            if (annotator := record.get("annotator")) is not None:
                again = (str(annotator), prompt_key(prompt), *(str(each) for pair in rated for each in pair))
                if again in said:
                    raise Unusable("repeated_judgement", "annotator", detail=" says it again")
                said.add(again)
            item = judged.setdefault(prompt_key(prompt), _Judged(row_id, prompt))
            for reply, rating in rated:
                item.ratings.setdefault(reply, []).append(rating)
                item.ids.setdefault(reply, row_id if len(rated) == 1 else f"{row_id} reply {len(item.ids) + 1}")
            found.used += 1
    for item in judged.values():
        means = {reply: sum(ratings) / len(ratings) for reply, ratings in item.ratings.items()}
        found.rows += _pairs(item.id, item.prompt, means, found.unpaired, pairs)
        found.rows += [Row(f"{item.ids[r]} rating", item.prompt, reply=r, rating=mean) for r, mean in means.items()]
    each = [ratings for item in judged.values() for ratings in item.ratings.values()]
    if any(len(ratings) > 1 for ratings in each):
        found.annotators = agreement(each)
    if every := [rating for ratings in each for rating in ratings]:
        found.rated = {"replies": len(each), "lowest": min(every), "highest": max(every)}


def _rated(record: dict[str, Any]) -> list[tuple[str, float]]:
    if record.get("response") is not None or "responses" not in record:
        for key in ("response", "rating"):
            if key not in record:
                raise Unusable("missing_key", key)
        return [(reply_of(record["response"], "response", record["prompt"]), _number(record["rating"], "rating"))]
    replies = _listed(record, "responses")
    if not replies:
        raise Unusable("empty_value", "responses")
    if all(isinstance(reply, dict) and "role" not in reply for reply in replies):
        return [
            (reply_of(_first(reply, REPLY_KEYS), "responses"), _number(_first(reply, RATING_KEYS), "responses"))
            for reply in replies
        ]
    ratings = _listed(record, "ratings")
    if len(ratings) != len(replies):
        raise Unusable("as_many_ratings_as_replies_needed")
    return [
        (reply_of(reply, "responses"), _number(rating, "ratings"))
        for reply, rating in zip(replies, ratings, strict=True)
    ]


def _first(record: dict[str, Any], keys: Sequence[str]) -> Any:
    for key in keys:
        if record.get(key) is not None:
            return record[key]
    raise Unusable("missing_key", "responses", detail=f" has one without {' or '.join(keys)}", shown=str(record))


def _listed(record: dict[str, Any], key: str) -> list[Any]:
    if key not in record:
        raise Unusable("missing_key", key)
    return as_list(record[key], key)


def _number(value: Any, key: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        if value is None or value == "":
            raise Unusable("empty_value", key)
        raise Unusable("not_a_number", key, shown=str(value))
    return number


def _pairs(row_id: str, prompt: list[Message], scores: dict[str, float], unpaired: Dropped, pairs: Pairs) -> list[Row]:
    """Better and worse replies by score; a pair of equal scores is counted as tied."""
    levels = sorted(set(scores.values()), reverse=True)
    near = set(pairwise(levels))
    rows = []
    for a, b in combinations(scores, 2):
        if scores[a] == scores[b]:
            unpaired.add("tied_replies", row_id, a)
            continue
        good, bad = (a, b) if scores[a] > scores[b] else (b, a)
        if pairs == "all" or (scores[good], scores[bad]) in near:
            rows.append(Row(row_id, prompt, chosen=good, rejected=bad))
    if len(rows) > 1:
        rows = [Row(f"{row_id} pair {i}", r.prompt, r.chosen, r.rejected) for i, r in enumerate(rows, 1)]
    return rows
