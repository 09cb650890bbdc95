"""Losses on pairs of which some are labelled the wrong way round, or with too much confidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, NamedLoss, PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch

SMOOTHING = Range(0.01, 0.3, log=True, source="ours: 0.1 in Chowdhury et al. 2024, and three to ten times either way")


@dataclass(frozen=True)
class CDPO(PairwiseLoss):
    """Conservative DPO: soft labels (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf).

    With m = beta * (chosen log-ratio - rejected log-ratio) the loss of a pair is -(1 - label_smoothing) * log
    sigmoid(m) - label_smoothing * log sigmoid(-m), which is least at a finite m.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Rafailov et al. 2023.
        label_smoothing: the share of labels believed to be wrong. Default: Mitchell 2023.
    """

    space: ClassVar = {"beta": DPO_BETA, "label_smoothing": SMOOTHING}

    beta: Annotated[float, Field(gt=0)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        margin = self.reward(chosen) - self.reward(rejected)
        right, wrong = self.log_sigmoid(margin), self.log_sigmoid(-margin)
        return -(1 - self.label_smoothing) * right - self.label_smoothing * wrong


@dataclass(frozen=True)
class RobustDPO(NamedLoss):
    """Robust DPO: the loss that wrong labels leave unbiased (Chowdhury et al. 2024, https://arxiv.org/abs/2403.00409).

    With m as in DPO the loss of a pair is (-(1 - e) * log sigmoid(m) + e * log sigmoid(-m)) / (1 - 2 e), where e is
    `label_smoothing`.

    Attributes:
        label_smoothing: the share of labels believed to be wrong. Default: Chowdhury et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["robust"]}
    space: ClassVar = {"beta": DPO_BETA, "label_smoothing": SMOOTHING}

    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.1


@dataclass(frozen=True)
class EXO(NamedLoss):
    """EXO: the reverse KL divergence from the labels (Ji et al. 2024, https://arxiv.org/abs/2402.00856).

    With q = sigmoid(beta * (chosen log-ratio - rejected log-ratio)) and e = `label_smoothing` the loss of a pair is
    q * log(q / (1 - e)) + (1 - q) * log((1 - q) / e).

    Attributes:
        label_smoothing: above 0, for a label of 1 has no such divergence. Default: Ji et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["exo_pair"]}
    space: ClassVar = {
        "beta": DPO_BETA,
        "label_smoothing": Range(1e-4, 0.1, log=True, source="ours, around the 1e-3 of Ji et al. 2024"),
    }

    label_smoothing: Annotated[float, Field(gt=0, lt=0.5)] = 1e-3
