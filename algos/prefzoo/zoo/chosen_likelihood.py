"""DPO beside a term that keeps the chosen replies likely, which DPO alone may not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, NamedLoss, PairwiseLoss

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


@dataclass(frozen=True)
class MPO(NamedLoss):
    """MPO: DPO, BCO on pairs and imitation, added up (Wang et al. 2024, https://arxiv.org/abs/2411.10442).

    The loss is 0.8 times DPO's, 0.2 times that of `bco_pair` and once that of imitating the chosen replies. Other
    mixtures of TRL's losses: `algorithm: dpo` with a list as `loss_type`.

    Attributes:
        loss_weights: of the three, in this order. Default: Wang et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid", "bco_pair", "sft"]}

    loss_weights: tuple[float, float, float] = (0.8, 0.2, 1.0)
