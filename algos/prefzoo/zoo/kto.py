"""KTO: utility of single replies against a reference point."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from prefzoo.interface import Bench
from prefzoo.zoo.unpaired import Unpaired

if TYPE_CHECKING:
    from trl import KTOTrainer


@dataclass(frozen=True)
class KTO(Unpaired):
    """KTO: utility of single replies against a reference point (Ethayarajh et al. 2024,
    https://arxiv.org/abs/2402.01306).

    The loss of a liked reply is weight * (1 - sigmoid(beta * (log-ratio - z))), that of another one weight *
    (1 - sigmoid(beta * (z - log-ratio))). z, the mean KL to the reference, is estimated from the replies to other
    prompts of the batch, without a gradient.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Ethayarajh et al. 2024.
    """

    loss: ClassVar[str] = "kto"

    def trainer_class(self, bench: Bench) -> type[KTOTrainer]:
        from trl import KTOTrainer

        return KTOTrainer
