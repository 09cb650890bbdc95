"""CPO: DPO's contrast without its reference, beside imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, ReferenceFree

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class CPO(ReferenceFree):
    """CPO: DPO's contrast without its reference, beside imitation (Xu et al. 2024, https://arxiv.org/abs/2401.08417).

    The loss of a pair is -log sigmoid(beta * (log-probability of chosen - that of rejected)) - cpo_alpha * (mean
    log-probability of the chosen reply's tokens).

    Attributes:
        beta: what the log-probabilities are multiplied by. Default: Xu et al. 2024.
        cpo_alpha: weight of the imitation; 0 leaves the contrast alone. Default: Xu et al. 2024.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "cpo_alpha": Range(0.1, 1.0, log=True, source="ours, up to the 1 of Xu et al. 2024"),
    }

    beta: Annotated[float, Field(gt=0)] = 0.1
    cpo_alpha: Annotated[float, Field(ge=0)] = 1.0

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        return -self.log_sigmoid(self.reward(chosen) - self.reward(rejected)) - self.cpo_alpha * chosen.means
