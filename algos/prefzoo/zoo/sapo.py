"""Soft adaptive policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.group_relative import NamedLoss


@dataclass(frozen=True)
class SAPO(NamedLoss):
    """Soft adaptive policy optimization (Gao et al. 2025, https://arxiv.org/abs/2511.20347): in the place of clipping,
    4 / tau sigmoid(tau (ratio - 1)) times the advantage, tau being `temperature_positive` or `temperature_negative` by
    the sign of the advantage; averaged as GRPO.

    The paper uses 4 minibatches.

    Attributes:
        temperature_positive: tau where the advantage is above 0. Default: Gao et al. 2025.
        temperature_negative: tau elsewhere; the larger, the faster gradients fade away from 1. Default: Gao et al.
            2025.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "sapo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **NamedLoss.space,
        "temperature_negative": Range(1.0, 2.0, source="ours: from as fast as the positive one's; 1.05 in Gao et al."),
    }

    temperature_positive: Annotated[float, Field(gt=0)] = 1.0
    temperature_negative: Annotated[float, Field(gt=0)] = 1.05

    def particular(self) -> dict[str, Any]:
        return {
            "sapo_temperature_pos": self.temperature_positive,
            "sapo_temperature_neg": self.temperature_negative,
        }
