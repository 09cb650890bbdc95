"""Hyper-parameters that several online algorithms have, said once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm

ANOTHER = "what is sampled must be the distribution that is trained; `generation.temperature` sharpens both"
ROLLOUT = "a rollout is `training.batch_size` prompts"
REFERENCE = "the reference is the start, for every algorithm and throughout"
SAMPLED: Mapping[str, str] = {
    "beta": "kl_coefficient",
    "num_generations": "generations",
    "gradient_accumulation_steps": "say `training.accumulation`",
    "steps_per_generation": ROLLOUT,
    "generation_batch_size": ROLLOUT,
    "auto_find_batch_size": ROLLOUT,
    "max_completion_length": "say `generation.max_new_tokens`",
    "temperature": "say `generation.temperature`",
    "top_p": ANOTHER,
    "top_k": ANOTHER,
    "min_p": ANOTHER,
    "repetition_penalty": ANOTHER,
    "generation_kwargs": ANOTHER,
    "vllm_structured_outputs_regex": ANOTHER,
    "chat_template_kwargs": "prompts are written alike in training and in evaluation",
    "num_generations_eval": "policies are measured after training: say `evaluation`",
    "reward_weights": "there is one reward; its parts are weighed by `reward.of`",
    "sync_ref_model": REFERENCE,
    "ref_model_mixup_alpha": REFERENCE,
    "ref_model_sync_steps": REFERENCE,
}
"""What is set for every algorithm that samples, or would make another comparison of it; see `Algorithm.owned`.

Of a truncated distribution, or one that was changed otherwise, the log-probabilities that algorithms learn from are not
those of the sampled tokens. For what vLLM computes otherwise GRPOTrainer corrects (`vllm_importance_sampling_*`)."""
NO_TOOLS = {"max_tool_calling_iterations": "no tools are called"}
NOT_CLIPPED = dict.fromkeys(
    ("epsilon", "epsilon_high", "delta", "off_policy_mask_threshold"),
    "nothing is clipped: each rollout is learned from once, by the policy that it was drawn from",
)
OWN_LOSS = dict.fromkeys(
    (
        "loss_type",
        "importance_sampling_level",
        "sapo_temperature_neg",
        "sapo_temperature_pos",
        "vespo_k_pos",
        "vespo_lambda_pos",
        "vespo_k_neg",
        "vespo_lambda_neg",
        "use_liger_kernel",
    ),
    "the loss is the algorithm's own",
)


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
        kl_horizon: replies over which it adapts, by a fifth at most; a rollout of more counts as that many.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative.
        generations: replies to each prompt.

    `missing_eos_penalty` is that of `Sampling`.
    """

    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"
    owned: ClassVar[Mapping[str, str]] = {
        **SAMPLED,
        **NO_TOOLS,
        **NOT_CLIPPED,
        **OWN_LOSS,
        "num_iterations": "each rollout is learned from once",
        "scale_rewards": "advantages are the algorithm's own",
        "multi_objective_aggregation": "advantages are the algorithm's own",
        "use_bias_correction_kl": "the KL is in the reward of tokens",
        "mask_truncated_completions": "missing_eos_penalty",
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
        from prefzoo.trainers.on_policy import TokenRewards

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
