"""Which item an annotator is shown next, and with which probability."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

Rule = Literal["uniform", "uncertain", "disagreement"]
"""`uniform`: every item alike. `uncertain`: those of which the reward is least sure first. `disagreement`: those on
which annotators disagree first."""
RULES: tuple[Rule, ...] = get_args(Rule)
UNIFORM_SHARE = 0.1
"""Of draws by the other rules, this share is uniform: no item has probability 0, and estimates can be weighted."""
FIRST_SHARE = 0.1
"""The other draws are among this share of the items that are left, those that come first by the rule."""


@dataclass(frozen=True)
class Candidate:
    """An item that an annotator may be shown.

    Attributes:
        item_id: its id.
        uncertainty: of the reward, from 0 to 1; None where no reward scored it.
        others: the values of the live answers that other annotators gave.
    """

    item_id: str
    uncertainty: float | None
    others: Sequence[Mapping[str, Any]] = ()


def choose(candidates: Sequence[Candidate], rule: Rule, rng: random.Random) -> tuple[str, float]:
    """Draw one of the candidates; return its id and the probability with which it was drawn among them."""
    count = len(candidates)
    if rule == "uniform":
        return rng.choice(candidates).item_id, 1 / count
    scored = [(_score(candidate, rule), candidate.item_id) for candidate in candidates]
    least = sorted((score for score, _ in scored), reverse=True)[max(1, round(FIRST_SHARE * count)) - 1]
    first = {item_id for score, item_id in scored if score >= least and score > 0}  # all that are tied
    first = first or {item_id for _, item_id in scored}
    drawn = rng.choice(candidates).item_id if rng.random() < UNIFORM_SHARE else rng.choice(sorted(first))
    return drawn, UNIFORM_SHARE / count + (1 - UNIFORM_SHARE) / len(first) * (drawn in first)


def _score(candidate: Candidate, rule: Rule) -> float:
    if rule == "uncertain":
        return candidate.uncertainty or 0.0
    return disagreement(candidate.others)


def disagreement(values: Sequence[Mapping[str, Any]]) -> float:
    """How far answers to one item disagree, from 0 (not, or fewer than two) to 1.

    Of choices, and of the reply that is ranked best, the share of those that are not the most frequent; of ratings, the
    spread of their means over its largest.
    """
    if len(values) < 2:
        return 0.0
    if "ratings" in values[0]:
        means = [sum(value["ratings"].values()) / len(value["ratings"]) for value in values]
        return (max(means) - min(means)) / 10
    said = [value.get("choice", value.get("liked", _best(value))) for value in values]
    return 1 - Counter(map(str, said)).most_common(1)[0][1] / len(said)


def _best(value: Mapping[str, Any]) -> Any:
    ranks = value.get("ranks")
    return [i for i, rank in enumerate(ranks) if rank == min(ranks)] if ranks else None
