"""APO-down: both replies down, rejected ones further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class APODown(NamedLoss):
    """APO-down: both replies down, rejected ones further (D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266).

    The loss of a pair is sigmoid(beta * chosen log-ratio) + 1 - sigmoid(beta * (chosen log-ratio - rejected
    log-ratio)): for chosen replies that are worse than the start's own.
    """

    loss_settings: ClassVar = {"loss_type": ["apo_down"]}
