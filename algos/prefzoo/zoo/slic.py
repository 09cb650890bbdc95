"""SLiC-HF: a hinge between log-probabilities, beside imitation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.types import Range
from prefzoo.zoo.pairwise import ReferenceFree

if TYPE_CHECKING:
    from torch import Tensor

    from prefzoo.trainers.pairwise_trainer import ReplyBatch


@dataclass(frozen=True)
class SLiC(ReferenceFree):
    """SLiC-HF: a hinge between log-probabilities, beside imitation (Zhao et al. 2023,
    https://arxiv.org/abs/2305.10425).

    The loss of a pair is max(0, delta - log-probability of chosen + that of rejected) - weight * log-probability of
    chosen; the chosen replies are what is imitated.

    Attributes:
        delta: by how much the chosen reply should be the likelier one, in nats. Default: Zhao et al. 2023.
        weight: of the imitation, lambda in the paper. Default: ours, the least that Meng et al. 2024 searched.
    """

    space: ClassVar = {
        "delta": Range(0.5, 10.0, log=True, source="searched by Meng et al. 2024"),
        "weight": Range(
            0.01, 1.0, log=True, source="0.1 to 1 by Meng et al. 2024, and less for summed log-probabilities"
        ),
    }

    delta: Annotated[float, Field(gt=0)] = 1.0
    weight: Annotated[float, Field(ge=0)] = 0.1

    def loss(self, chosen: ReplyBatch, rejected: ReplyBatch) -> Tensor:
        ranked = (self.delta - chosen.log_probabilities + rejected.log_probabilities).relu()
        return ranked - self.weight * chosen.log_probabilities
