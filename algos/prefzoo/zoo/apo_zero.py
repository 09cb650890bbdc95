"""APO-zero: chosen replies up, rejected ones down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class APOZero(NamedLoss):
    """APO-zero: chosen replies up, rejected ones down (D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266).

    The loss of a pair is 1 - sigmoid(beta * chosen log-ratio) + sigmoid(beta * rejected log-ratio): for chosen replies
    that are better than the start's own.
    """

    loss_settings: ClassVar = {"loss_type": ["apo_zero"]}
