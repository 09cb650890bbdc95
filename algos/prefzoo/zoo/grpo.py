"""Group relative policy optimization."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from prefzoo.interface import Bench, Policy
from prefzoo.zoo.online_bases import NO_TOOLS, Grouped


@dataclass(frozen=True)
class GRPO(Grouped):
    """Group relative policy optimization (Shao et al. 2024, https://arxiv.org/abs/2402.03300): a reply's advantage is
    its reward relative to the other replies to the same prompt, in standard deviations; the KL is in the loss.

    The paper uses 64 generations and a KL coefficient of 0.04.
    """

    owned: ClassVar[Mapping[str, str]] = {**Grouped.owned, **NO_TOOLS}
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"

    def train(self, bench: Bench) -> Policy:
        from trl import GRPOConfig, GRPOTrainer

        from prefzoo.trainers.online import fit_online

        settings = {"beta": self.kl_coefficient, "epsilon": self.clip, "loss_type": "grpo", "scale_rewards": "group"}
        return fit_online(
            bench,
            GRPOTrainer,
            GRPOConfig,
            {**settings, **self.trainer},
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            passes=self.epochs,
            scored_anew=self.epochs > 1,  # TRL takes those of the first pass where there is only one
        )
