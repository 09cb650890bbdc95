"""Group sequence policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.group_relative import CLIP_RANGE, ClippedLoss


@dataclass(frozen=True)
class GSPO(ClippedLoss):
    """Group sequence policy optimization (Zheng et al. 2025, https://arxiv.org/abs/2507.18071): GRPO with one ratio a
    reply, the geometric mean of its tokens', which is clipped as a whole.

    The ratio of a whole reply leaves 1 much less than that of a token, hence the narrow clip. The paper uses 4
    minibatches.

    Attributes:
        clip: how far the ratio may fall below 1. Default: Zheng et al. 2025.
        clip_high: how far it may rise above 1. Default: Zheng et al. 2025.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {
        "loss_type": "grpo",
        "importance_sampling_level": "sequence",
        "scale_rewards": "group",
    }
    space: ClassVar[Mapping[str, Range]] = {**ClippedLoss.space, "clip_high": CLIP_RANGE}

    clip: Annotated[float, Field(gt=0)] = 3e-4
    clip_high: Annotated[float, Field(gt=0)] | None = 4e-4
