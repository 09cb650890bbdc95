"""How far annotators agree with each other."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from prefzoo.data.votes import Vote

Unit = Sequence[Any]
"""What each of several annotators said of one item."""


def different(said: Unit) -> float:
    """How many pairs of judgements are not the same."""
    return (len(said) ** 2 - sum(count**2 for count in Counter(said).values())) / 2


def squared(said: Unit) -> float:
    """The squared differences of all pairs of numbers, summed."""
    mean = math.fsum(said) / len(said)
    return len(said) * math.fsum((each - mean) ** 2 for each in said)


def alpha(units: Sequence[Unit], apart: Callable[[Unit], float] = different) -> float | None:
    """Krippendorff's alpha: 1 where annotators always agree, 0 where they agree as by chance, below 0 where less
    (Krippendorff 2004, "Content Analysis", chapter 11).

    Args:
        units: what was said of each item; an item with one judgement tells nothing of agreement and is left out.
        apart: how far judgements are apart, summed over all pairs of them: `different` of labels, `squared` of numbers.

    Returns:
        None where no item has several judgements, or all judgements are the same, so that chance cannot be told.
    """
    units = [unit for unit in units if len(unit) > 1]
    every = [each for unit in units for each in unit]
    if not units or (expected := apart(every)) == 0:
        return None
    # Summed exactly, so that the order of the items does not even show in the last digit.
    return 1 - (len(every) - 1) * math.fsum(apart(unit) / (len(unit) - 1) for unit in units) / expected


def counts(units: Sequence[Unit]) -> dict[str, Any]:
    """`items`, `judgements` of them, `items_with_several` judgements, of which `disagreed` are those with two that
    differ; and `observed_agreement`, the share of two judgements of an item that are the same, averaged over items with
    several (None where there are none)."""
    several = [unit for unit in units if len(unit) > 1]
    same = [1 - 2 * different(unit) / (len(unit) * (len(unit) - 1)) for unit in several]
    return {
        "items": len(units),
        "judgements": sum(map(len, units)),
        "items_with_several": len(several),
        "disagreed": sum(share < 1 for share in same),
        "observed_agreement": math.fsum(same) / len(same) if same else None,
    }


def of_votes(items: Sequence[Sequence[Vote]]) -> dict[str, Any]:
    """Agreement on which of two replies is better.

    Args:
        items: the votes on each pair of replies.

    Returns:
        `counts`; `ties`, the votes for neither; `alpha`; and `annotators`: for each who is named `judgements`;
        `compared`, how many of them say which reply is better where most of the others say it too; `agreed`, how many
        of those say the same as most of the others. An annotator's own vote is never part of what it is compared with.
    """
    units = [[vote.choice for vote in item] for item in items]
    # Which reply is called the first is arbitrary: counted once each way, neither is the likelier by chance.
    turned = [[None if choice is None else 1 - choice for choice in unit] for unit in units]
    ties = sum(choice is None for unit in units for choice in unit)
    found = {**counts(units), "ties": ties, "alpha": alpha([*units, *turned])}
    people: dict[str, dict[str, int]] = {}
    for item in items:
        for vote in item:
            if vote.annotator is None:
                continue
            mine = people.setdefault(vote.annotator, {"judgements": 0, "compared": 0, "agreed": 0})
            mine["judgements"] += 1
            others = [each.choice for each in item if each.annotator != vote.annotator]
            lead = others.count(0) - others.count(1)
            if vote.choice is not None and lead != 0:
                mine["compared"] += 1
                mine["agreed"] += vote.choice == (0 if lead > 0 else 1)
    return {**found, "annotators": dict(sorted(people.items()))}


def of_ratings(replies: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Agreement on how good each reply is: `counts`, and `alpha` of squared differences."""
    return {**counts(replies), "alpha": alpha(replies, squared)}
