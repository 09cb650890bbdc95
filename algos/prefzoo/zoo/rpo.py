"""RPO: DPO beside imitation of the chosen reply."""

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
class RPO(PairwiseLoss):
    """RPO: DPO beside imitation of the chosen reply (Pang et al. 2024, https://arxiv.org/abs/2404.19733).

    The loss of a pair is -log sigmoid(beta * (chosen log-ratio - rejected log-ratio)) - alpha * mean log-probability of
    the chosen reply's tokens. The paper samples pairs anew in rounds; this is its loss on given ones.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Pang et al. 2024.
        alpha: weight of the imitation. Default: Pang et al. 2024.
    """

    space: ClassVar = {
        "beta": DPO_BETA,
        "alpha": Range(0.1, 2.0, log=True, source="Pang et al. 2024 search 0.25 to 2"),
    }

    beta: Annotated[float, Field(gt=0)] = 0.1
    alpha: Annotated[float, Field(ge=0)] = 1.0

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        return -self.log_sigmoid(self.reward(chosen) - self.reward(rejected)) - self.alpha * chosen.means
