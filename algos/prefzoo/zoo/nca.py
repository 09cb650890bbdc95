"""NCA: noise-contrastive alignment, which keeps chosen replies likely."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.pairwise import SMALL_BETA, NamedLoss


@dataclass(frozen=True)
class NCA(NamedLoss):
    """NCA: noise-contrastive alignment, which keeps chosen replies likely (Chen et al. 2024,
    https://arxiv.org/abs/2402.05369).

    With r = beta * log-ratio the loss of a pair is -log sigmoid(r of chosen) - (log sigmoid(-r of chosen) +
    log sigmoid(-r of rejected)) / 2.

    Attributes:
        beta: alpha in the paper. Default: Chen et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["nca_pair"]}
    space: ClassVar = {"beta": SMALL_BETA}

    beta: Annotated[float, Field(gt=0)] = 0.01
