"""LD-DPO: DPO that counts less what a reply has beyond the shorter one's length."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import DPO_BETA, NamedLoss


@dataclass(frozen=True)
class LDDPO(NamedLoss):
    """LD-DPO: DPO that counts less what a reply has beyond the shorter one's length (Liu et al. 2024,
    https://arxiv.org/abs/2409.06411).

    The loss is DPO's; tokens behind the length of the pair's shorter reply have their log-probabilities multiplied by
    `ld_alpha`.

    Attributes:
        ld_alpha: 1 is DPO, 0 leaves the longer reply's end out. Default: ours, midway.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid"]}
    space: ClassVar = {"beta": DPO_BETA, "ld_alpha": Range(0.0, 1.0, source="all that there is")}

    ld_alpha: Annotated[float, Field(ge=0, le=1)] = 0.5
