"""Published losses on GRPO's trainer with a probability ratio for each token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.settings import RewardShaping
from prefzoo.types import Range
from prefzoo.zoo.group_relative import ClippedLoss, NamedLoss


@dataclass(frozen=True)
class DrGRPO(ClippedLoss):
    """Dr. GRPO (Liu et al. 2025, https://arxiv.org/abs/2503.20783): GRPO without what favours short right and long
    wrong replies, and prompts whose replies score nearly alike. The advantage is the reward less the group's mean, not
    divided; token losses are summed and divided by replies x `generation.max_new_tokens`.

    The paper uses 8 generations.

    Attributes:
        minibatches: optimizer steps that a rollout is divided into. Default: ours.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "dr_grpo", "scale_rewards": "none"}

    minibatches: Annotated[int, Field(ge=1)] = 1


@dataclass(frozen=True)
class BNPO(ClippedLoss):
    """GRPO with the loss averaged over all tokens of a forward pass, as many open implementations of PPO do (Liu et al.
    2025, https://arxiv.org/abs/2503.20783): TRL's loss of that name. With
    `training.accumulation` or several generations a step has several passes, each with its own average; in one pass it
    is DAPO's average.

    It is not the Beta normalization of https://arxiv.org/abs/2506.02864, which has the same name and needs rewards of 0
    and 1.

    Attributes:
        kl_coefficient: weight of the KL to the start, in the loss. Default: TRL.
        minibatches: optimizer steps that a rollout is divided into. Default: TRL.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "bnpo", "scale_rewards": "group"}

    minibatches: Annotated[int, Field(ge=1)] = 1


class Overlong(RewardShaping):
    """Shaping in which long replies are punished unless the recipe says otherwise."""

    overlong: float = Field(0.2, ge=0, lt=1)


OVERLONG = Overlong()


@dataclass(frozen=True)
class DAPO(ClippedLoss):
    """Decoupled clip and dynamic sampling policy optimization (Yu et al. 2025, https://arxiv.org/abs/2503.14476): GRPO
    averaged over all tokens of an optimizer step, with more room above than below, no KL, and replies punished softly
    in the last fifth before the length limit.

    A cut reply loses 1, as with all online algorithms, by that punishment and not by `missing_eos_penalty`. Its dynamic
    sampling, which draws again for prompts whose replies score all alike, is left out: with scores that are real
    numbers there are hardly any. Its filter on cut replies is `trainer: {mask_truncated_completions: true}`. The paper
    uses 16 generations and 16 minibatches.

    Attributes:
        missing_eos_penalty: taken off the score of a reply that was cut. Default: Yu et al. 2025.
        shaping: what is added to the reward: a block with any of `length`, `overlong` (docs/rewards.md). Default: Yu et
            al. 2025, 4,096 of 20,480 tokens.
        clip: how far the probability ratio may fall below 1. Default: Yu et al. 2025.
        clip_high: how far it may rise above 1. Default: Yu et al. 2025.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "dapo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **ClippedLoss.space,
        "clip_high": Range(0.2, 0.4, source="ours: from PPO's to twice that; 0.28 in Yu et al. 2025"),
    }

    missing_eos_penalty: Annotated[float, Field(ge=0)] = 0.0
    shaping: Overlong = OVERLONG
    clip_high: Annotated[float, Field(gt=0)] | None = 0.28


@dataclass(frozen=True)
class CISPO(NamedLoss):
    """Clipped importance-sampling policy optimization (MiniMax 2025, https://arxiv.org/abs/2506.13585): REINFORCE with
    group-relative advantages, each token weighed by its probability ratio, which is cut at `largest_ratio` and held
    constant, so that no token loses its gradient; averaged over all tokens of an optimizer step.

    The paper uses 16 minibatches and does not say where ratios are cut.

    Attributes:
        largest_ratio: the largest weight of a token. Default: Khatri et al. 2025
            (https://arxiv.org/abs/2510.13786).
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "cispo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **NamedLoss.space,
        "largest_ratio": Range(1.2, 8.0, log=True, source="ours: from PPO's 1 + 0.2; 5 in Khatri et al. 2025"),
    }

    largest_ratio: Annotated[float, Field(gt=0)] = 5.0

    def particular(self) -> dict[str, Any]:
        return {"epsilon_high": self.largest_ratio}


@dataclass(frozen=True)
class SAPO(NamedLoss):
    """Soft adaptive policy optimization (Gao et al. 2025, https://arxiv.org/abs/2511.20347): in the place of clipping,
    4 / tau sigmoid(tau (ratio - 1)) times the advantage, tau being `temperature_positive` or `temperature_negative` by
    the sign of the advantage; averaged as GRPO.

    The paper uses 4 minibatches.

    Attributes:
        temperature_positive: tau where the advantage is above 0. Default: Gao et al. 2025.
        temperature_negative: tau elsewhere; the larger, the faster gradients fade away from 1. Default: Gao et al.
            2025.
    """

    loss_settings: ClassVar[Mapping[str, str]] = {"loss_type": "sapo", "scale_rewards": "group"}
    space: ClassVar[Mapping[str, Range]] = {
        **NamedLoss.space,
        "temperature_negative": Range(1.0, 2.0, source="ours: from as fast as the positive one's; 1.05 in Gao et al."),
    }

    temperature_positive: Annotated[float, Field(gt=0)] = 1.0
    temperature_negative: Annotated[float, Field(gt=0)] = 1.05

    def particular(self) -> dict[str, Any]:
        return {
            "sapo_temperature_pos": self.temperature_positive,
            "sapo_temperature_neg": self.temperature_negative,
        }
