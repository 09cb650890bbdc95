"""Rewards made of rewards: weighted sums, and ensembles that are pessimistic where their members disagree."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from prefzoo.types import Prompt, Reward

Combine = Literal["mean", "min", "mean_minus_std"]


class WeightedSum:
    """The sum of several rewards, each times its weight.

    Args:
        parts: the rewards.
        weights: one for each, of either sign.
    """

    def __init__(self, parts: Sequence[Reward], weights: Sequence[float]) -> None:
        self.parts, self.weights = list(parts), list(weights)

    @property
    def flops(self) -> float:
        """Operations of all parts so far."""
        return sum(getattr(part, "flops", 0.0) for part in self.parts)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        columns = [part(prompts, completions) for part in self.parts]
        return [sum(w * s for w, s in zip(self.weights, row, strict=True)) for row in zip(*columns, strict=True)]

    def share_base(self, model: Any, path: str) -> None:
        """See `RewardModel.share_base`."""
        _share(self.parts, model, path)

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "sum", "of": [part.spec(folder) for part in self.parts], "weights": self.weights}


class Ensemble:
    """Several rewards for one and the same thing, as one (Coste et al. 2023, https://arxiv.org/abs/2310.02743).

    Args:
        members: the rewards.
        combine: `mean`; `min`, the worst case; `mean_minus_std`, the mean less `std_weight` standard deviations
            (over the members, not corrected for their number).
        std_weight: used by `mean_minus_std`.
    """

    def __init__(self, members: Sequence[Reward], combine: Combine, std_weight: float = 1.0) -> None:
        self.members, self.combine, self.std_weight = list(members), combine, std_weight

    @property
    def flops(self) -> float:
        """Operations of all members so far."""
        return sum(getattr(member, "flops", 0.0) for member in self.members)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        ways: dict[str, Callable[[Sequence[float]], float]] = {
            "mean": statistics.fmean,
            "min": min,
            "mean_minus_std": lambda row: statistics.fmean(row) - self.std_weight * statistics.pstdev(row),
        }
        columns = [member(prompts, completions) for member in self.members]
        return [ways[self.combine](row) for row in zip(*columns, strict=True)]

    def share_base(self, model: Any, path: str) -> None:
        """See `RewardModel.share_base`."""
        _share(self.members, model, path)

    def spec(self, folder: Path) -> dict[str, Any]:
        members = [member.spec(folder) for member in self.members]
        return {"type": "ensemble", "members": members, "combine": self.combine, "std_weight": self.std_weight}


def _share(rewards: Sequence[Reward], model: Any, path: str) -> None:
    for reward in rewards:
        if hasattr(reward, "share_base"):
            reward.share_base(model, path)
