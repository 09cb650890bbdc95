"""DPO-Positive: DPO that pays for chosen replies that become less likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class DPOP(PairwiseLoss):
    """DPO-Positive: DPO that pays for chosen replies that become less likely (Pal et al. 2024,
    https://arxiv.org/abs/2402.13228).

    The loss of a pair is -log sigmoid(beta * (chosen log-ratio - rejected log-ratio - penalty * max(0, -chosen
    log-ratio))).

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Pal et al. 2024.
        penalty: lambda in the paper. Default: Pal et al. 2024.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "penalty": Range(5.0, 500.0, log=True, source="Pal et al. 2024, ten times either way of their 50"),
    }

    beta: Annotated[float, Field(gt=0)] = 0.3
    penalty: Annotated[float, Field(ge=0)] = 50.0

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        fallen = (-chosen.log_ratios).relu()
        return -self.log_sigmoid(self.beta * (chosen.log_ratios - rejected.log_ratios - self.penalty * fallen))
