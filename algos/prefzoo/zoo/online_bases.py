"""What algorithms that learn from their own samples share: which trainer fields a recipe may not set for them, and the
base classes of those that compare a reply with the others to its prompt and of those with a reward for each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from prefzoo.interface import Algorithm, Bench
from prefzoo.settings import NO_SHAPING, RewardShaping
from prefzoo.types import Range

CHANGES_DISTRIBUTION = (
    "what is sampled must be the distribution that is trained; `generation.temperature` sharpens both"
)
ROLLOUT = "a rollout is `training.batch_size` prompts"
REFERENCE = "the reference is the start, for every algorithm and throughout; `reference_decay` of ppo is the exception"
ONLINE_MANAGED_FIELDS: Mapping[str, str] = {
    "beta": "kl_coefficient",
    "num_generations": "generations",
    "gradient_accumulation_steps": "say `training.accumulation`",
    "steps_per_generation": ROLLOUT,
    "generation_batch_size": ROLLOUT,
    "auto_find_batch_size": ROLLOUT,
    "max_completion_length": "say `generation.max_new_tokens`",
    "temperature": "say `generation.temperature`",
    "top_p": CHANGES_DISTRIBUTION,
    "top_k": CHANGES_DISTRIBUTION,
    "min_p": CHANGES_DISTRIBUTION,
    "repetition_penalty": CHANGES_DISTRIBUTION,
    "generation_kwargs": CHANGES_DISTRIBUTION,
    "vllm_structured_outputs_regex": CHANGES_DISTRIBUTION,
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
CLIPPING_FIELDS = dict.fromkeys(
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
TOKEN_REWARDS: Mapping[str, str] = {
    **ONLINE_MANAGED_FIELDS,
    **NO_TOOLS,
    **CLIPPING_FIELDS,
    **OWN_LOSS,
    "num_iterations": "each rollout is learned from once",
    "scale_rewards": "advantages are the algorithm's own",
    "multi_objective_aggregation": "advantages are the algorithm's own",
    "use_bias_correction_kl": "the KL is in the reward of tokens",
    "mask_truncated_completions": "missing_eos_penalty",
}
"""`Algorithm.owned` of REINFORCE and A2C, which learn from a reward for each token."""


KL_RANGE = Range(
    0.01,
    0.5,
    log=True,
    source="0.02 in Ouyang et al. 2022, 0.04 in Shao et al. 2024, 0.05 in Huang et al. 2024; up to ten times that, for "
    "rewards that are easily hacked",
)
"""What tuning tries of the weight of the KL to the start."""


def check_kl_target(kl_target: float | None, kl_coefficient: float) -> None:
    """Refuse a target for a coefficient of 0, which nothing multiplies away from 0."""
    if kl_target is not None and kl_coefficient == 0:
        raise ValueError("kl_target adapts kl_coefficient, which must then be above 0")


def check_whole_replies(shaping: RewardShaping) -> None:
    """Refuse a potential where whole replies are learned from: it adds the same to each reply to a prompt."""
    if shaping.potential is not None:
        raise ValueError(
            f"shaping.potential: {shaping.potential!r} adds up to the same for every reply to a prompt, and this "
            "algorithm learns from whole replies. Allowed in ppo, a2c, reinforce_plus_plus"
        )


def entropy_bonus(weight: float) -> dict[str, float]:
    """Return the field of TRL's config for it; nothing at 0, where `trainer:` may have set it."""
    return {"entropy_coef": weight} if weight else {}


