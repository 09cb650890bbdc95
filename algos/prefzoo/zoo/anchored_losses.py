"""Losses on pairs that say of each reply by itself where it should go, against the reference as anchor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss

SMALL_BETA = Range(0.01, 0.5, log=True, source="0.01 in the paper, up to DPO's, which short replies want")


@dataclass(frozen=True)
class APOZero(NamedLoss):
    """APO-zero: chosen replies up, rejected ones down (D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266).

    The loss of a pair is 1 - sigmoid(beta * chosen log-ratio) + sigmoid(beta * rejected log-ratio): for chosen replies
    that are better than the start's own.
    """

    loss_settings: ClassVar = {"loss_type": ["apo_zero"]}


@dataclass(frozen=True)
class APODown(NamedLoss):
    """APO-down: both replies down, rejected ones further (D'Oosterlinck et al. 2024, https://arxiv.org/abs/2408.06266).

    The loss of a pair is sigmoid(beta * chosen log-ratio) + 1 - sigmoid(beta * (chosen log-ratio - rejected
    log-ratio)): for chosen replies that are worse than the start's own.
    """

    loss_settings: ClassVar = {"loss_type": ["apo_down"]}


@dataclass(frozen=True)
class BCOPair(NamedLoss):
    """BCO on pairs: tell good from bad replies, without a shift (Jung et al. 2024, https://arxiv.org/abs/2404.04656).

    The loss of a pair is -log sigmoid(beta * chosen log-ratio) - log sigmoid(-beta * rejected log-ratio). `bco` is the
    paper's whole method, on single replies.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Jung et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["bco_pair"]}
    space: ClassVar = {"beta": SMALL_BETA}

    beta: Annotated[float, Field(gt=0)] = 0.01


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
