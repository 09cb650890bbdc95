"""Conservative DPO: soft labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.pairwise import DPO_BETA, SMOOTHING, PairwiseLoss

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


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
