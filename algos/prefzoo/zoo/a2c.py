"""Advantage actor-critic: the actor-critic that PPO becomes without reuse and clipping."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from prefzoo.interface import Bench, Policy
from prefzoo.registry import get
from prefzoo.zoo.online_bases import ActorCritic


@dataclass(frozen=True)
class A2C(ActorCritic):
    """Advantage actor-critic (Mnih et al. 2016, https://arxiv.org/abs/1602.01783): PPO with one epoch a rollout and
    nothing clipped, which is the same gradient (Huang et al. 2022, https://arxiv.org/abs/2205.09123).

    The settings are those of `ActorCritic`.
    """

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply by the policy, and by a critic that is not a part of it."""
        return 2 * self.generations

    def train(self, bench: Bench) -> Policy:
        return get("ppo", **asdict(self), epochs=1, minibatches=1, clip=None, clip_value=None).train(bench)
