"""Decoupled clip and dynamic sampling policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.settings import RewardShaping
from prefzoo.types import Range
from prefzoo.zoo.group_relative import ClippedLoss


class Overlong(RewardShaping):
    """Shaping in which long replies are punished unless the recipe says otherwise."""

    overlong: float = Field(0.2, ge=0, lt=1)


OVERLONG = Overlong()


@dataclass(frozen=True)
class DAPO(ClippedLoss):
    """Decoupled clip and dynamic sampling policy optimization (Yu et al. 2025, https://arxiv.org/abs/2503.14476): GRPO
    averaged over all tokens of an optimizer step, with more room above than below, no KL, and replies punished softly
    in the last fifth before the length limit.

    A cut reply loses 1, as with all online algorithms, by that punishment and not by `missing_eos_penalty`. Its dynamic
    sampling, which draws again for prompts whose replies score all alike, is left out: with scores that are real
    numbers there are hardly any. Its filter on cut replies is `trainer: {mask_truncated_completions: true}`. The paper
    uses 16 generations and 16 minibatches.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut. Default: Yu et al. 2025.
        shaping: what is added to the reward: a block with any of `length`, `overlong` (docs/rewards.md). Default: Yu et
            al. 2025, 4,096 of 20,480 tokens.
        clip: how far the probability ratio may fall below 1. Default: Yu et al. 2025.
        clip_high: how far it may rise above 1. Default: Yu et al. 2025.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "dapo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **ClippedLoss.space,
        "clip_high": Range(0.2, 0.4, source="ours: from PPO's to twice that; 0.28 in Yu et al. 2025"),
    }

    missing_eos_penalty: Annotated[float, Field(ge=0)] = 0.0
    shaping: Overlong = OVERLONG
    clip_high: Annotated[float, Field(gt=0)] | None = 0.28
