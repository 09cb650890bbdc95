"""Rankings and ratings: replies to one prompt in an order, and the pairs that it makes."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations, pairwise
from typing import Any

from prefzoo.data.agreement import rating_agreement, vote_agreement
from prefzoo.data.formats import Row, as_list, prompt_in, reply_of
from prefzoo.data.pair_limits import MOST_REPLIES, PairLimits
from prefzoo.data.plackett_luce import plackett_luce
from prefzoo.data.ranking_votes import PromptScores, numbered, ranking_row, rows_by_rule
from prefzoo.data.read_result import Pairs, ReadResult
from prefzoo.data.rejects import Rejected, Rejects, as_text
from prefzoo.data.vote_aggregation import VoteRule
from prefzoo.data.votes import annotator_of, refuse_repetition
from prefzoo.types import Message
from prefzoo.views import prompt_key

REPLY_KEYS = ("response", "completion", "text", "content")
RATING_KEYS = ("rating", "score", "overall_score")
LARGEST = 1e15
"""Of ratings and ranks, either side of 0; their squares are summed in single precision."""
Records = Iterable[tuple[str, dict[str, Any]]]


def rankings(records: Records, result: ReadResult, pairs: Pairs, rule: VoteRule) -> None:
    """Add the pairs and whole orders of replies in the rankings of a prompt: by `plackett_luce` of all of them
    together, else by the rule for votes (see `ranking_votes.rows_by_rule`)."""
    prompts: dict[str, PromptScores] = {}
    seen: set[Hashable] = set()
    limits = PairLimits()
    by_strength = pairs == "plackett_luce"
    for row_id, record in records:
        with result.using(row_id, record):
            annotator = annotator_of(record)
            if annotator is None and rule == "reliability" and not by_strength:
                raise Rejected("empty_value", "annotator")
            prompt, ranked = _ranked(row_id, record, result.unpaired)
            key = prompt_key(prompt)
            known = prompts[key].ids if key in prompts else {}
            limits.add(known, ranked, len(ranked) * (len(ranked) - 1) // 2)
            refuse_repetition(annotator, (key, *sorted(ranked.items())), seen)
            scores = prompts.setdefault(key, PromptScores(row_id, prompt))
            for reply, score in ranked.items():
                scores.add((annotator, row_id), reply, score, row_id)
            result.used += 1
    voted = [(scores, scores.votes()) for scores in prompts.values()]
    skills: dict[str, float] = {}
    if by_strength:
        for scores in prompts.values():
            rows, groups = _by_strength(scores, result.unpaired)
            result.rows += rows
            for number, group in enumerate(groups, 1):
                row_id = scores.id if len(groups) == 1 else f"{scores.id} group {number}"
                result.rows += ranking_row(row_id, scores.prompt, group)
    else:
        result.rows, skills = rows_by_rule(voted, rule, pairs, result.unpaired)
    votes = [pair.votes for _, pairs_of_prompt in voted for pair in pairs_of_prompt]
    if any(len(votes_on_pair) > 1 for votes_on_pair in votes):
        result.annotators = {**({} if by_strength else {"rule": rule}), **vote_agreement(votes, skills)}


def ratings(records: Records, result: ReadResult, pairs: Pairs, attributes: Sequence[str] = ()) -> None:
    """Add the mean rating of each reply, also in each of these respects, and pairs of replies to one prompt whose means
    differ; or by `plackett_luce` pairs by what each annotator's ratings say of the order, whatever its scale."""
    prompts: dict[str, PromptScores] = {}
    seen: set[Hashable] = set()
    limits = PairLimits()
    respects: dict[tuple[str, str], list[dict[str, float]]] = {}
    for row_id, record in records:
        with result.using(row_id, record):
            prompt, annotator = prompt_in(record), annotator_of(record)
            in_respects = _attributes(record, attributes)
            rated = _rated(record if "rating" in record or not attributes else _with_means(record, in_respects))
            key = prompt_key(prompt)
            limits.add(prompts[key].ids if key in prompts else {}, [reply for reply, _ in rated])
            refuse_repetition(annotator, (key, *rated), seen)
            scores = prompts.setdefault(key, PromptScores(row_id, prompt))
            for i, (reply, rating) in enumerate(rated):
                if attributes:
                    respects.setdefault((key, reply), []).append(in_respects[i])
                reply_id = row_id if len(rated) == 1 else f"{row_id} reply {len(scores.ids) + 1}"
                scores.add((annotator, "" if annotator else row_id), reply, rating, reply_id)
            result.used += 1
    by_reply: list[list[float]] = []
    for key, scores in prompts.items():
        by_reply += scores.by_reply().values()
        means = {reply: sum(values) / len(values) for reply, values in scores.by_reply().items()}
        if pairs == "plackett_luce":
            result.rows += _by_strength(scores, result.unpaired)[0]
        else:
            result.rows += numbered(_differing(scores, means, result.unpaired, pairs))
        result.rows += [
            Row(
                f"{scores.ids[r]} rating",
                scores.prompt,
                reply=r,
                rating=mean,
                attributes=_mean_of_each(respects[key, r]) if attributes else None,
            )
            for r, mean in means.items()
        ]
    if any(len(values) > 1 for values in by_reply):
        result.annotators = rating_agreement(by_reply)
    if every := [rating for values in by_reply for rating in values]:
        result.rated = {"replies": len(by_reply), "lowest": min(every), "highest": max(every)}


