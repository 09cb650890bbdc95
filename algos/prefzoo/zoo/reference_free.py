"""Losses on pairs that compare the policy with no reference, so that none is loaded, computed or charged."""

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


@dataclass(frozen=True)
class SLiC(ReferenceFree):
    """SLiC-HF: a hinge between log-probabilities, beside imitation (Zhao et al. 2023,
    https://arxiv.org/abs/2305.10425).

    The loss of a pair is max(0, delta - log-probability of chosen + that of rejected) - weight * log-probability of
    chosen; the chosen replies are what is imitated.

    Attributes:
        delta: by how much the chosen reply should be the likelier one, in nats. Default: Zhao et al. 2023.
        weight: of the imitation, lambda in the paper. Default: ours, the least that Meng et al. 2024 searched.
    """

    space: ClassVar = {
        "delta": Range(0.5, 10.0, log=True, source="searched by Meng et al. 2024"),
        "weight": Range(
            0.01, 1.0, log=True, source="0.1 to 1 by Meng et al. 2024, and less for summed log-probabilities"
        ),
    }

    delta: Annotated[float, Field(gt=0)] = 1.0
    weight: Annotated[float, Field(ge=0)] = 0.1

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        ranked = (self.delta - chosen.log_probabilities + rejected.log_probabilities).relu()
        return ranked - self.weight * chosen.log_probabilities
