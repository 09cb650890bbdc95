"""What GRPO and the losses that were made of it share: TRL's GRPOTrainer, and how a rollout is divided."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.interface import Bench, Policy
from prefzoo.types import Range
from prefzoo.zoo.online_bases import NO_TOOLS, OWN_LOSS, Grouped, entropy_bonus

CLIP_RANGE = Range(1e-4, 1e-2, log=True, source="ours: 4e-4 in Zheng et al. 2025, 2.5e-3 in LUSPO's paper")
"""What tuning tries of how far the ratio of a whole reply may rise above 1."""
KL_FROM_0 = Range(0.0, 0.1, source="ours: from none, as published, to twice PPO's, for rewards that are easily hacked")
"""What tuning tries of the weight of the KL where the paper has none."""


@dataclass(frozen=True)
class GroupRelative(Grouped):
    """Learns by TRL's GRPOTrainer, with a loss that `loss_settings` names.

    Attributes:
        minibatches: optimizer steps that a rollout is divided into; a rollout is that many batches. Default: ours.
        entropy_bonus: weight of the mean entropy of a token's distribution, in nats, that is added to what is
            maximized. Default: Shao et al. 2024, who have none.
    """

    config: ClassVar[str | None] = "trl.trainer.grpo_config:GRPOConfig"
    owned: ClassVar[Mapping[str, str]] = {**Grouped.owned, **NO_TOOLS}
    loss_settings: ClassVar[Mapping[str, str]]
    """Fields of TRL's config that make the loss."""

    minibatches: Annotated[int, Field(ge=1)] = 1
    entropy_bonus: Annotated[float, Field(ge=0)] = 0.0

    def particular(self) -> dict[str, Any]:
        """Return the fields of TRL's config that this algorithm's own hyper-parameters set."""
        return {}

    def train(self, bench: Bench) -> Policy:
        from trl import GRPOConfig, GRPOTrainer

        from prefzoo.trainers.online import fit_online

        settings = {"beta": self.kl_coefficient, **self.loss_settings, **self.particular()}
        return fit_online(
            bench,
            GRPOTrainer,
            GRPOConfig,
            {**settings, **entropy_bonus(self.entropy_bonus), **self.trainer},
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            shaping=self.shaping,
            passes=self.epochs,
            rollout=self.minibatches,
        )


@dataclass(frozen=True)
class NamedLoss(GroupRelative):
    """A loss of GRPO's trainer as an algorithm of its own, which `trainer:` cannot turn into another one.

    What tells these losses apart is mostly what they do with probability ratios. With `epochs` and `minibatches` 1 the
    ratio is 1 throughout, and the gradients of losses with the same average are the same: those of `gspo` and `sapo`
    are GRPO's, those of `dapo`, `cispo`, `vespo` and (with one forward pass a step) `bnpo` are alike.

    Attributes:
        kl_coefficient: weight of the KL to the start, in the loss. Default: the paper, which has none.
        minibatches: optimizer steps that a rollout is divided into; a rollout is that many batches of prompts, and from
            the second on ratios leave 1. Default: ours, the fewest.
    """

    owned: ClassVar[Mapping[str, str]] = {
        **GroupRelative.owned,
        **OWN_LOSS,
        "scale_rewards": OWN_LOSS["loss_type"],
        "multi_objective_aggregation": "there is one reward",
        "epsilon": "nothing is clipped in this loss",
        "epsilon_high": "nothing is clipped in this loss",
        "delta": "nothing is clipped in this loss",
    }
    space: ClassVar[Mapping[str, Range]] = {"kl_coefficient": KL_FROM_0}

    kl_coefficient: Annotated[float, Field(ge=0)] = 0.0
    minibatches: Annotated[int, Field(ge=1)] = 2


@dataclass(frozen=True)
class ClippedLoss(NamedLoss):
    """A loss that cuts the gradient where a ratio is beyond 1 - `clip` or 1 + `clip_high`, on the side to which the
    advantage drives it.

    Attributes:
        clip: how far the probability ratio may fall below 1. Default: Schulman et al. 2017, of PPO.
        clip_high: how far it may rise above 1; None is `clip`. Default: Schulman et al. 2017, of PPO.
    """

    owned: ClassVar[Mapping[str, str]] = {
        **{field: reason for field, reason in NamedLoss.owned.items() if field != "delta"},
        "epsilon": "clip",
        "epsilon_high": "clip_high",
    }

    clip: Annotated[float, Field(gt=0)] = 0.2
    clip_high: Annotated[float, Field(gt=0)] | None = None

    def particular(self) -> dict[str, Any]:
        return {"epsilon": self.clip, "epsilon_high": self.clip_high}
