"""Published losses on GRPO's trainer with one probability ratio for a whole reply."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.group_relative import ClippedLoss, NamedLoss

CLIP_RANGE = Range(1e-4, 1e-2, log=True, source="ours: 4e-4 in Zheng et al. 2025, 2.5e-3 in LUSPO's paper")


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


@dataclass(frozen=True)
class VESPO(NamedLoss):
    """Variational sequence-level soft policy optimization (2026, https://arxiv.org/abs/2602.10693): REINFORCE with
    group-relative advantages, each reply weighed by exp(lambda) w^k exp(-lambda w), where w is the ratio of its
    probabilities now and when it was sampled, the product of its tokens'; the weight is 1 at w = 1 and held constant;
    averaged over all tokens of an optimizer step.

    Attributes:
        k_positive, k_negative: k where the advantage is not negative, and where it is: how fast replies fade that have
            become less likely. Default: its authors.
        lambda_positive, lambda_negative: lambda, likewise: how fast those fade that have become more likely. Default:
            its authors.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "vespo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **NamedLoss.space,
        "lambda_positive": Range(1.0, 4.0, source="ours: about the 3 of its authors"),
    }

    k_positive: Annotated[float, Field(ge=0)] = 2.0
    k_negative: Annotated[float, Field(ge=0)] = 3.0
    lambda_positive: Annotated[float, Field(gt=0)] = 3.0
    lambda_negative: Annotated[float, Field(gt=0)] = 2.0

    def particular(self) -> dict[str, Any]:
        return {
            "vespo_k_pos": self.k_positive,
            "vespo_k_neg": self.k_negative,
            "vespo_lambda_pos": self.lambda_positive,
            "vespo_lambda_neg": self.lambda_negative,
        }
