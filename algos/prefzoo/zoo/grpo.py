"""Group relative policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.zoo.group_relative import GroupRelative


@dataclass(frozen=True)
class GRPO(GroupRelative):
    """Group relative policy optimization (Shao et al. 2024, https://arxiv.org/abs/2402.03300): a reply's advantage is
    its reward relative to the other replies to the same prompt, in standard deviations; the loss is averaged over the
    tokens of each reply and then over replies; the KL is in the loss.

    The paper uses 64 generations and a KL coefficient of 0.04. TRL weighs the KL of a token with the probability ratio
    (DeepSeek-AI 2025, https://arxiv.org/abs/2512.02556); `trainer: {use_bias_correction_kl: false}` is the paper's.

    Attributes:
        clip: how far the probability ratio may go from 1 before its gradient is cut. Default: Schulman et al. 2017, of
            PPO.
    """

    owned: ClassVar[Mapping[str, str]] = {**GroupRelative.owned, "epsilon": "clip"}
    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "grpo", "scale_rewards": "group"}

    clip: Annotated[float, Field(gt=0)] = 0.2

    def particular(self) -> dict[str, Any]:
        return {"epsilon": self.clip}
