"""WPO: DPO on pairs weighted by how likely the policy would write them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class WPO(NamedLoss):
    """WPO: DPO on pairs weighted by how likely the policy would write them (Zhou et al. 2024,
    https://arxiv.org/abs/2406.11827).

    The loss of a pair is DPO's, multiplied by both replies' probability a token under the policy, where that of the
    policy's own samples counts as 1.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Zhou et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid"], "use_weighting": True}
    space: ClassVar = {"beta": Range(0.01, 0.5, log=True, source="0.01 in Zhou et al. 2024, up to DPO's")}

    beta: Annotated[float, Field(gt=0)] = 0.01
