"""Cal-DPO: DPO beside squared losses that fix the scale of rewards."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class CalDPO(PairwiseLoss):
    """Cal-DPO: DPO beside squared losses that fix the scale of rewards (Xiao et al. 2024,
    https://arxiv.org/abs/2412.14516).

    The loss of a pair is -log sigmoid(chosen log-ratio - rejected log-ratio) + (chosen log-ratio - 1 / (2 beta))^2 +
    (rejected log-ratio + 1 / (2 beta))^2.

    Attributes:
        beta: the target of a log-ratio is 1 / (2 beta). Default: the configuration that Xiao et al. 2024 published.
    """

    space: ClassVar = {
        "beta": Range(
            0.001, 0.1, log=True, source="Xiao et al. 2024, up to targets of a few nats, which short replies reach"
        )
    }

    beta: Annotated[float, Field(gt=0)] = 0.002

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        good, bad, target = chosen.log_ratios, rejected.log_ratios, 1 / (2 * self.beta)
        return -self.log_sigmoid(good - bad) + (good - target) ** 2 + (bad + target) ** 2
