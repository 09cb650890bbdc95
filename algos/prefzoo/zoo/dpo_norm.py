"""Length-normalized DPO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class DPONorm(NamedLoss):
    """Length-normalized DPO (Lambert et al. 2024, https://arxiv.org/abs/2411.15124).

    The loss of a pair is -log sigmoid(beta * (chosen log-ratio / its tokens - rejected log-ratio / its tokens)).

    Attributes:
        beta: what a log-ratio a token is multiplied by; far above DPO's. Default: Lambert et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid_norm"]}
    space: ClassVar = {"beta": Range(2.0, 15.0, log=True, source="Lambert et al. 2024, around their 5")}

    beta: Annotated[float, Field(gt=0)] = 5.0
