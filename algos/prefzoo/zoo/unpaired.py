"""Algorithms that learn from single replies, each liked or not; both replies of a pair are two of them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range

if TYPE_CHECKING:
    from trl import KTOTrainer

BETA = Range(
    0.01, 0.5, log=True, source="0.01 to 0.1 in Ethayarajh et al. 2024, 0.01 in Jung et al. 2024; up to DPO's 0.5"
)


@dataclass(frozen=True)
class Unpaired(Algorithm):
    """Learns from replies that people liked, or did not, with TRL's KTOTrainer. An optimizer step takes two replies
    where other algorithms take a pair.

    Attributes:
        beta: how strongly the policy is held to the reference.
        desirable_weight: weight of the losses of liked replies; where neither weight is given, that of the rarer side
            is raised until both sides weigh the same. Default: Ethayarajh et al. 2024, equation 8 at its lower end.
        undesirable_weight: weight of the losses of replies that were not liked. Default: as for `desirable_weight`.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"unpaired"})
    family: ClassVar[str] = "single replies"
    config: ClassVar[str | None] = "trl.trainer.kto_config:KTOConfig"
    divisible: ClassVar[bool] = True
    owned: ClassVar[Mapping[str, str]] = {
        **{name: name for name in ("beta", "desirable_weight", "undesirable_weight")},
        "loss_type": "the loss is the algorithm's own",
        "train_sampling_strategy": "rows are shuffled beforehand, so that neighbours stay together",
    }
    space: ClassVar[Mapping[str, Range]] = {"beta": BETA}

    beta: Annotated[float, Field(gt=0)] = 0.1
    desirable_weight: Annotated[float, Field(gt=0)] | None = None
    undesirable_weight: Annotated[float, Field(gt=0)] | None = None

    loss: ClassVar[str]
    """Of TRL's losses; `apo_zero_unpaired` takes no passes for a KL."""

    @abstractmethod
    def trainer_class(self, bench: Bench) -> type[KTOTrainer]:
        """Return the trainer that computes the loss."""

    def train(self, bench: Bench) -> Policy:
        from trl import KTOConfig

        from prefzoo.trainers.fitting import fit
        from prefzoo.trainers.unpaired_trainer import single_replies

        rows, (liked, not_liked) = single_replies(bench, (self.desirable_weight, self.undesirable_weight))
        settings: dict[str, Any] = {"beta": self.beta, "desirable_weight": liked, "undesirable_weight": not_liked}
        settings |= {"loss_type": self.loss, **self.trainer}
        # KTO's KL takes a pass of the policy and one of the reference beside those of the loss itself.
        extra = 1 if self.loss == "kto" else 0
        passes: dict[str, Any] = {"reference": 1 + extra, "extra_passes": extra}
        return fit(bench, self.trainer_class(bench), KTOConfig, rows, settings, divisible=True, **passes)
