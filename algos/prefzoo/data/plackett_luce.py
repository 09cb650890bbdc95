"""How good replies are, from several rankings of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

PRIOR = 0.01
"""What choix adds to every rate of its Markov chain: a reply that always wins has a finite strength, and where rankings
disagree the strengths move by about a percent."""
ROUNDS = 1000
DECIMALS = 3
"""Strengths that are the same to this many decimals are a tie; they are computed to more."""


def plackett_luce(rankings: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Plackett-Luce strengths (Luce 1959, Plackett 1975), fitted by choix's iterative Luce spectral ranking (Maystre
    and Grossglauser 2015, https://papers.nips.cc/paper/5681).

    A ranking is drawn place by place, each reply with probability proportional to the exponential of its strength
    among those that are left. A reply is so chosen over all that stand below it; of tied ones nothing is said.

    Args:
        rankings: for each the scores of its replies, higher is better; only their order counts.

    Returns:
        Strengths by reply, in groups within which they can be compared: two replies are in one group when a chain of
        rankings links them. They add up to 0 in each group.
    """
    import choix

    groups = []
    for members in _linked_groups(rankings):
        order = sorted(members)
        number = {reply: i for i, reply in enumerate(order)}
        wins = [
            (number[reply], tuple(number[other] for other in ranking if ranking[other] < ranking[reply]))
            for ranking in rankings
            for reply in ranking
            if reply in number and ranking[reply] > min(ranking.values())
        ]
        strengths = choix.ilsr_top1(len(order), wins, PRIOR, max_iter=ROUNDS) if wins else [0.0] * len(order)
        by_reply = dict(zip(order, strengths, strict=True))
        groups.append({reply: round(float(by_reply[reply]), DECIMALS) for reply in members})
    return groups


def _linked_groups(rankings: Sequence[Mapping[str, float]]) -> list[list[str]]:
    """Replies in groups that share no ranking; each in the order in which its replies came first."""
    groups: list[dict[str, None]] = []
    for ranking in rankings:
        linked = [group for group in groups if not group.keys().isdisjoint(ranking)]
        apart = [group for group in groups if group.keys().isdisjoint(ranking)]
        groups = [*apart, {reply: None for group in [*linked, ranking] for reply in group}]
    return [list(group) for group in groups]
