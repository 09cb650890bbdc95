"""f-DPO: DPO with another divergence than the reverse KL."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from prefzoo.zoo.pairwise import NamedLoss


@dataclass(frozen=True)
class FDPO(NamedLoss):
    """f-DPO: DPO with another divergence than the reverse KL (Wang et al. 2023, https://arxiv.org/abs/2309.16240).

    The loss of a pair is -log sigmoid(beta * (f'(chosen ratio) - f'(rejected ratio))), where a ratio is the policy's
    probability over the reference's, and f' the derivative of the divergence's function.

    Attributes:
        f_divergence_type: the divergence that the policy is held by. Default: ours, the one that is bounded.
        f_alpha_divergence_coef: alpha of the alpha divergence. Default: TRL's.
    """

    loss_settings: ClassVar = {"loss_type": ["sigmoid"]}

    f_divergence_type: Literal["forward_kl", "js_divergence", "alpha_divergence"] = "js_divergence"
    f_alpha_divergence_coef: float = 0.5
