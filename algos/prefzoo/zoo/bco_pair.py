"""BCO on pairs: tell good from bad replies, without a shift."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.zoo.pairwise import SMALL_BETA, NamedLoss


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
