"""REINFORCE with a moving-average baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy


@dataclass(frozen=True)
class Reinforce(Algorithm):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) on whole replies: the advantage of every token is
    the reply's reward less its KL to the start, minus the average of all replies before it (Ahmadian et al. 2024,
    https://arxiv.org/abs/2402.14740).

    Attributes:
        kl_coefficient, kl_target, kl_horizon, kl_estimator, generations, missing_eos_penalty: as in `ppo`.
            Advantages are not whitened: that would put the rollout's own mean in the place of the average.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"

    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    kl_target: Annotated[float, Field(gt=0)] | None = None
    kl_horizon: Annotated[int, Field(gt=0)] = 10_000
    kl_estimator: Literal["k1", "k3"] = "k1"
    generations: Annotated[int, Field(ge=1)] = 1
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply once."""
        return self.generations

    def train(self, bench: Bench) -> Policy:
        from prefzoo.policies.on_policy import OnPolicyConfig, OnPolicyTrainer, TokenRewards
        from prefzoo.policies.online import fit_online

        return fit_online(
            bench,
            OnPolicyTrainer,
            OnPolicyConfig,
            {"beta": self.kl_coefficient, "loss_type": "dapo", "scale_rewards": "none", **self.trainer},
            generations=self.generations,
            forward_passes=2,
            token_rewards=TokenRewards(
                self.kl_coefficient,
                self.kl_target,
                self.kl_horizon,
                self.kl_estimator,
                self.missing_eos_penalty,
                whiten_rewards=False,
                whiten_advantages=False,
            ),
        )
