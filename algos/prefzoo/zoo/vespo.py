"""Variational sequence-level soft policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.group_relative import NamedLoss


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