@dataclass(frozen=True)
class Grouped(Algorithm):
    """Compares a reply with the other replies to the same prompt.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit, after `reward.normalize`
            and `reward.clip`; the same default for all online algorithms, so that they are compared on one reward.
            Default: Huang et al. 2024, of PPO.
        shaping: what is added to the reward: a block with any of `length`, `overlong` (docs/rewards.md). Default: ours,
            nothing.
        generations: replies to each prompt. Default: ours, for the least cost.
        kl_coefficient: weight of the KL to the start. Default: ours, as of PPO.
        epochs: how often each rollout is learned from. Default: Shao et al. 2024 and Ahmadian et al. 2024.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "policy gradient"
    divisible: ClassVar[bool] = True
    owned: ClassVar[Mapping[str, str]] = {**ONLINE_MANAGED_FIELDS, "num_iterations": "epochs"}
    space: ClassVar[Mapping[str, Range]] = {"kl_coefficient": KL_RANGE}

    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    shaping: RewardShaping = NO_SHAPING
    generations: Annotated[int, Field(ge=2)] = 4
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    epochs: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        check_whole_replies(self.shaping)

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply in every pass over its rollout."""
        return self.generations * self.epochs


@dataclass(frozen=True)
class FromTokenRewards(Algorithm):
    """Learns from a reward for each token: minus its KL to the start, and the reply's score at its last token.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit, after `reward.normalize`
            and `reward.clip`; the same default for all online algorithms, so that they are compared on one reward.
            Default: Huang et al. 2024, of PPO.
        shaping: what is added to the reward: a block with any of `length`, `overlong`, `potential`, `every`
            (docs/rewards.md). Default: Huang et al. 2024, of PPO, who add nothing.
        kl_coefficient: weight of the KL to the start in a token's reward; with `kl_target` its first value. Default:
            Huang et al. 2024, of PPO.
        kl_target: nats a reply that an adaptive coefficient aims at; None keeps it fixed. Default: Huang et al. 2024,
            of PPO.
        kl_horizon: replies over which it adapts, by a fifth at most; a rollout of more counts as that many.
            Default: Ziegler et al. 2019.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative. Default: Huang et al. 2024, of PPO.
        generations: replies to each prompt. Default: Huang et al. 2024, of PPO.
        entropy_bonus: weight of the mean entropy of a token's distribution, in nats, that is added to what is
            maximized. Default: Huang et al. 2024, of PPO, who have none.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "policy gradient"
    divisible: ClassVar[bool] = True
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"
    owned: ClassVar[Mapping[str, str]] = TOKEN_REWARDS
    space: ClassVar[Mapping[str, Range]] = {"kl_coefficient": KL_RANGE}

    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0
    shaping: RewardShaping = NO_SHAPING
    kl_coefficient: Annotated[float, Field(ge=0)] = 0.05
    kl_target: Annotated[float, Field(gt=0)] | None = None
    kl_horizon: Annotated[int, Field(gt=0)] = 10_000
    kl_estimator: Literal["k1", "k3"] = "k1"
    generations: Annotated[int, Field(ge=1)] = 1
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.0

    def __post_init__(self) -> None:
        check_kl_target(self.kl_target, self.kl_coefficient)

    def learn(
        self,
        bench: Bench,
        trainer_class: Any,
        settings: dict[str, Any],
        whiten_rewards: bool = False,
        whiten_advantages: bool = False,
        **more: Any,
    ) -> Any:
        """Train by `trainers.on_policy`.

        Args:
            trainer_class: `OnPolicyTrainer` or a subclass of it.
            settings: of its config, beside those that all of these algorithms have.
            whiten_rewards, whiten_advantages: of `trainers.on_policy.TokenRewards`.
            more: further arguments of `fit_online`, and of the trainer.
        """
        from prefzoo.trainers.on_policy import OnPolicyConfig, TokenRewards
        from prefzoo.trainers.online import fit_online

        return fit_online(
            bench,
            trainer_class,
            OnPolicyConfig,
            {
                "beta": self.kl_coefficient,
                "loss_type": "dapo",
                "scale_rewards": "none",
                **entropy_bonus(self.entropy_bonus),
                **settings,
                **self.trainer,
            },
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            shaping=self.shaping,
            token_rewards=TokenRewards(
                self.kl_coefficient,
                self.kl_target,
                self.kl_horizon,
                self.kl_estimator,
                whiten_rewards,
                whiten_advantages,
            ),
            **more,
        )
