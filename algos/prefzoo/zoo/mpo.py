"""MPO: DPO, BCO on pairs and imitation, added up."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class MPO(NamedLoss):
    """MPO: DPO, BCO on pairs and imitation, added up (Wang et al. 2024, https://arxiv.org/abs/2411.10442).

    The loss is 0.8 times DPO's, 0.2 times that of `bco_pair` and once that of imitating the chosen replies. Other
    mixtures of TRL's losses: `algorithm: dpo` with a list as `loss_type`.

    Attributes:
        loss_weights: of the three, in this order. Default: Wang et al. 2024.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid", "bco_pair", "sft"]}

    loss_weights: tuple[float, float, float] = (0.8, 0.2, 1.0)
