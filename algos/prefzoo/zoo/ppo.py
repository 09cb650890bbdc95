"""Proximal policy optimization with a learned critic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench, Policy
from prefzoo.zoo.online_bases import NOT_CLIPPED, ActorCritic


@dataclass(frozen=True)
class PPO(ActorCritic):
    """Proximal policy optimization (Schulman et al. 2017, https://arxiv.org/abs/1707.06347) from a reward a reply and
    a KL penalty a token (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593).

    Defaults follow the implementation details of Huang et al. 2024 (https://arxiv.org/abs/2403.17031): one reply a
    prompt, gamma 1 and lambda 0.95, four epochs a rollout, policy and value clipped to 0.2, value coefficient 0.1,
    KL coefficient 0.05 by the log-ratio (k1), advantages whitened, a reply that did not end penalized by 1.

    Attributes:
        epochs: how often each rollout is learned from.
        minibatches: optimizer steps that an epoch is divided into; a rollout is that many batches.
        clip: how far the probability ratio may go from 1 before its gradient is cut; None does not clip.
        clip_value: how far a value may go from the one at rollout; None does not clip.

    The other settings are those of `ActorCritic`.
    """

    owned: ClassVar[Mapping[str, str]] = {
        **{field: said for field, said in ActorCritic.owned.items() if field not in NOT_CLIPPED},
        "num_iterations": "epochs",
        "epsilon": "clip",
    }

    epochs: Annotated[int, Field(ge=1)] = 4
    minibatches: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] | None = 0.2
    clip_value: Annotated[float, Field(gt=0)] | None = 0.2

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply, in every epoch, by the policy and by a critic that is not a part of it."""
        return 2 * self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.loading import load_model, load_tokenizer
        from prefzoo.trainers.actor_critic import ActorCriticTrainer, CriticSettings
        from prefzoo.trainers.on_policy import OnPolicyConfig
        from prefzoo.trainers.online import fit_online

        backbone, head = None, None
        if self.value_model == "reward":
            if (critic := getattr(bench.reward, "critic", None)) is None:
                raise PrefzooError("value_model: 'reward' begins as the reward model, and the reward is not one model")
            backbone, head = critic(
                load_tokenizer(bench.start, bool(bench.machinery.loading.get("trust_remote_code", False)))
            )
        elif self.value_model == "separate" or bench.adapter.type == "full":
            # Trained whole, which 4 bits do not allow.
            backbone = load_model(bench.start, **{**bench.machinery.loading, "quantization": None}).base_model
        particular = {
            "beta": self.kl_coefficient,
            "epsilon": self.clip if self.clip is not None else float("inf"),
            "loss_type": "dapo",
            "scale_rewards": "none",
        }
        return fit_online(
            bench,
            ActorCriticTrainer,
            OnPolicyConfig,
            {**particular, **self.trainer},
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            passes=self.epochs,
            rollout=self.minibatches,
            token_rewards=self.token_rewards(self.whiten_rewards, self.whiten_advantages),
            critic=CriticSettings(self.gamma, self.lam, self.vf_coef, self.clip_value),
            value_model=backbone,
            value_head=head,
        )