def _ranked(row_id: str, record: dict[str, Any], unpaired: Rejects) -> tuple[list[Message], dict[str, float]]:
    """The prompt of a ranking, and its replies with scores, higher is better; only their order counts.

    Raises:
        Rejected: when there is no pair in it.
    """
    prompt = prompt_in(record)
    key = "ranking" if record.get("ranking") is not None or "responses" not in record else "responses"
    replies = [reply_of(reply, key) for reply in _list_in(record, key)]
    if key == "ranking":
        scores = [-float(place) for place in range(len(replies))]
    else:
        scores = [-number(rank, "ranks") for rank in _list_in(record, "ranks")]
    if len(replies) != len(scores):
        raise Rejected("as_many_ranks_as_replies_needed")
    ranked: dict[str, float] = {}
    for reply, score in zip(replies, scores, strict=True):
        if ranked.setdefault(reply, score) != score:
            raise Rejected("one_reply_at_two_ranks", key, shown=reply)
    for reply in (reply for i, reply in enumerate(replies) if reply in replies[:i]):
        unpaired.add("repeated_reply", row_id, reply)
    if len(ranked) < 2:
        raise Rejected("fewer_than_two_replies")
    if len(set(ranked.values())) == 1:
        raise Rejected("every_reply_tied")
    return prompt, ranked


def _by_strength(scores: PromptScores, unpaired: Rejects) -> tuple[list[Row], list[dict[str, float]]]:
    """Pairs by Plackett-Luce strengths, and the groups of strengths; replies that no chain of rankings links are no
    pair."""
    groups = plackett_luce(list(scores.means().values()))
    for one, other in combinations(groups, 2):
        for reply in (reply for reply in one for _ in other):
            unpaired.add("never_compared", scores.id, reply)
    return numbered([row for group in groups for row in _differing(scores, group, unpaired, "all")]), groups


def _differing(prompt: PromptScores, scores: dict[str, float], unpaired: Rejects, pairs: Pairs) -> list[Row]:
    """Better and worse replies by score; a pair of equal scores is counted as tied."""
    near = set(pairwise(sorted(set(scores.values()), reverse=True)))
    rows = []
    for a, b in combinations(scores, 2):
        if scores[a] == scores[b]:
            unpaired.add("tied_replies", prompt.id, a)
            continue
        chosen, rejected = (a, b) if scores[a] > scores[b] else (b, a)
        if pairs == "all" or (scores[chosen], scores[rejected]) in near:
            rows.append(Row(prompt.id, prompt.prompt, chosen=chosen, rejected=rejected))
    return rows


