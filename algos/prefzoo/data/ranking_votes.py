"""Several rankings of one prompt: what they say of each two replies, and what a rule makes of it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise

from prefzoo.data import vote_aggregation
from prefzoo.data.formats import Row
from prefzoo.data.read_result import Pairs
from prefzoo.data.rejects import Dropped
from prefzoo.data.vote_aggregation import Annotators
from prefzoo.data.votes import Vote, Votes
from prefzoo.types import Message


@dataclass
class Judged:
    """One prompt, and the scores that each judge gave its replies, higher is better.

    Attributes:
        id, prompt: of the first record.
        given: by judge (the annotator, or the record where nobody is named) and reply every score.
        ids: of the record in which each reply came first.
    """

    id: str
    prompt: list[Message]
    given: dict[tuple[str | None, str], dict[str, list[float]]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def add(self, judge: tuple[str | None, str], reply: str, score: float, reply_id: str) -> None:
        """Add one score of one reply."""
        self.given.setdefault(judge, {}).setdefault(reply, []).append(score)
        self.ids.setdefault(reply, reply_id)

    def by_reply(self) -> dict[str, list[float]]:
        """Every score of each reply."""
        found: dict[str, list[float]] = {}
        for scores in self.given.values():
            for reply, each in scores.items():
                found.setdefault(reply, []).extend(each)
        return {reply: found[reply] for reply in self.ids}

    def by_judge(self) -> dict[tuple[str | None, str], dict[str, float]]:
        """The mean score that each judge gave each reply."""
        return {
            judge: {reply: sum(each) / len(each) for reply, each in scores.items()}
            for judge, scores in self.given.items()
        }

    def votes(self) -> list[Votes]:
        """Each two replies that someone ranks, with a vote of everyone who ranks both."""
        found: dict[frozenset[str], Votes] = {}
        for (annotator, record), scores in self.by_judge().items():
            for a, b in combinations(scores, 2):
                item = found.setdefault(frozenset((a, b)), Votes(Row(record, self.prompt, chosen=a, rejected=b)))
                first = a if item.row.chosen == a else b
                choice = None if scores[a] == scores[b] else int(scores[first] < max(scores[a], scores[b]))
                item.cast.append(Vote(choice, annotator, record))
        return list(found.values())


def counted(
    judged: Sequence[tuple[Judged, list[Votes]]], rule: Annotators, pairs: Pairs, unpaired: Dropped
) -> tuple[list[Row], dict[str, float]]:
    """Pairs and whole rankings by the rule, of each prompt in turn.

    A ranking is a vote on every two of its replies. With `adjacent`, pairs are those that are neighbours in one of the
    rankings, and all who rank both replies vote on them. The whole ranking of replies is the order in which the pairs
    put them, where there is one: not where two of them are tied, nor where pairs go in a circle. Under `soft` every
    vote is a pair and every ranking stands as it was given.

    Args:
        judged: prompts, with the votes on their replies.
        unpaired: is told of pairs that are not made because neither reply is better.

    Returns:
        The rows; and under `reliability` how often each annotator is right.
    """
    chances, skills = vote_aggregation.chances([item for _, votes in judged for item in votes], rule)
    found: list[Row] = []
    chance = iter(chances)
    for each, votes in judged:
        near = _neighbours(each) if pairs == "adjacent" else None
        rows: list[Row] = []
        better: set[tuple[str | None, str | None]] = set()
        for item in votes:
            preferred = vote_aggregation.preferred(next(chance))
            wanted = near is None or _sides(item) in near
            if all(vote.choice is None for vote in item.cast):
                unpaired.add("tied_replies", item.row.id, item.row.chosen or "")
            elif rule == "soft":
                rows += vote_aggregation.soft([item], unpaired) if wanted else []
            elif preferred is not None:
                row = item.preferring(preferred, item.row.id)
                better.add((row.chosen, row.rejected))
                rows += [row] if wanted else []
            elif wanted:
                unpaired.add("annotators_tied", item.row.id, item.row.chosen or "")
        found += [*_numbered(rows), *(_as_given(each) if rule == "soft" else _in_order(each, better))]
    return found, skills


def whole(row_id: str, prompt: list[Message], scores: Mapping[str, float], vote: int | None = None) -> list[Row]:
    """A ranking as a row of its own, where it is one of more than two replies without ties."""
    if len(scores) < 3 or len(set(scores.values())) < len(scores):
        return []
    return [Row(f"{row_id} ranking", prompt, ranking=sorted(scores, key=lambda reply: -scores[reply]), vote=vote)]


def _as_given(judged: Judged) -> list[Row]:
    """Every whole ranking; those that say the same are numbered, so that none is a duplicate."""
    like: Counter[tuple[str, ...]] = Counter()
    rows = []
    for (_, record), scores in judged.by_judge().items():
        order = tuple(sorted(scores, key=lambda reply: -scores[reply]))
        like[order] += 1
        rows += whole(record, judged.prompt, scores, like[order] if like[order] > 1 else None)
    return rows


def _in_order(judged: Judged, better: set[tuple[str | None, str | None]]) -> list[Row]:
    """For each set of replies that someone ranks, their order by the pairs `better` (better, worse)."""
    rows = []
    done: set[frozenset[str]] = set()
    for (_, record), scores in judged.by_judge().items():
        if frozenset(scores) in done:
            continue
        done.add(frozenset(scores))
        wins = {reply: float(sum((reply, other) in better for other in scores)) for reply in scores}
        # Of n replies that are put in order by pairs, the first wins n - 1, the next n - 2, and so on.
        if set(wins.values()) == {*range(len(scores))}:
            rows += whole(record, judged.prompt, wins)
    return rows


def _neighbours(judged: Judged) -> set[frozenset[str | None]]:
    """Replies of neighbouring ranks in one of the rankings."""
    found: set[frozenset[str | None]] = set()
    for scores in judged.by_judge().values():
        near = set(pairwise(sorted(set(scores.values()))))
        found |= {frozenset((a, b)) for a in scores for b in scores if (scores[a], scores[b]) in near}
    return found


def _sides(item: Votes) -> frozenset[str | None]:
    return frozenset((item.row.chosen, item.row.rejected))


def _numbered(rows: Sequence[Row]) -> list[Row]:
    """Rows whose ids tell those of one record apart."""
    of_record: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_record[row.id].append(row)
    return [
        row if len(each) == 1 else replace(row, id=f"{row.id} pair {number}")
        for each in of_record.values()
        for number, row in enumerate(each, 1)
    ]
