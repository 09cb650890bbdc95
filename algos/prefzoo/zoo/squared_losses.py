"""Losses on pairs that pull log-ratios to a target and not as far as they go."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss, PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class IPO(NamedLoss):
    """IPO: a squared loss that stays finite where all labels agree (Azar et al. 2023,
    https://arxiv.org/abs/2310.12036).

    The loss of a pair is (chosen log-ratio / its tokens - rejected log-ratio / its tokens - 1 / (2 beta))^2; log-ratios
    are taken a token, as the paper's authors did.

    Attributes:
        beta: tau in the paper. Default: TRL's and DPO's; the paper searches it.
    """

    loss_settings: ClassVar = {"loss_type": ["ipo"]}
    space: ClassVar = {"beta": Range(0.01, 1.0, log=True, source="searched by Meng et al. 2024")}


@dataclass(frozen=True)
class SPPO(NamedLoss):
    """SPPO's hard-label loss on given pairs (Wu et al. 2024, https://arxiv.org/abs/2405.00675).

    The loss of a pair is (chosen log-ratio - 1 / (2 beta))^2 + (rejected log-ratio + 1 / (2 beta))^2. The paper plays
    against itself in rounds: `rlaif` with `learner: sppo` and `rounds` does that.

    Attributes:
        beta: 1 / eta of the paper; the target of a log-ratio is 1 / (2 beta). Default: Wu et al. 2024 (eta 1000).
    """

    loss_settings: ClassVar = {"loss_type": ["sppo_hard"]}
    space: ClassVar = {
        "beta": Range(
            0.001, 0.1, log=True, source="Wu et al. 2024, up to targets of a few nats, which short replies reach"
        )
    }

    beta: Annotated[float, Field(gt=0)] = 0.001


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
