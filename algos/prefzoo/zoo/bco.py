"""BCO: a classifier of liked replies whose logit is the reward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Bench
from prefzoo.zoo.unpaired import Unpaired

if TYPE_CHECKING:
    from trl import KTOTrainer


@dataclass(frozen=True)
class BCO(Unpaired):
    """BCO: a classifier of liked replies whose logit is the reward (Jung et al. 2024,
    https://arxiv.org/abs/2404.04656).

    With r = beta * log-ratio the loss of a liked reply is -weight * log sigmoid(r - shift), that of another one -weight
    * log sigmoid(shift - r). The shift is half the mean r of liked replies so far plus half that of the others. The
    paper's density ratios between the prompts of both sides are left out.

    Attributes:
        beta: how strongly the policy is held to the reference. Default: Jung et al. 2024.
    """

    loss: ClassVar[str] = "apo_zero_unpaired"

    beta: Annotated[float, Field(gt=0)] = 0.01

    def trainer_class(self, bench: Bench) -> type[KTOTrainer]:
        from prefzoo.trainers.unpaired_trainer import bco_trainer

        return bco_trainer(bench)
