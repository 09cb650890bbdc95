"""Group relative policy optimization."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy


@dataclass(frozen=True)
class GRPO(Algorithm):
    """Group relative policy optimization (Shao et al. 2024, https://arxiv.org/abs/2402.03300): a reply's advantage is
    its reward relative to the other replies to the same prompt, in standard deviations; the KL is in the loss.

    Attributes:
        generations: replies to each prompt; the paper uses 64.
        kl_coefficient: weight of the KL to the start in the loss; the paper uses 0.04.
        epochs: how often each rollout is learned from.
        clip: how far the probability ratio may go from 1 before its gradient is cut.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"

    generations: Annotated[int, Field(ge=2)] = 4
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    epochs: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] = 0.2

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply in every pass over its rollout."""
        return self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from trl import GRPOConfig, GRPOTrainer

        from prefzoo.policies.online import fit_online

        return fit_online(
            bench,
            GRPOTrainer,
            GRPOConfig,
            {
                "beta": self.kl_coefficient,
                "epsilon": self.clip,
                "loss_type": "grpo",
                "scale_rewards": "group",
                **self.trainer,
            },
            generations=self.generations,
            passes=self.epochs,
        )
