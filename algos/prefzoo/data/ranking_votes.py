"""Several rankings of one prompt's replies as votes on every two of them, and the rows that a rule makes of these."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations, pairwise

from prefzoo.data import vote_aggregation
from prefzoo.data.formats import Row
from prefzoo.data.read_result import Pairs
from prefzoo.data.rejects import Rejects
from prefzoo.data.vote_aggregation import VoteRule
from prefzoo.data.votes import Vote, VotedPair
from prefzoo.types import Message


@dataclass
class PromptScores:
    """One prompt, and the scores that each judge gave its replies, higher is better.

    Attributes:
        id, prompt: of the first record.
        scores: by judge (the annotator, or the record where nobody is named) and reply every score.
        ids: of the record in which each reply came first.
    """

    id: str
    prompt: list[Message]
    scores: dict[tuple[str | None, str], dict[str, list[float]]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)

    def add(self, judge: tuple[str | None, str], reply: str, score: float, reply_id: str) -> None:
        """Add one score of one reply."""
        self.scores.setdefault(judge, {}).setdefault(reply, []).append(score)
        self.ids.setdefault(reply, reply_id)

    def by_reply(self) -> dict[str, list[float]]:
        """Every score of each reply."""
        by_judge = self.scores.values()
        return {reply: [score for scores in by_judge for score in scores.get(reply, ())] for reply in self.ids}

    def means(self) -> dict[tuple[str | None, str], dict[str, float]]:
        """The mean score that each judge gave each reply."""
        return {
            judge: {reply: sum(values) / len(values) for reply, values in scores.items()}
            for judge, scores in self.scores.items()
        }

    def votes(self) -> list[VotedPair]:
        """Each two replies that someone ranks, with a vote of everyone who ranks both."""
        pairs: dict[frozenset[str], VotedPair] = {}
        for (annotator, record), scores in self.means().items():
            for a, b in combinations(scores, 2):
                pair = pairs.setdefault(frozenset((a, b)), VotedPair(record, self.prompt, a, b))
                choice = None if scores[a] == scores[b] else int(scores[pair.first] < scores[pair.second])
                pair.votes.append(Vote(choice, annotator, record))
        return list(pairs.values())

    def neighbours(self) -> set[frozenset[str]]:
        """Replies of neighbouring ranks in one of the rankings."""
        neighbours: set[frozenset[str]] = set()
        for scores in self.means().values():
            near = set(pairwise(sorted(set(scores.values()))))
            neighbours |= {frozenset((a, b)) for a in scores for b in scores if (scores[a], scores[b]) in near}
        return neighbours


def rows_by_rule(
    prompts: Sequence[tuple[PromptScores, list[VotedPair]]], rule: VoteRule, pairs: Pairs, unpaired: Rejects
) -> tuple[list[Row], dict[str, float]]:
    """Pairs and whole rankings by the rule, of each prompt in turn.

    A ranking is a vote on every two of its replies. With `adjacent`, pairs are those that are neighbours in one of the
    rankings, and all who rank both replies vote on them. The whole ranking of replies is the order in which the pairs
    put them, where there is one: not where two of them are tied, nor where pairs go in a circle. Under `soft` every
    vote is a pair and every ranking stands as it was given.

    Args:
        prompts: with the votes on their replies.
        unpaired: gets the pairs that are not made because neither reply is better.

    Returns:
        The rows; and under `reliability` how often each annotator is right.
    """
    first, skills = vote_aggregation.probabilities([pair for _, voted in prompts for pair in voted], rule)
    rows: list[Row] = []
    probability = iter(first)
    for scores, voted in prompts:
        near = scores.neighbours() if pairs == "adjacent" else None
        made: list[Row] = []
        better: set[tuple[str | None, str | None]] = set()
        for pair in voted:
            choice = vote_aggregation.preferred(next(probability))
            asked_for = near is None or frozenset(pair.replies) in near
            if all(vote.choice is None for vote in pair.votes):
                unpaired.add("tied_replies", pair.id, pair.first)
            elif rule == "soft":
                made += vote_aggregation.soft_rows([pair], unpaired) if asked_for else []
            elif choice is not None:
                row = pair.row(choice, pair.id)
                better.add((row.chosen, row.rejected))
                made += [row] if asked_for else []
            elif asked_for:
                unpaired.add("annotators_tied", pair.id, pair.first)
        rows += [*numbered(made), *(_every_ranking(scores) if rule == "soft" else _agreed_rankings(scores, better))]
    return rows, skills


def ranking_row(row_id: str, prompt: list[Message], scores: Mapping[str, float], vote: int | None = None) -> list[Row]:
    """A ranking as a row of its own, where it is one of more than two replies without ties."""
    if len(scores) < 3 or len(set(scores.values())) < len(scores):
        return []
    return [Row(f"{row_id} ranking", prompt, ranking=sorted(scores, key=lambda reply: -scores[reply]), vote=vote)]


def _every_ranking(prompt: PromptScores) -> list[Row]:
    """Every whole ranking; those that say the same are numbered, so that none is a duplicate."""
    same: Counter[tuple[str, ...]] = Counter()
    rows = []
    for (_, record), scores in prompt.means().items():
        order = tuple(sorted(scores, key=lambda reply: -scores[reply]))
        same[order] += 1
        rows += ranking_row(record, prompt.prompt, scores, same[order] if same[order] > 1 else None)
    return rows


def _agreed_rankings(prompt: PromptScores, better: set[tuple[str | None, str | None]]) -> list[Row]:
    """For each set of replies that someone ranks, their order by the pairs `better` (better, worse)."""
    rows = []
    done: set[frozenset[str]] = set()
    for (_, record), scores in prompt.means().items():
        if frozenset(scores) in done:
            continue
        done.add(frozenset(scores))
        wins = {reply: float(sum((reply, other) in better for other in scores)) for reply in scores}
        # Of n replies that are put in order by pairs, the first wins n - 1, the next n - 2, and so on.
        if set(wins.values()) == {*range(len(scores))}:
            rows += ranking_row(record, prompt.prompt, wins)
    return rows


def numbered(rows: Sequence[Row]) -> list[Row]:
    """Rows whose ids tell those of one record apart, those of one record together."""
    by_record: dict[str, list[Row]] = {}
    for row in rows:
        by_record.setdefault(row.id, []).append(row)
    return [
        row if len(same) == 1 else replace(row, id=f"{row.id} pair {number}")
        for same in by_record.values()
        for number, row in enumerate(same, 1)
    ]
