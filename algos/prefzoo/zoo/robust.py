"""Robust DPO: the loss that wrong labels leave unbiased."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.pairwise import DPO_BETA, SMOOTHING, NamedLoss


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
