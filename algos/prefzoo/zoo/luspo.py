"""Length-unbiased sequence policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.group_relative import CLIP_RANGE, ClippedLoss


@dataclass(frozen=True)
class LUSPO(ClippedLoss):
    """Length-unbiased sequence policy optimization (2026, https://arxiv.org/abs/2602.05261): GSPO in which a reply
    counts by its number of tokens, for GSPO's mean over them makes short replies weigh as much as long ones.

    Attributes:
        clip: how far the ratio may fall below 1. Default: its authors.
        clip_high: how far it may rise above 1. Default: its authors.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {
        "loss_type": "luspo",
        "importance_sampling_level": "sequence",
        "scale_rewards": "group",
    }
    space: ClassVar[Mapping[str, Range]] = {**ClippedLoss.space, "clip_high": CLIP_RANGE}

    clip: Annotated[float, Field(gt=0)] = 2e-3
    clip_high: Annotated[float, Field(gt=0)] | None = 2.5e-3
