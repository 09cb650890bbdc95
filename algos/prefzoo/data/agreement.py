"""Agreement between annotators, and intervals of shares."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from statistics import median
from typing import Any

from scipy import stats

from prefzoo.data.votes import Vote

Unit = Sequence[Any]
"""The judgements of one item by several annotators."""


def disagreements(judgements: Unit) -> float:
    """How many pairs of judgements differ."""
    return (len(judgements) ** 2 - sum(count**2 for count in Counter(judgements).values())) / 2


def squared_differences(judgements: Unit) -> float:
    """The squared differences of all pairs of numbers, summed."""
    mean = math.fsum(judgements) / len(judgements)
    return len(judgements) * math.fsum((judgement - mean) ** 2 for judgement in judgements)


def krippendorff_alpha(units: Sequence[Unit], distance: Callable[[Unit], float] = disagreements) -> float | None:
    """Krippendorff's alpha: 1 where annotators always agree, 0 where they agree as by chance, below 0 where less
    (Krippendorff 2004, "Content Analysis", chapter 11).

    Args:
        units: the judgements of each item; an item with one tells nothing of agreement and is left out.
        distance: summed over all pairs of judgements: `disagreements` of labels, `squared_differences` of numbers.

    Returns:
        None where no item has several judgements, or all judgements are the same, so that chance cannot be told.
    """
    units = [unit for unit in units if len(unit) > 1]
    judgements = [judgement for unit in units for judgement in unit]
    if not units or (expected := distance(judgements)) == 0:
        return None
    # Summed exactly, so that the order of the items does not even show in the last digit.
    return 1 - (len(judgements) - 1) * math.fsum(distance(unit) / (len(unit) - 1) for unit in units) / expected


def judgement_counts(units: Sequence[Unit]) -> dict[str, Any]:
    """`items`, `judgements` of them, `items_with_several` judgements, of which `disagreed` are those with two that
    differ; and `observed_agreement`, the share of two judgements of an item that are the same, averaged over items with
    several (None where there are none)."""
    several = [unit for unit in units if len(unit) > 1]
    same = [1 - 2 * disagreements(unit) / (len(unit) * (len(unit) - 1)) for unit in several]
    return {
        "items": len(units),
        "judgements": sum(map(len, units)),
        "items_with_several": len(several),
        "disagreed": sum(share < 1 for share in same),
        "observed_agreement": math.fsum(same) / len(same) if same else None,
    }


def vote_agreement(items: Sequence[Sequence[Vote]], skills: Mapping[str, float] | None = None) -> dict[str, Any]:
    """Agreement on which of two replies is better.

    Args:
        items: the votes on each pair of replies.
        skills: how often each annotator is right, where the rule `reliability` found that.

    Returns:
        `judgement_counts`; `ties`, the votes for neither; `alpha`; and `annotators`: for each who is named
        `judgements`; `compared`, how many of them say which reply is better where most of the others say it too;
        `agreed`, how many of those say the same as most of the others (an annotator's own vote is never part of what it
        is compared with); and with `skills` its `reliability`.
    """
    units = [[vote.choice for vote in item] for item in items]
    # Which reply is called the first is arbitrary: counted once each way, neither is the likelier by chance.
    turned = [[None if choice is None else 1 - choice for choice in unit] for unit in units]
    people: dict[str, dict[str, Any]] = {}
    for item in items:
        for vote in item:
            if vote.annotator is None:
                continue
            own = people.setdefault(vote.annotator, {"judgements": 0, "compared": 0, "agreed": 0})
            own["judgements"] += 1
            others = [other.choice for other in item if other.annotator != vote.annotator]
            lead = others.count(0) - others.count(1)
            if vote.choice is not None and lead != 0:
                own["compared"] += 1
                own["agreed"] += vote.choice == (0 if lead > 0 else 1)
    if skills:
        people = {name: {**own, "reliability": skills.get(name)} for name, own in people.items()}
    return {
        **judgement_counts(units),
        "ties": sum(unit.count(None) for unit in units),
        "alpha": krippendorff_alpha([*units, *turned]),
        "annotators": dict(sorted(people.items())),
    }


def with_seconds(agreement: Mapping[str, Any], took: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """An agreement with how long a judgement took: `median_seconds` of all, and of each annotator who is in it.

    Args:
        took: by annotator the seconds of each judgement.
    """
    people = {
        name: {**own, **({"median_seconds": median(took[name])} if name in took else {})}
        for name, own in agreement.get("annotators", {}).items()
    }
    every = median(seconds for own in took.values() for seconds in own)
    return {**agreement, "median_seconds": every, **({"annotators": people} if people else {})}


def rating_agreement(replies: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Agreement on how good each reply is: `judgement_counts`, and `alpha` of squared differences."""
    return {**judgement_counts(replies), "alpha": krippendorff_alpha(replies, squared_differences)}


def clustered_wilson(values: Sequence[float], clusters: Sequence[Hashable]) -> tuple[float, float]:
    """Wilson's 95% interval of the mean of values from 0 to 1, of which those of one cluster (of one prompt, or of a
    group of prompts) are not independent.

    It is that of as many independent values as would vary as much (Kish 1965): their number, divided by how much larger
    the variance between clusters makes that of the mean, and with Student's t of the clusters in the place of 1.96.
    Where every value is a cluster it is Wilson's.
    """
    share, count = math.fsum(values) / len(values), len(values)
    excess: dict[Hashable, float] = {}
    for value, cluster in zip(values, clusters, strict=True):
        excess[cluster] = excess.get(cluster, 0.0) + value - share
    k = len(excess)
    if k == count:
        return wilson(share, count)
    if k == 1:
        return 0.0, 1.0
    alone = math.fsum((value - share) ** 2 for value in values) / (count - 1) * count
    together = math.fsum(each**2 for each in excess.values()) / (k - 1) * k
    effective = count / max(1.0, together / alone) if alone else k
    quantiles = stats.norm.ppf(0.975) / stats.t.ppf(0.975, k - 1) if alone else 1.0
    return wilson(share, effective * float(quantiles) ** 2)


def wilson(share: float, count: float) -> tuple[float, float]:
    """Wilson's 95% interval of a share (Wilson 1927)."""
    z = float(stats.norm.ppf(0.975))
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    # The share lies within; at 0 and 1 rounding would leave it outside by a hair, which no error bar can be drawn of.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
