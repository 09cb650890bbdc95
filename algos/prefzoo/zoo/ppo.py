"""Proximal policy optimization with a learned critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.types import Range
from prefzoo.zoo.online_bases import CLIPPING_FIELDS, KL_RANGE, TOKEN_REWARDS, check_kl_target


@dataclass(frozen=True)
class PPO(Algorithm):
    """Proximal policy optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) from a reward a reply and
    a KL penalty a token (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593).

    Of each rollout, with r_t the ratio of a token's probabilities now and when it was sampled (`trainers.on_policy`;
    the arithmetic is in `trainers.advantages`):

    - reward: R_t = -kl_coefficient KL_t, and the reply's score at its last token;
    - advantage: A_t = d_t + gamma lam A_{t+1} with d_t = R_t + gamma V_{t+1} - V_t; the return is A_t + V_t;
    - policy loss: -min(r_t A_t, clip(r_t, 1 - clip, 1 + clip) A_t);
    - value loss: vf_coef max((V_t - return)^2, (V_t clipped to old V_t +- clip_value - return)^2) / 2,

    both averaged over the tokens of an optimizer step.

    Defaults follow the implementation details of Huang et al. 2024 (https://arxiv.org/abs/2403.17031): one reply a
    prompt, gamma 1 and lambda 0.95, four epochs a rollout, policy and value clipped to 0.2, value coefficient 0.1,
    KL coefficient 0.05 by the log-ratio (k1), advantages whitened, a reply that did not end penalized by 1.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut at the length limit, after `reward.normalize`
            and `reward.clip`; the same default for all online algorithms, so that they are compared on one reward.
            Default: Huang et al. 2024.
        kl_coefficient: weight of the KL to the start in a token's reward; with `kl_target` its first value. Default:
            Huang et al. 2024.
        kl_target: nats a reply that an adaptive coefficient aims at; None keeps it fixed. Default: Huang et al. 2024.
        kl_horizon: replies over which it adapts, by a fifth at most; a rollout of more counts as that many.
            Default: Ziegler et al. 2019.
        kl_estimator: `k1`, the log-ratio, or `k3`, never negative. Default: Huang et al. 2024.
        generations: replies to each prompt. Default: Huang et al. 2024.
        vf_coef: weight of the value loss. Default: Huang et al. 2024.
        gamma, lam: discount, and trace decay of generalized advantage estimation. Default: Huang et al. 2024.
        whiten_rewards: scale token rewards to variance 1. Default: Huang et al. 2024.
        whiten_advantages: scale advantages to mean 0 and variance 1. Default: Huang et al. 2024.
        value_model: `shared`, an adapter of the critic's own on the policy's base; `separate`, a model of its own,
            trained whole (with full fine-tuning it always is); `reward`, the same, that begins as the reward model.
            Default: ours, for one base in memory.
        epochs: how often each rollout is learned from. Default: Huang et al. 2024.
        minibatches: optimizer steps that an epoch is divided into; a rollout is that many batches. Default: ours.
        clip: how far the probability ratio may go from 1 before its gradient is cut; None does not clip. Default: Huang
            et al. 2024.
        clip_value: how far a value may go from the one at rollout; None does not clip. Default: Huang et al. 2024.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "policy gradient"
    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"
    owned: ClassVar[Mapping[str, str]] = {
        **{field: reason for field, reason in TOKEN_REWARDS.items() if field not in CLIPPING_FIELDS},
        "num_iterations": "epochs",
        "epsilon": "clip",
    }
    space: ClassVar[Mapping[str, Range]] = {
        "kl_coefficient": KL_RANGE,
        "epochs": Range(1, 4, source="1 in Zheng et al. 2023, 4 in Huang et al. 2024"),
    }

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
    epochs: Annotated[int, Field(ge=1)] = 4
    minibatches: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] | None = 0.2
    clip_value: Annotated[float, Field(gt=0)] | None = 0.2

    def __post_init__(self) -> None:
        check_kl_target(self.kl_target, self.kl_coefficient)

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply, in every epoch, by the policy and by a critic that is not a part of it."""
        return 2 * self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.loading import load_model, load_tokenizer, tokenizer_arguments
        from prefzoo.models.score_head import backbone as backbone_of
        from prefzoo.trainers.on_policy import ActorCriticTrainer, CriticSettings, OnPolicyConfig, TokenRewards
        from prefzoo.trainers.online import fit_online

        backbone, head = None, None
        if self.value_model == "reward":
            if (critic := getattr(bench.reward, "critic", None)) is None:
                raise PrefzooError("value_model: 'reward' begins as the reward model, and the reward is not one model")
            backbone, head = critic(load_tokenizer(bench.start, **tokenizer_arguments(bench.loading)))
        elif self.value_model == "separate" or bench.adapter.type == "full":
            # Trained whole, which 4 bits do not allow.
            backbone = backbone_of(load_model(bench.start, **{**bench.loading, "quantization": None}))
        rewards = TokenRewards(
            self.kl_coefficient,
            self.kl_target,
            self.kl_horizon,
            self.kl_estimator,
            self.whiten_rewards,
            self.whiten_advantages,
        )
        settings = {
            "beta": self.kl_coefficient,
            "epsilon": self.clip if self.clip is not None else float("inf"),
            "loss_type": "dapo",
            "scale_rewards": "none",
            **self.trainer,
        }
        return fit_online(
            bench,
            ActorCriticTrainer,
            OnPolicyConfig,
            settings,
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            passes=self.epochs,
            rollout=self.minibatches,
            token_rewards=rewards,
            critic=CriticSettings(self.gamma, self.lam, self.vf_coef, self.clip_value),
            value_model=backbone,
            value_head=head,
        )
