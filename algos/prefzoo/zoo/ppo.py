"""Proximal policy optimization with a learned critic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy


@dataclass(frozen=True)
class PPO(Algorithm):
    """Proximal policy optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) from a reward a reply and
    a KL penalty a token (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593).

    Defaults follow the implementation details of Huang et al. 2024 (https://arxiv.org/abs/2403.17031): one reply a
    prompt, gamma 1 and lambda 0.95, four epochs a rollout, policy and value clipped to 0.2, value coefficient 0.1,
    KL coefficient 0.05 by the log-ratio (k1), advantages whitened, a reply that did not end penalized by 1.

    Attributes:
        kl_coefficient: weight of the KL to the start in a token's reward; with `kl_target` its value at the beginning.
        kl_target: nats a reply that an adaptive coefficient aims at; None keeps it fixed.
        kl_horizon: replies over which it adapts.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative.
        epochs: how often each rollout is learned from.
        minibatches: optimizer steps that an epoch is divided into; a rollout is that many batches.
        generations: replies to each prompt.
        clip: how far the probability ratio may go from 1 before its gradient is cut; None does not clip.
        clip_value: how far a value may go from the one at rollout; None does not clip.
        vf_coef: weight of the value loss.
        gamma, lam: discount, and trace decay of generalized advantage estimation.
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit.
        whiten_rewards: scale token rewards to variance 1.
        whiten_advantages: scale advantages to mean 0 and variance 1.
        value_model: `shared`, an adapter of the critic's own on the policy's base; `separate`, a model of its own,
            trained whole (with full fine-tuning it always is).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"

    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    kl_target: Annotated[float, Field(gt=0)] | None = None
    kl_horizon: Annotated[int, Field(gt=0)] = 10_000
    kl_estimator: Literal["k1", "k3"] = "k1"
    epochs: Annotated[int, Field(ge=1)] = 4
    minibatches: Annotated[int, Field(ge=1)] = 1
    generations: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] | None = 0.2
    clip_value: Annotated[float, Field(gt=0)] | None = 0.2
    vf_coef: Annotated[float, Field(ge=0)] = 0.1
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    value_model: Literal["shared", "separate"] = "shared"

    def __post_init__(self) -> None:
        if self.kl_target is not None and self.kl_coefficient == 0:
            raise ValueError("kl_target adapts kl_coefficient, which must then be above 0")

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply, in every epoch, once by the policy and once by the critic."""
        return 2 * self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from prefzoo.policies.loading import load_model
        from prefzoo.policies.on_policy import ActorCriticTrainer, CriticSettings, OnPolicyConfig, TokenRewards
        from prefzoo.policies.online import fit_online

        whole = {
            **bench.loading,
            "quantization": None,
        }  # a model of its own is trained whole, which 4 bits do not allow
        separate = self.value_model == "separate" or bench.adapter.type == "full"
        return fit_online(
            bench,
            ActorCriticTrainer,
            OnPolicyConfig,
            {
                "beta": self.kl_coefficient,
                "epsilon": self.clip if self.clip is not None else float("inf"),
                "loss_type": "dapo",
                "scale_rewards": "none",
                **self.trainer,
            },
            generations=self.generations,
            passes=self.epochs,
            learners=2,
            rollout=self.minibatches,
            forward_passes=3,
            token_rewards=TokenRewards(
                self.kl_coefficient,
                self.kl_target,
                self.kl_horizon,
                self.kl_estimator,
                self.missing_eos_penalty,
                self.whiten_rewards,
                self.whiten_advantages,
            ),
            critic=CriticSettings(self.gamma, self.lam, self.vf_coef, self.clip_value),
            value_model=load_model(bench.start, **whole).base_model if separate else None,
        )
