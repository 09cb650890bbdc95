"""REINFORCE with a moving-average baseline."""

from __future__ import annotations

from dataclasses import dataclass

from prefzoo.interface import Bench, Policy
from prefzoo.zoo.online_bases import FromTokenRewards, check_whole_replies


@dataclass(frozen=True)
class Reinforce(FromTokenRewards):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) on whole replies: the advantage of every token is
    the reply's reward less its KL to the start, minus the average of all replies before it (Ahmadian et al. 2024,
    https://arxiv.org/abs/2402.14740).

    Advantages are not whitened: that would put the rollout's own mean in the place of the average.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        check_whole_replies(self.shaping)

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply once."""
        return self.generations

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.on_policy import OnPolicyTrainer

        return self.learn(bench, OnPolicyTrainer, {})
