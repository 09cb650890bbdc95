"""IPO: a squared loss that stays finite where all labels agree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefzoo.types import Range
from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class IPO(NamedLoss):
    """IPO: a squared loss that stays finite where all labels agree (Azar et al. 2023,
    https://arxiv.org/abs/2310.12036).

    The loss of a pair is (chosen log-ratio / its tokens - rejected log-ratio / its tokens - 1 / (2 beta))^2; log-ratios
    are taken a token, as the paper's authors did.

    Attributes:
        beta: tau in the paper. Default: TRL's and DPO's; the paper searches it.
    """

    loss_settings: ClassVar = {"loss_type": ["ipo"]}
    space: ClassVar = {"beta": Range(0.01, 1.0, log=True, source="searched by Meng et al. 2024")}
