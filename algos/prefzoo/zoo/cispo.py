"""Clipped importance-sampling policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.group_relative import NamedLoss


@dataclass(frozen=True)
class CISPO(NamedLoss):
    """Clipped importance-sampling policy optimization (MiniMax 2025, https://arxiv.org/abs/2506.13585): REINFORCE with
    group-relative advantages, each token weighed by its probability ratio, which is cut at `largest_ratio` and held
    constant, so that no token loses its gradient; averaged over all tokens of an optimizer step.

    The paper uses 16 minibatches and does not say where ratios are cut.

    Attributes:
        largest_ratio: the largest weight of a token. Default: Khatri et al. 2025
            (https://arxiv.org/abs/2510.13786).
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "cispo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **NamedLoss.space,
        "largest_ratio": Range(1.2, 8.0, log=True, source="ours: from PPO's 1 + 0.2; 5 in Khatri et al. 2025"),
    }

    largest_ratio: Annotated[float, Field(gt=0)] = 5.0

    def particular(self) -> dict[str, Any]:
        return {"epsilon_high": self.largest_ratio}
