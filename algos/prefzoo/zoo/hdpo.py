"""H-DPO: DPO that says how much entropy the policy keeps."""

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
class HDPO(PairwiseLoss):
    """H-DPO: DPO that says how much entropy the policy keeps (Omura et al. 2024, https://arxiv.org/abs/2411.07595).

    The loss of a pair is -log sigmoid(beta * (alpha * (log-probability of chosen - that of rejected) - the reference's
    difference of the same)).

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Rafailov et al. 2023.
        alpha: below 1 the policy becomes sharper than DPO's, above 1 more diverse. Default: ours, a little below DPO's
            1.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "alpha": Range(0.8, 1.2, source="ours, around DPO's 1, to both sides as Omura et al. 2024 do"),
    }

    beta: Annotated[float, Field(gt=0)] = 0.1
    alpha: Annotated[float, Field(gt=0)] = 0.95

    def reward(self, replies: ReplyBatch) -> Tensor:
        return self.beta * (replies.log_ratios + (self.alpha - 1) * replies.log_probabilities)

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        return -self.log_sigmoid(self.reward(chosen) - self.reward(rejected))
