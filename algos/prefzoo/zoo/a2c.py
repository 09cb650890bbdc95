"""Advantage actor-critic: the actor-critic that PPO becomes without reuse and clipping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.registry import get
from prefzoo.types import Range
from prefzoo.zoo.online_bases import KL_RANGE, TOKEN_REWARDS, check_kl_target


@dataclass(frozen=True)
class A2C(Algorithm):
    """Advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783): PPO with one epoch a rollout and
    nothing clipped, which is the same gradient (Huang et al. 2022, https://arxiv.org/abs/2205.09123). Every setting
    means what it does in `PPO`, and has the same default.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit. Default: PPO's.
        kl_coefficient: weight of the KL to the start in a token's reward; with `kl_target` its first value. Default:
            PPO's.
        kl_target: nats a reply that an adaptive coefficient aims at; None keeps it fixed. Default: PPO's.
        kl_horizon: replies over which it adapts, by a fifth at most. Default: PPO's.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative. Default: PPO's.
        generations: replies to each prompt. Default: PPO's.
        vf_coef: weight of the value loss. Default: PPO's.
        gamma, lam: discount, and trace decay of generalized advantage estimation. Default: PPO's.
        whiten_rewards: scale token rewards to variance 1. Default: PPO's.
        whiten_advantages: scale advantages to mean 0 and variance 1. Default: PPO's.
        value_model: `shared`, `separate` or `reward`; see PPO. Default: PPO's.
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
    vf_coef: Annotated[float, Field(ge=0)] = 0.1
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    value_model: Literal["shared", "separate", "reward"] = "shared"

    def __post_init__(self) -> None:
        check_kl_target(self.kl_target, self.kl_coefficient)

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply by the policy, and by a critic that is not a part of it."""
        return 2 * self.generations

    def train(self, bench: Bench) -> Policy:
        return get("ppo", **asdict(self), epochs=1, minibatches=1, clip=None, clip_value=None).train(bench)
