"""Rules by which several annotators' votes on two replies become preferences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Literal

from prefzoo.data.formats import Row
from prefzoo.data.read_result import Pairs
from prefzoo.data.rejects import Rejects
from prefzoo.data.votes import VotedPair
from prefzoo.views import prompt_key

VoteRule = Literal["majority", "soft", "reliability"]
"""`majority`: what most say. `soft`: every vote is a pair. `reliability`: what is likelier, annotators being weighed by
how reliable they are found to be."""
VOTED = ("preferences", "rankings")
"""The kinds of data in which a rule decides several annotators' votes; several ratings of one reply are averaged."""
PACKAGE = "crowdkit"
"""What `reliability` needs: the extra `annotators`."""
EVEN = 1e-6
"""Neither reply is preferred when the probability that the first is better is this close to one half."""
ROUNDS = 100


def voted_on(kind: str, pairs: Pairs) -> bool:
    """Whether a rule decides votes in this kind of data, where rankings are paired so."""
    return kind in VOTED and (kind, pairs) != ("rankings", "plackett_luce")


def probabilities(pairs: Sequence[VotedPair], rule: VoteRule) -> tuple[list[float], dict[str, float]]:
    """P(the first reply is better) of each pair: by `reliability` what `one_coin` finds, else the share of votes for
    it among those that prefer one (one half where none does). Also how often each annotator is right, by `reliability`.
    """
    if rule == "reliability":
        return one_coin(pairs)
    counts = [(pair.count(0), pair.count(1)) for pair in pairs]
    return [first / (first + second) if first + second else 0.5 for first, second in counts], {}


def preferred(first: float) -> int | None:
    """0 where the first reply is the likelier to be better, 1 where the second is, None where neither."""
    return None if abs(first - 0.5) < EVEN else int(first < 0.5)


def decided_rows(pairs: Sequence[VotedPair], first: Sequence[float], dropped: Rejects) -> list[Row]:
    """One row of each pair.

    Args:
        first: P(the first reply is better) of each.
        dropped: gets the records of pairs of which neither reply is the likelier.
    """
    rows = []
    for pair, probability in zip(pairs, first, strict=True):
        if (choice := preferred(probability)) is not None:
            rows.append(pair.row(choice, pair.id))
            continue
        for record in pair.by_record():
            dropped.add("annotators_tied", record, pair.prompt[-1]["content"])
    return rows


def soft_rows(pairs: Sequence[VotedPair], dropped: Rejects) -> list[Row]:
    """One row of each vote, so that votes count by their share whatever learns from them.

    For a loss of pairs, the sum over the votes on a pair is the number of votes times the loss expected under the soft
    label P(first better) = share of votes for the first; for a Bradley-Terry reward model and for DPO that is the
    cross-entropy with this label. `dropped` gets the records that prefer neither reply.
    """
    rows = []
    for pair in pairs:
        same: Counter[int] = Counter()
        for record, votes in pair.by_record().items():
            choices = [vote.choice for vote in votes if vote.choice is not None]
            if not choices:
                dropped.add("votes_for_neither", record, pair.prompt[-1]["content"])
            for number, choice in enumerate(choices, 1):
                same[choice] += 1
                row_id = record if len(choices) == 1 else f"{record} vote {number}"
                rows.append(pair.row(choice, row_id, same[choice] if same[choice] > 1 else None))
    return rows


def one_coin(pairs: Sequence[VotedPair]) -> tuple[list[float], dict[str, float]]:
    """P(the first reply is better) of each pair, and of each annotator how often it is right, both found together.

    This is the one-coin model of Dawid and Skene (1979, https://doi.org/10.2307/2346806; Zhang et al. 2016,
    https://arxiv.org/abs/1406.3824) by expectation maximization from the shares of votes, as crowd-kit has it: an
    annotator is right with a probability of its own, whichever reply is better, and all are independent. Who is wrong
    more often than right counts against what it says. It takes for granted that most votes are right.

    Args:
        pairs: what was voted on; every vote has a named annotator.
    """
    import pandas
    from crowdkit.aggregation import OneCoinDawidSkene

    order = sorted(range(len(pairs)), key=lambda i: (prompt_key(pairs[i].prompt), *pairs[i].replies))
    turned = [pair.replies[0] != pair.first for pair in pairs]
    # Each pair stands in it twice, the second time with its replies in each other's place: neither place is then the
    # likelier before anyone has voted.
    votes = [
        (f"{i} {mirrored}", vote.annotator, vote.choice ^ mirrored ^ turned[i])
        for i in order
        for vote in sorted(pairs[i].votes, key=lambda vote: str(vote.annotator))
        if vote.choice is not None
        for mirrored in (0, 1)
    ]
    if not votes:
        return [0.5] * len(pairs), {}
    model = OneCoinDawidSkene(n_iter=ROUNDS).fit(pandas.DataFrame(votes, columns=["task", "worker", "label"]))
    by_task = model.probas_[0].to_dict()
    sorted_first = [float(by_task.get(f"{i} 0", 0.5)) for i in range(len(pairs))]
    first = [1 - p if is_turned else p for p, is_turned in zip(sorted_first, turned, strict=True)]
    return first, {str(name): float(skill) for name, skill in model.skills_.items()}
