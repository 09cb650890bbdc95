"""REINFORCE with a leave-one-out baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Bench, Policy
from prefzoo.zoo.online_bases import Grouped


@dataclass(frozen=True)
class RLOO(Grouped):
    """REINFORCE leave-one-out (Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740): a reply's advantage is its
    reward less its KL to the start, minus the mean of the other replies to the same prompt.

    The paper uses 2 and 4 generations; `clip` matters only where a rollout is
    used again.

    Attributes:
        clip: how far the probability ratio may go from 1 before its gradient is cut. Default: Schulman et al. 2017, of
            PPO.
    """

    owned: ClassVar[Mapping[str, str]] = {
        **Grouped.owned,
        "epsilon": "clip",
        "reward_clip_range": "say `reward.clip`",
    }
    config: ClassVar[str | None] = "trl.trainer.rloo_config:RLOOConfig"

    clip: Annotated[float, Field(gt=0)] = 0.2

    def train(self, bench: Bench) -> Policy:
        from trl import RLOOConfig, RLOOTrainer

        from prefzoo.trainers.online import fit_online

        return fit_online(
            bench,
            RLOOTrainer,
            RLOOConfig,
            {"beta": self.kl_coefficient, "epsilon": self.clip, **self.trainer},
            generations=self.generations,
            missing_eos_penalty=self.missing_eos_penalty,
            shaping=self.shaping,
            passes=self.epochs,
        )
