"""Hyper-parameters that several online algorithms have, said once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm

SAMPLED: Mapping[str, str] = {
    "beta": "kl_coefficient",
    "num_generations": "generations",
    "gradient_accumulation_steps": "say `training.accumulation`",
    "steps_per_generation": "a rollout is `training.batch_size` prompts",
    "generation_batch_size": "a rollout is `training.batch_size` prompts",
    "max_completion_length": "say `generation.max_new_tokens`",
    "temperature": "say `generation.temperature`",
    "top_p": "truncated sampling is another distribution than the one that is trained",
    "top_k": "truncated sampling is another distribution than the one that is trained",
}
"""What is set for every algorithm that samples; see `Algorithm.owned`."""


@dataclass(frozen=True)
class Sampling(Algorithm):
    """Learns from the reward of its own replies.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit, after `reward.normalize`
            and `reward.clip`; the same default for all of them, so that they are compared on one reward.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})

    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0


@dataclass(frozen=True)
class TokenRewarded(Sampling):
    """Learns from a reward a reply and a KL penalty a token (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593).

    Attributes:
        kl_coefficient: weight of the KL to the start in a token's reward; with `kl_target` its value at the beginning.
        kl_target: nats a reply that an adaptive coefficient aims at; None keeps it fixed.
        kl_horizon: replies over which it adapts.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative.
        generations: replies to each prompt.

    `missing_eos_penalty` is that of `Sampling`.
    """

    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"
    owned: ClassVar[Mapping[str, str]] = {
        **SAMPLED,
        "num_iterations": "each rollout is learned from once",
        "epsilon": "nothing is clipped",
        "loss_type": "the loss is the algorithm's own",
        "scale_rewards": "advantages are the algorithm's own",
    }

    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    kl_target: Annotated[float, Field(gt=0)] | None = None
    kl_horizon: Annotated[int, Field(gt=0)] = 10_000
    kl_estimator: Literal["k1", "k3"] = "k1"
    generations: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.kl_target is not None and self.kl_coefficient == 0:
            raise ValueError("kl_target adapts kl_coefficient, which must then be above 0")

    def token_rewards(self, whiten_rewards: bool, whiten_advantages: bool) -> Any:
        """The trainer's `TokenRewards`."""
        from prefzoo.policies.on_policy import TokenRewards

        return TokenRewards(
            self.kl_coefficient,
            self.kl_target,
            self.kl_horizon,
            self.kl_estimator,
            whiten_rewards,
            whiten_advantages,
        )


@dataclass(frozen=True)
class ActorCritic(TokenRewarded):
    """Learns from the advantages of tokens, which a critic estimates.

    Attributes:
        vf_coef: weight of the value loss.
        gamma, lam: discount, and trace decay of generalized advantage estimation.
        whiten_rewards: scale token rewards to variance 1.
        whiten_advantages: scale advantages to mean 0 and variance 1.
        value_model: `shared`, an adapter of the critic's own on the policy's base; `separate`, a model of its own,
            trained whole (with full fine-tuning it always is); `reward`, the same, that begins as the reward model.
    """

    vf_coef: Annotated[float, Field(ge=0)] = 0.1
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    value_model: Literal["shared", "separate", "reward"] = "shared"


@dataclass(frozen=True)
class Grouped(Sampling):
    """Compares a reply with the other replies to the same prompt.

    Attributes:
        generations: replies to each prompt.
        kl_coefficient: weight of the KL to the start.
        epochs: how often each rollout is learned from.
        clip: how far the probability ratio may go from 1 before its gradient is cut.

    `missing_eos_penalty` is that of `Sampling`.
    """

    owned: ClassVar[Mapping[str, str]] = {**SAMPLED, "num_iterations": "epochs", "epsilon": "clip"}

    generations: Annotated[int, Field(ge=2)] = 4
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    epochs: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] = 0.2

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply in every pass over its rollout."""
        return self.generations * self.epochs
