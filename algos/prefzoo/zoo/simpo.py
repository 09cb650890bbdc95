"""SimPO: a margin between mean log-probabilities."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import ReferenceFree

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class SimPO(ReferenceFree):
    """SimPO: a margin between mean log-probabilities (Meng et al. 2024, https://arxiv.org/abs/2405.14734).

    The loss of a pair is -log sigmoid(beta * (mean of chosen - mean of rejected) - gamma), where the mean is that of
    the log-probabilities of a reply's tokens.

    Attributes:
        beta: what a mean log-probability is multiplied by; far above DPO's. Default: Meng et al. 2024, who used 2 and
            2.5 and have seen 10 do better.
        gamma_beta_ratio: gamma, by how much the chosen reply's reward should be the higher one, as a share of beta.
            Default: Meng et al. 2024, as a starting point.
    """

    space: ClassVar = {
        "beta": Range(2.0, 10.0, log=True, source="2 to 10 are Meng et al.'s advice"),
        "gamma_beta_ratio": Range(0.3, 1.0, source="Meng et al. 2024"),
    }

    beta: Annotated[float, Field(gt=0)] = 2.0
    gamma_beta_ratio: Annotated[float, Field(ge=0)] = 0.5

    def reward(self, replies: ReplyBatch) -> Tensor:
        return self.beta * replies.means

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        return -self.log_sigmoid(self.reward(chosen) - self.reward(rejected) - self.gamma_beta_ratio * self.beta)
