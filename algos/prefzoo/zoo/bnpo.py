"""GRPO with the loss averaged over all tokens of a forward pass, as many open implementations of PPO do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.group_relative import ClippedLoss


@dataclass(frozen=True)
class BNPO(ClippedLoss):
    """GRPO with the loss averaged over all tokens of a forward pass, as many open implementations of PPO do (Liu et al.
    2025, https://arxiv.org/abs/2503.20783): TRL's loss of that name. With
    `training.accumulation` or several generations a step has several passes, each with its own average; in one pass it
    is DAPO's average.

    It is not the Beta normalization of https://arxiv.org/abs/2506.02864, which has the same name and needs rewards of 0
    and 1.

    Attributes:
        kl_coefficient: weight of the KL to the start, in the loss. Default: TRL.
        minibatches: optimizer steps that a rollout is divided into. Default: TRL.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "bnpo", "scale_rewards": "group"}

    minibatches: Annotated[int, Field(ge=1)] = 1
