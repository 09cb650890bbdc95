"""REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy


@dataclass(frozen=True)
class RLOO(Algorithm):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740): a reply's advantage is its
    reward less its KL to the start, minus the mean of the other replies to the same prompt.

    Attributes:
        generations: replies to each prompt; the paper uses 2 and 4.
        kl_coefficient: weight of a reply's KL in its reward.
        epochs: how often each rollout is learned from.
        clip: how far the probability ratio may go from 1 before its gradient is cut, where a rollout is used again.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    config: ClassVar[str | None] = "trl.trainer.rloo_config:RLOOConfig"

    generations: Annotated[int, Field(ge=2)] = 4
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    epochs: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] = 0.2

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply in every pass over its rollout."""
        return self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from trl import RLOOConfig, RLOOTrainer

        from prefzoo.policies.online import fit_online

        return fit_online(
            bench,
            RLOOTrainer,
            RLOOConfig,
            {"beta": self.kl_coefficient, "epsilon": self.clip, **self.trainer},
            generations=self.generations,
            passes=self.epochs,
            forward_passes=2,
        )
