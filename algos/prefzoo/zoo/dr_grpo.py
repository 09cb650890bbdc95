"""Dr. GRPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.group_relative import ClippedLoss


@dataclass(frozen=True)
class DrGRPO(ClippedLoss):
    """Dr. GRPO (Liu et al. 2025, https://arxiv.org/abs/2503.20783): GRPO without what favours short right and long
    wrong replies, and prompts whose replies score nearly alike. The advantage is the reward less the group's mean, not
    divided; token losses are summed and divided by replies x `generation.max_new_tokens`.

    The paper uses 8 generations.

    Attributes:
        minibatches: optimizer steps that a rollout is divided into. Default: ours.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "dr_grpo", "scale_rewards": "none"}

    minibatches: Annotated[int, Field(ge=1)] = 1
