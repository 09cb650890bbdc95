"""By which rule several annotators' votes on two replies become preferences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from prefzoo.data.formats import Row
from prefzoo.data.read_result import Pairs
from prefzoo.data.rejects import Dropped
from prefzoo.data.votes import Votes
from prefzoo.views import prompt_key

Annotators = Literal["majority", "soft", "reliability"]
"""`majority`: what most say. `soft`: every vote is a pair. `reliability`: what is likelier, annotators being weighed by
how reliable they are found to be."""
VOTED = ("preferences", "rankings")
"""The kinds of data in which a rule decides several annotators' votes; several ratings of one reply are averaged."""
PACKAGE = "crowdkit"
"""What `reliability` needs: the extra `annotators`."""
EVEN = 1e-6
"""A reply is as likely as the other one to be the better when its probability is this close to one half."""
ROUNDS = 100


def voted_on(kind: str, pairs: Pairs) -> bool:
    """Whether a rule decides votes in this kind of data, with pairs made like that of rankings."""
    return kind in VOTED and (kind, pairs) != ("rankings", "plackett_luce")


def shares(items: Sequence[Votes]) -> list[float]:
    """The share of votes for the first reply of each item among those that prefer one; one half where none does."""
    each = [(item.count(0), item.count(1)) for item in items]
    return [first / (first + second) if first + second else 0.5 for first, second in each]


def chances(items: Sequence[Votes], rule: Annotators) -> tuple[list[float], dict[str, float]]:
    """P(the first reply is better) of each item by the rule, and what `reliability` finds of each annotator."""
    return reliabilities(items) if rule == "reliability" else (shares(items), {})


def preferred(first: float) -> int | None:
    """0 where the first reply is the likelier to be better, 1 where the second is, None where neither."""
    return None if abs(first - 0.5) < EVEN else int(first < 0.5)


def hard(items: Sequence[Votes], first: Sequence[float], dropped: Dropped) -> list[Row]:
    """A pair of each item.

    Args:
        items: what was voted on.
        first: P(the first reply is better) of each.
        dropped: is told of the records of items of which neither reply is the likelier.
    """
    rows = []
    for item, chance in zip(items, first, strict=True):
        if (choice := preferred(chance)) is None:
            for record in item.records():
                dropped.add("annotators_tied", record, item.row.prompt[-1]["content"])
        else:
            rows.append(item.preferring(choice, item.row.id))
    return rows


def soft(items: Sequence[Votes], dropped: Dropped) -> list[Row]:
    """A pair of each vote, so that votes count by their share whatever learns from them.

    For a loss of pairs, the sum over an item's votes is the number of votes times the loss expected under the soft
    label P(first better) = share of votes for the first; for a Bradley-Terry reward model and for DPO that is the
    cross-entropy with this label. `dropped` is told of records that prefer neither reply.
    """
    rows = []
    for item in items:
        like: Counter[int] = Counter()
        for record, votes in item.records().items():
            choices = [vote.choice for vote in votes if vote.choice is not None]
            if not choices:
                dropped.add("votes_for_neither", record, item.row.prompt[-1]["content"])
            for number, choice in enumerate(choices, 1):
                like[choice] += 1
                row_id = record if len(choices) == 1 else f"{record} vote {number}"
                rows.append(item.preferring(choice, row_id, like[choice] if like[choice] > 1 else None))
    return rows


def reliabilities(items: Sequence[Votes]) -> tuple[list[float], dict[str, float]]:
    """P(the first reply is better) of each item, and of each annotator how often it is right, both found together.

    This is the one-coin model of Dawid and Skene (1979, https://doi.org/10.2307/2346806; Zhang et al. 2016,
    https://arxiv.org/abs/1406.3824) by expectation maximization from the shares of votes, as crowd-kit has it: an
    annotator is right with a probability of its own, whichever reply is better, and all are independent. Who is wrong
    more often than right counts against what it says. It takes for granted that most votes are right.

    Args:
        items: what was voted on; every vote has a named annotator.
    """
    import pandas
    from crowdkit.aggregation import OneCoinDawidSkene

    order = sorted(range(len(items)), key=lambda i: (prompt_key(items[i].row.prompt), *_sides(items[i])))
    # Each item stands in it twice, the second time with its replies in each other's place: neither place is then the
    # likelier before anyone has voted.
    votes = [
        (f"{i} {mirrored}", vote.annotator, vote.choice ^ mirrored ^ (_sides(items[i])[0] != items[i].row.chosen))
        for i in order
        for vote in sorted(items[i].cast, key=lambda vote: str(vote.annotator))
        if vote.choice is not None
        for mirrored in (0, 1)
    ]
    if not votes:
        return [0.5] * len(items), {}
    model = OneCoinDawidSkene(n_iter=ROUNDS).fit(pandas.DataFrame(votes, columns=["task", "worker", "label"]))
    chances = model.probas_[0].to_dict()
    of_first_side = [float(chances.get(f"{i} 0", 0.5)) for i in range(len(items))]
    first = [
        chance if _sides(item)[0] == item.row.chosen else 1 - chance
        for item, chance in zip(items, of_first_side, strict=True)
    ]
    return first, {str(name): float(skill) for name, skill in model.skills_.items()}


def with_skills(annotators: dict[str, Any], skills: Mapping[str, float]) -> dict[str, Any]:
    """What `agreement.of_votes` found, with how often `reliabilities` finds each annotator to be right, if it did."""
    if not skills:
        return annotators
    people = annotators["annotators"].items()
    return {**annotators, "annotators": {name: {**each, "reliability": skills.get(name)} for name, each in people}}


def _sides(item: Votes) -> list[str]:
    """Both replies in an order that does not depend on that of the records."""
    return sorted((item.row.chosen or "", item.row.rejected or ""))