def _rated(record: dict[str, Any]) -> list[tuple[str, float]]:
    """The replies in a record of ratings, each with its rating."""
    if record.get("response") is not None or "responses" not in record:
        for key in ("response", "rating"):
            if key not in record:
                raise Rejected("missing_key", key)
        return [(reply_of(record["response"], "response", record["prompt"]), number(record["rating"], "rating"))]
    replies = _list_in(record, "responses")
    if not replies:
        raise Rejected("empty_value", "responses")
    if all(isinstance(reply, dict) and "role" not in reply for reply in replies):
        return [
            (reply_of(_first(reply, REPLY_KEYS), "responses"), number(_first(reply, RATING_KEYS), "responses"))
            for reply in replies
        ]
    ratings = _list_in(record, "ratings")
    if len(ratings) != len(replies):
        raise Rejected("as_many_ratings_as_replies_needed")
    return [
        (reply_of(reply, "responses"), number(rating, "ratings"))
        for reply, rating in zip(replies, ratings, strict=True)
    ]


def _attributes(record: dict[str, Any], names: Sequence[str]) -> list[dict[str, float]]:
    """The ratings of each reply of a record in these respects: columns of the record, each with as many numbers as
    there are replies where these are a list, or keys of the replies themselves.

    Raises:
        Rejected: where one lacks, or is no number.
    """
    if not names:
        return []
    one = record.get("response") is not None or "responses" not in record
    listed: list[Any] = [record.get("response")] if one else _list_in(record, "responses")
    if not one and listed and all(isinstance(reply, dict) and set(names) <= reply.keys() for reply in listed):
        return [{name: number(reply[name], name) for name in names} for reply in listed]
    columns: dict[str, list[Any]] = {}
    for name in names:
        if name not in record:
            raise Rejected("missing_key", name)
        columns[name] = [record[name]] if one else _list_in(record, name)
        if len(columns[name]) != len(listed):
            raise Rejected("as_many_ratings_as_replies_needed", name)
    return [{name: number(column[i], name) for name, column in columns.items()} for i in range(len(listed))]


def _with_means(record: dict[str, Any], respects: list[dict[str, float]]) -> dict[str, Any]:
    """The record, where it has no ratings with the mean of those in each respect as such."""
    means = [sum(each.values()) / len(each) for each in respects]
    if record.get("response") is not None or "responses" not in record:
        return {**record, "rating": means[0]}
    replies: list[Any] = _list_in(record, "responses")
    if "ratings" in record or any(isinstance(reply, dict) and set(RATING_KEYS) & reply.keys() for reply in replies):
        return record
    texts = [_first(reply, REPLY_KEYS) if isinstance(reply, dict) else reply for reply in replies]
    return {**record, "responses": texts, "ratings": means}


def _mean_of_each(respects: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in respects) / len(respects) for name in respects[0]}


def _first(record: dict[str, Any], keys: Sequence[str]) -> Any:
    """The value of the first of these keys that has one."""
    for key in keys:
        if record.get(key) is not None:
            return record[key]
    detail = f" has one without {' or '.join(keys)}"
    raise Rejected("missing_key", "responses", detail=detail, shown=as_text(record))


def _list_in(record: dict[str, Any], key: str) -> list[Any]:
    if key not in record:
        raise Rejected("missing_key", key)
    listed = as_list(record[key], key)
    if len(listed) > MOST_REPLIES:
        raise Rejected(f"more_than_{MOST_REPLIES}_replies_to_one_prompt", shown=f"{len(listed)} in {key}")
    return listed


def number(value: Any, key: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except OverflowError:
        number = math.inf
    except (TypeError, ValueError):
        number = math.nan
    if abs(number) > LARGEST:
        raise Rejected("number_out_of_range", key, detail=f" is beyond {LARGEST:g}", shown=as_text(value))
    if not math.isnan(number):
        return number
    if value is None or value == "":
        raise Rejected("empty_value", key)
    raise Rejected("not_a_number", key, shown=as_text(value))
