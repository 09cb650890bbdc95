"""Advantage actor-critic: the actor-critic that PPO becomes without reuse and clipping."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Literal

from pydantic import Field

from prefzoo.interface import Bench, Policy
from prefzoo.registry import get
from prefzoo.zoo.online_bases import FromTokenRewards


@dataclass(frozen=True)
class A2C(FromTokenRewards):
    """Advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783): PPO with one epoch a rollout and
    nothing clipped, which is the same gradient (Huang et al. 2022, https://arxiv.org/abs/2205.09123). Every setting
    means what it does in `PPO`, and has the same default.

    Attributes:
        vf_coef: weight of the value loss. Default: PPO's.
        gamma, lam: discount, and trace decay of generalized advantage estimation. Default: PPO's.
        whiten_rewards: scale token rewards to variance 1. Default: PPO's.
        whiten_advantages: scale advantages to mean 0 and variance 1. Default: PPO's.
        value_model: `shared`, `separate`, `reward` or `frozen`; see PPO. Default: PPO's.
    """

    vf_coef: Annotated[float, Field(ge=0)] = 0.1
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    value_model: Literal["shared", "separate", "reward", "frozen"] = "shared"

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply by the policy, and by a critic that reads it too."""
        return (1 if self.value_model == "frozen" else 2) * self.generations

    def train(self, bench: Bench) -> Policy:
        own = {field.name: getattr(self, field.name) for field in fields(self)}
        return get("ppo", **own, epochs=1, minibatches=1, clip=None, clip_value=None).train(bench)
