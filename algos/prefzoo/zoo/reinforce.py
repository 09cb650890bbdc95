"""REINFORCE with a moving-average baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range
from prefzoo.zoo.online_bases import KL_RANGE, TOKEN_REWARDS, check_kl_target


@dataclass(frozen=True)
class Reinforce(Algorithm):
    """REINFORCE (Williams 1992, https://doi.org/10.1007/BF00992696) on whole replies: the advantage of every token is
    the reply's reward less its KL to the start, minus the average of all replies before it (Ahmadian et al. 2024,
    https://arxiv.org/abs/2402.14740).

    Advantages are not whitened: that would put the rollout's own mean in the place of the average.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit. Default: ours, as of PPO.
        kl_coefficient: weight of the KL to the start in a token's reward; with `kl_target` its first value. Default:
            ours, as of PPO.
        kl_target: nats a reply that an adaptive coefficient aims at; None keeps it fixed. Default: ours, as of PPO.
        kl_horizon: replies over which it adapts, by a fifth at most; a rollout of more counts as that many.
            Default: Ziegler et al. 2019.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative. Default: ours, as of PPO.
        generations: replies to each prompt. Default: ours, as of PPO.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "policy gradient"
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"
    owned: ClassVar[Mapping[str, str]] = TOKEN_REWARDS
    space: ClassVar[Mapping[str, Range]] = {"kl_coefficient": KL_RANGE}

    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    kl_target: Annotated[float, Field(gt=0)] | None = None
    kl_horizon: Annotated[int, Field(gt=0)] = 10_000
    kl_estimator: Literal["k1", "k3"] = "k1"
    generations: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        check_kl_target(self.kl_target, self.kl_coefficient)

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply once."""
        return self.generations

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.on_policy import OnPolicyConfig, OnPolicyTrainer, TokenRewards
        from prefzoo.trainers.online import fit_online

        return fit_online(
            bench,
            OnPolicyTrainer,
            OnPolicyConfig,
            {"beta": self.kl_coefficient, "loss_type": "dapo", "scale_rewards": "none", **self.trainer},
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            token_rewards=TokenRewards(self.kl_coefficient, self.kl_target, self.kl_horizon, self.kl_estimator),
        )
