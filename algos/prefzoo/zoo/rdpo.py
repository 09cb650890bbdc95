"""R-DPO: DPO with a penalty on length."""

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
class RDPO(PairwiseLoss):
    """R-DPO: DPO with a penalty on length (Park et al. 2024, https://arxiv.org/abs/2403.19159).

    The loss of a pair is -log sigmoid(beta * (chosen log-ratio - rejected log-ratio) + alpha * (length of chosen -
    length of rejected)): what a longer chosen reply has ahead by its length need not be learned.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Rafailov et al. 2023.
        alpha: the reward that a token more is worth in the data. Default: ours, the least that Meng et al. 2024
            searched.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "alpha": Range(
            0.005, 0.5, log=True, source="0.05 to 1 by Meng et al. 2024; ten times less, for short replies too"
        ),
    }

    beta: Annotated[float, Field(gt=0)] = 0.1
    alpha: Annotated[float, Field(ge=0)] = 0.05

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        margin = self.reward(chosen) - self.reward(rejected)
        return -self.log_sigmoid(margin + self.alpha * (chosen.lengths - rejected.lengths))
