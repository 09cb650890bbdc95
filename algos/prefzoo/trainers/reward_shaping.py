"""What online algorithms make of scores before they learn from them, and what they add to each reply's reward."""

from __future__ import annotations

import math
from typing import Any

from accelerate.utils import gather_object

from prefzoo.settings import RewardShaping, Shaping


def shaped(scores: list[float], shaping: Shaping, memory: dict[str, Any], learn: bool = True) -> list[float]:
    """Return scores normalized and clipped as `shaping` says. The running mean and variance of all scores so far, those
    of other processes included (Welford 1962), are kept in `memory`.

    Args:
        learn: whether these scores are among them; scores of what is no whole reply are not.
    """
    if shaping.normalize:
        count, mean, squares = memory.get("scores", (0, 0.0, 0.0))
        for score in gather_object(scores) if learn else ():  # in the order of the processes: all get the same numbers
            count += 1
            before = score - mean
            mean += before / count
            squares += before * (score - mean)
        if learn:
            memory["scores"] = (count, mean, squares)
        std = math.sqrt(squares / count) if squares > 0 else 1.0
        scores = [(score - mean) / std for score in scores]
    if shaping.clip is not None:
        scores = [min(max(score, -shaping.clip), shaping.clip) for score in scores]
    return scores


def length_terms(tokens: int, longest: int, shaping: RewardShaping) -> float:
    """Return what `length` and `overlong` take off the score of a reply.

    Args:
        tokens: of the reply, its end included.
        longest: tokens of a reply that is cut.
    """
    share = shaping.overlong * longest
    beyond = (tokens - (longest - share)) / share if share else 0.0
    return shaping.length * tokens + min(max(beyond, 0.0), 1.0)


def prefix_lengths(tokens: int, every: int) -> list[int]:
    """Return how many tokens of a reply the potential before each token is the score of: the multiples of `every`."""
    return [t // every * every for t in range(tokens)]
