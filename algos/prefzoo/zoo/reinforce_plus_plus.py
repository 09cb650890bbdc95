"""REINFORCE++: no critic, advantages normalized over the whole rollout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Bench, Policy
from prefzoo.zoo.online_bases import CLIPPING_FIELDS, TOKEN_REWARDS, FromTokenRewards


@dataclass(frozen=True)
class ReinforcePlusPlus(FromTokenRewards):
    """REINFORCE++ (Hu et al. 2025, https://arxiv.org/abs/2501.03262): the advantage of a token is the reply's score
    less kl_coefficient times the KL of it and of all tokens after it, scaled to mean 0 and variance 1 over all tokens
    of the rollout; PPO's clipped loss, averaged over the tokens of an optimizer step.

    It is PPO without a critic and with gamma 1. Beside GRPO, prompts are not scaled by the spread of their own replies.

    Attributes:
        epochs: how often each rollout is learned from. Default: Hu et al. 2025.
        minibatches: optimizer steps that an epoch is divided into; a rollout is that many batches. Default: ours.
        clip: how far the probability ratio may go from 1 before its gradient is cut. Default: Hu et al. 2025.
    """

    owned: ClassVar[Mapping[str, str]] = {
        **{field: reason for field, reason in TOKEN_REWARDS.items() if field not in CLIPPING_FIELDS},
        "num_iterations": "epochs",
        "epsilon": "clip",
    }
    group_baseline: ClassVar[bool] = False
    """Whether the mean score of the replies to a prompt is taken off first."""

    epochs: Annotated[int, Field(ge=1)] = 1
    minibatches: Annotated[int, Field(ge=1)] = 1
    clip: Annotated[float, Field(gt=0)] = 0.2

    @property
    def replies_per_row(self) -> int:
        """Each sampled reply in every pass over its rollout."""
        return self.generations * self.epochs

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.on_policy import ReturnTrainer

        return self.learn(
            bench,
            ReturnTrainer,
            {"epsilon": self.clip},
            whiten_advantages=True,
            passes=self.epochs,
            rollout=self.minibatches,
            group_baseline=self.group_baseline,
        )


@dataclass(frozen=True)
class ReinforcePlusPlusBaseline(ReinforcePlusPlus):
    """REINFORCE++ with a baseline (Hu et al. 2025, https://arxiv.org/abs/2501.03262): the mean score of the replies to
    a prompt is taken off each, and the spread that advantages are divided by is that of the whole rollout, not of the
    group as in GRPO.

    The paper has the KL of this variant in the loss (k2); here it is in the reward of tokens, as without a baseline.

    Attributes:
        generations: replies to each prompt. Default: ours, for the least cost.
    """

    group_baseline: ClassVar[bool] = True

    generations: Annotated[int, Field(ge=2)] = 4
