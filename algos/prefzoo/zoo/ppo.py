"""Proximal policy optimization with a learned critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.types import Range
from prefzoo.zoo.online_bases import CLIPPING_FIELDS, KL_RANGE, TOKEN_REWARDS, FromTokenRewards


@dataclass(frozen=True)
class PPO(FromTokenRewards):
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

    Xu et al. 2024 (https://arxiv.org/abs/2404.10719) found it ahead of DPO with whitened advantages, large batches
    (`batch_scale`) and a moving reference (`reference_decay`; 0.999 in the examples of their code, ReaLHF).

    Attributes:
        vf_coef: weight of the value loss. Default: Huang et al. 2024.
        gamma, lam: discount, and trace decay of generalized advantage estimation. Default: Huang et al. 2024.
        whiten_rewards: scale token rewards to variance 1. Default: Huang et al. 2024.
        whiten_advantages: scale advantages to mean 0 and variance 1. Default: Huang et al. 2024.
        value_model: `shared`, an adapter of the critic's own on the policy's base; `separate`, a model of its own,
            trained whole (with full fine-tuning `shared` is it too); `reward`, the same, that begins as the reward
            model; `frozen`, a head of two layers on the last hidden states of the start, which are computed once a
            rollout: the least to compute, and in the lab no worse (docs/log.md). Default: ours, a critic that is
            trained, as in published PPO, with one base in memory.
        epochs: how often each rollout is learned from. Default: Huang et al. 2024.
        minibatches: optimizer steps that an epoch is divided into; a rollout is that many batches. Default: ours.
        clip: how far the probability ratio may go from 1 before its gradient is cut; None does not clip. Default: Huang
            et al. 2024.
        clip_value: how far a value may go from the one at rollout; None does not clip. Default: Huang et al. 2024.
        batch_scale: how many times `training.batch_size` prompts an optimizer step learns from; so many fewer are the
            steps. Default: ours, the same batch for all algorithms.
        reference_decay: the reference of the KL becomes, before each rollout but the first, so much of itself and the
            rest of the policy; None keeps it at the start. With an adapter its factors are averaged. The KL in results
            is to the start all the same. Default: Huang et al. 2024.
    """

    owned: ClassVar[Mapping[str, str]] = {
        **{field: reason for field, reason in TOKEN_REWARDS.items() if field not in CLIPPING_FIELDS},
        "num_iterations": "epochs",
        "epsilon": "clip",
    }
    space: ClassVar[Mapping[str, Range]] = {
        "kl_coefficient": KL_RANGE,
        "epochs": Range(1, 4, source="1 in Zheng et al. 2023, 4 in Huang et al. 2024"),
    }

    vf_coef: Annotated[float, Field(ge=0)] = 0.1
    gamma: Annotated[float, Field(ge=0, le=1)] = 1.0
    lam: Annotated[float, Field(ge=0, le=1)] = 0.95
    whiten_rewards: bool = False
    whiten_advantages: bool = True
    value_model: Literal["shared", "separate", "reward", "frozen"] = "shared"
    epochs: Annotated[int, Field(ge=1)] = 4
    minibatches: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] | None = 0.2
    clip_value: Annotated[float, Field(gt=0)] | None = 0.2
    batch_scale: Annotated[int, Field(ge=1)] = 1
    reference_decay: Annotated[float, Field(ge=0, lt=1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.reference_decay is not None and self.kl_coefficient == 0:
            raise ValueError("reference_decay moves the reference of the KL, and kl_coefficient is 0")

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply, in every epoch, by the policy and by a critic that reads it too."""
        return (1 if self.value_model == "frozen" else 2) * self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.loading import load_model, load_tokenizer, to_be_divided, tokenizer_arguments
        from prefzoo.models.score_head import backbone as backbone_of
        from prefzoo.trainers.on_policy import ActorCriticTrainer, CriticSettings

        backbone, head, frozen = None, None, self.value_model == "frozen"
        # The start that a frozen critic reads is there: under the adapter, or as the reference.
        start_is_there = frozen and bool(self.kl_coefficient) and self.reference_decay is None
        if self.value_model == "reward":
            if (critic := getattr(bench.reward, "critic", None)) is None:
                raise PrefzooError("value_model: 'reward' begins as the reward model, and the reward is not one model")
            with to_be_divided():
                backbone, head = critic(load_tokenizer(bench.start, **tokenizer_arguments(bench.loading)))
        elif self.value_model == "separate" or (bench.adapter.type == "full" and not start_is_there):
            with to_be_divided():  # trained whole, which 4 bits do not allow
                backbone = backbone_of(load_model(bench.start, **{**bench.loading, "quantization": None}))
        batch = {name: self.batch_scale * getattr(bench.training, name) for name in ("batch_size", "accumulation")}
        return self.learn(
            bench.replace(training=bench.training.model_copy(update=batch)),
            ActorCriticTrainer,
            {"epsilon": self.clip if self.clip is not None else float("inf")},
            whiten_rewards=self.whiten_rewards,
            whiten_advantages=self.whiten_advantages,
            passes=self.epochs,
            rollout=self.minibatches,
            critic=CriticSettings(self.gamma, self.lam, self.vf_coef, self.clip_value),
            value_model=backbone,
            value_head=head,
            frozen=frozen,
            reference_decay=self.reference_decay,
        )
