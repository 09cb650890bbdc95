"""ORPO: imitate the chosen reply, and raise its odds over the rejected one's."""

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
class ORPO(ReferenceFree):
    """ORPO: imitate the chosen reply, and raise its odds over the rejected one's (Hong et al. 2024,
    https://arxiv.org/abs/2403.07691).

    The loss of a pair is -(mean of chosen) - beta * log sigmoid(log odds of chosen - log odds of rejected), where the
    odds are p / (1 - p) with log p = mean of the log-probabilities of a reply's tokens. Only replies are imitated, not
    prompts.

    Attributes:
        beta: weight of the odds beside the imitation, lambda in the paper. Default: Hong et al. 2024 for a 7B model.
    """

    space: ClassVar = {"beta": Range(0.1, 2.0, log=True, source="searched by Meng et al. 2024")}

    beta: Annotated[float, Field(gt=0)] = 0.1

    def reward(self, replies: ReplyBatch) -> Tensor:
        return self.beta * replies.means

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        log_odds = [replies.means - (-replies.means.exp()).log1p() for replies in (chosen, rejected)]
        return -chosen.means - self.beta * self.log_sigmoid(log_odds[0] - log_odds[1])
