"""DiscoPOP: a blend of logistic and exponential loss, found by search."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class DiscoPOP(NamedLoss):
    """DiscoPOP: a blend of logistic and exponential loss, found by search (Lu et al. 2024,
    https://arxiv.org/abs/2406.08414).

    With m = beta * (chosen log-ratio - rejected log-ratio) and s = sigmoid(m / discopop_tau) the loss of a pair is
    -(1 - s) * log sigmoid(m) + s * exp(-m). At the published `discopop_tau` it has a minimum at m = -0.12, to which the
    gradient points from the start, where m is 0; from 0.11 on it points the right way.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Lu et al. 2024.
        discopop_tau: how sharply one loss gives way to the other. Default: Lu et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["discopop"]}
    space: ClassVar = {
        "beta": Range(0.01, 0.5, log=True, source="Lu et al. 2024, around their 0.05"),
        "discopop_tau": Range(
            0.05, 1.0, log=True, source="ours, from Lu et al.'s 0.05 to where the loss is monotonous"
        ),
    }

    beta: Annotated[float, Field(gt=0)] = 0.05
    discopop_tau: Annotated[float, Field(gt=0)] = 0.05
