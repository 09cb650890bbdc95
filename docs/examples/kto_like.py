"""KTO (Ethayarajh et al. 2024, https://arxiv.org/abs/2402.01306): learns from good and bad replies, not from pairs."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

import prefzoo


@prefzoo.register("kto_like")
@dataclass(frozen=True)
class KTOLike(prefzoo.Algorithm):
    """TRL's KTO on both replies of each pair.

    Attributes:
        beta: how strongly the policy is held to the reference.
        undesirable_weight: weight of the losses of bad replies; that of good ones is 1.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    config: ClassVar[str] = "trl.trainer.kto_config:KTOConfig"
    owned: ClassVar[dict[str, str]] = {"beta": "beta", "undesirable_weight": "undesirable_weight"}

    beta: Annotated[float, Field(gt=0)] = 0.1
    undesirable_weight: Annotated[float, Field(gt=0)] = 1.0

    def train(self, bench: prefzoo.Bench) -> prefzoo.Policy:
        from trl import KTOConfig, KTOTrainer

        rows = bench.data.unpaired
        random.Random(bench.seed).shuffle(rows)  # TRL takes them in order, and a neighbour's reply for the KL
        settings = {"beta": self.beta, "undesirable_weight": self.undesirable_weight, **self.trainer}
        # The KL term takes a pass of the policy and one of the reference beside those of the loss itself.
        return prefzoo.fit(bench, KTOTrainer, KTOConfig, rows, settings, reference=2, extra_passes=1)
