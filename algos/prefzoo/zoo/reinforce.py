"""REINFORCE with a moving-average baseline."""

from __future__ import annotations

from dataclasses import dataclass

from prefzoo.interface import Bench, Policy
from prefzoo.zoo.online_bases import TokenRewarded


@dataclass(frozen=True)
class Reinforce(TokenRewarded):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) on whole replies: the advantage of every token is
    the reply's reward less its KL to the start, minus the average of all replies before it (Ahmadian et al. 2024,
    https://arxiv.org/abs/2402.14740).

    The settings are those of `TokenRewarded`. Advantages are not whitened: that would put the rollout's own mean in the
    place of the average.
    """

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply once."""
        return self.generations

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.on_policy import OnPolicyConfig, OnPolicyTrainer
        from prefzoo.trainers.online import fit_online

        return fit_online(
            bench,
            OnPolicyTrainer,
            OnPolicyConfig,
            {"beta": self.kl_coefficient, "loss_type": "dapo", "scale_rewards": "none", **self.trainer},
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            token_rewards=self.token_rewards(whiten_rewards=False, whiten_advantages=False),
        )
