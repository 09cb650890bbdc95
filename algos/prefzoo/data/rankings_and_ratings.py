"""Rankings and ratings: replies to one prompt in an order, and the pairs that it makes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations, pairwise
from typing import Any

from prefzoo.data import agreement
from prefzoo.data.formats import Row, as_list, prompt_in, reply_of
from prefzoo.data.plackett_luce import plackett_luce
from prefzoo.data.ranking_votes import Judged, counted, whole
from prefzoo.data.read_result import Dropping, Found, Pairs
from prefzoo.data.rejects import Dropped, Unusable
from prefzoo.data.vote_aggregation import Annotators, with_skills
from prefzoo.data.votes import named
from prefzoo.types import Message, Prompt
from prefzoo.views import prompt_key

REPLY_KEYS = ("response", "completion", "text", "content")
RATING_KEYS = ("rating", "score", "overall_score")


def rankings(
    records: Iterable[tuple[str, dict[str, Any]]],
    found: Found,
    dropping: Dropping,
    pairs: Pairs,
    rule: Annotators = "majority",
) -> None:
    """The pairs and whole orders of replies in the rankings of a prompt: by `plackett_luce` of all of them together,
    else by the rule for votes (see `ballots.counted`)."""
    judged: dict[str, Judged] = {}
    said: set[tuple[object, ...]] = set()
    for row_id, record in records:
        with dropping(row_id, record):
            annotator = named(record)
            if annotator is None and rule == "reliability" and pairs != "plackett_luce":
                raise Unusable("empty_value", "annotator")
            prompt, placed = _placed(row_id, record, found.unpaired)
            _once(said, record, prompt, sorted(placed.items()))
            item = judged.setdefault(prompt_key(prompt), Judged(row_id, prompt))
            for reply, score in placed.items():
                item.add((annotator, row_id), reply, score, row_id)
            found.used += 1
    voted = [(item, item.votes()) for item in judged.values()]
    skills: dict[str, float] = {}
    if pairs == "plackett_luce":
        for item in judged.values():
            made, groups = _by_strength(item, found.unpaired)
            found.rows += made
            for number, group in enumerate(groups, 1):
                found.rows += whole(item.id if len(groups) == 1 else f"{item.id} group {number}", item.prompt, group)
    else:
        found.rows, skills = counted(voted, rule, pairs, found.unpaired)
    casts = [each.cast for _, votes in voted for each in votes]
    if any(len(cast) > 1 for cast in casts):
        by = {} if pairs == "plackett_luce" else {"rule": rule}
        found.annotators = with_skills({**by, **agreement.of_votes(casts)}, skills)


def ratings(records: Iterable[tuple[str, dict[str, Any]]], found: Found, dropping: Dropping, pairs: Pairs) -> None:
    """The mean rating of each reply, and pairs of replies to one prompt whose means differ; or by `plackett_luce`
    pairs by what each annotator's ratings say of the order, whatever its scale."""
    judged: dict[str, Judged] = {}
    said: set[tuple[object, ...]] = set()
    for row_id, record in records:
        with dropping(row_id, record):
            prompt = prompt_in(record)
            rated = _rated(record)
            _once(said, record, prompt, rated)
            item = judged.setdefault(prompt_key(prompt), Judged(row_id, prompt))
            annotator = named(record)
            for reply, rating in rated:
                reply_id = row_id if len(rated) == 1 else f"{row_id} reply {len(item.ids) + 1}"
                item.add((annotator, "" if annotator else row_id), reply, rating, reply_id)
            found.used += 1
    for item in judged.values():
        means = {reply: sum(scores) / len(scores) for reply, scores in item.by_reply().items()}
        if pairs == "plackett_luce":
            found.rows += _by_strength(item, found.unpaired)[0]
        else:
            found.rows += _pairs(item.id, item.prompt, means, found.unpaired, pairs)
        found.rows += [Row(f"{item.ids[r]} rating", item.prompt, reply=r, rating=mean) for r, mean in means.items()]
    each = [scores for item in judged.values() for scores in item.by_reply().values()]
    if any(len(scores) > 1 for scores in each):
        found.annotators = agreement.of_ratings(each)
    if every := [rating for scores in each for rating in scores]:
        found.rated = {"replies": len(each), "lowest": min(every), "highest": max(every)}


def _once(said: set[tuple[object, ...]], record: dict[str, Any], prompt: Prompt, judgement: Iterable[object]) -> None:
    """Raises Unusable when an annotator who is named says the same of the same replies again."""
    if (annotator := named(record)) is not None:
        again = (annotator, prompt_key(prompt), *judgement)
        if again in said:
            raise Unusable("repeated_judgement", "annotator", detail=" says it again")
        said.add(again)


def _placed(row_id: str, record: dict[str, Any], unpaired: Dropped) -> tuple[list[Message], dict[str, float]]:
    """The prompt of a ranking, and its replies with scores, higher is better; only their order counts.

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
    return prompt, placed


def _by_strength(item: Judged, unpaired: Dropped) -> tuple[list[Row], list[dict[str, float]]]:
    """Pairs by Plackett-Luce strengths, and the groups of strengths; replies that no chain of rankings links are no
    pair."""
    groups = plackett_luce(list(item.by_judge().values()))
    for one, other in combinations(groups, 2):
        for reply in (reply for reply in one for _ in other):
            unpaired.add("never_compared", item.id, reply)
    rows = [row for group in groups for row in _differing(item.id, item.prompt, group, unpaired, "all")]
    return _numbered(item.id, rows), groups


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
    return _numbered(row_id, _differing(row_id, prompt, scores, unpaired, pairs))


def _differing(
    row_id: str, prompt: list[Message], scores: dict[str, float], unpaired: Dropped, pairs: Pairs
) -> list[Row]:
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
    return rows


def _numbered(row_id: str, rows: list[Row]) -> list[Row]:
    if len(rows) < 2:
        return rows
    return [Row(f"{row_id} pair {i}", r.prompt, r.chosen, r.rejected) for i, r in enumerate(rows, 1)]
