"""Best-of-n distillation: a policy that answers once as well as best-of-n does with n samples."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar

from pydantic import Field

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.registry import get
from prefzoo.settings import Shaping
from prefzoo.types import Range
from prefzoo.views import prompt_key
from prefzoo.zoo.online_bases import ONLINE_MANAGED_FIELDS


@dataclass(frozen=True)
class BestOfNDistillation(Algorithm):
    """Best-of-n distillation (vBoN, Amini et al. 2024, https://arxiv.org/abs/2407.06057; BOND, Sessa et al. 2024,
    https://arxiv.org/abs/2407.14622): a policy that answers once as well as best-of-n does with n samples.

    Best-of-n gives a reply with n F(score)^(n - 1) times the start's probability, where F is how the scores of the
    start's replies to the prompt are distributed. The policy with the least KL to that is the one with the most mean
    of log F(score) less 1 / (n - 1) times its KL to the start: that is learned by RLOO, with F from `samples` replies
    of the start to each prompt, which are drawn and scored before the training.

    Attributes:
        n: of the best-of-n that is learned. Default: ours, as of best_of_n.
        samples: replies of the start to each prompt, from which F is estimated; n at least. Default: ours.
        generations: replies of the policy to each prompt. Default: ours, for the least cost.
        missing_eos_penalty: taken off log F of a reply that was cut at the length limit. Default: Huang et al. 2024, of
            PPO.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "distillation"
    divisible: ClassVar[bool] = True
    config: ClassVar[str | None] = "trl.trainer.rloo_config:RLOOConfig"
    owned: ClassVar[Mapping[str, str]] = {**ONLINE_MANAGED_FIELDS, "beta": "say `n`: it is 1 / (n - 1)"}
    space: ClassVar[Mapping[str, Range]] = {"n": Range(2, 16, log=True, source="as of rejection_sampling")}

    n: Annotated[int, Field(ge=2)] = 8
    samples: Annotated[int, Field(ge=2)] = 16
    generations: Annotated[int, Field(ge=2)] = 4
    missing_eos_penalty: Annotated[float, Field(ge=0)] = 1.0

    def __post_init__(self) -> None:
        if self.samples < self.n:
            raise ValueError(f"samples is {self.samples}: the best of n = {self.n} is not among fewer replies")

    @property
    def tunable(self) -> dict[str, Range]:
        """`n` is no more than the samples that F is estimated from."""
        return {**super().tunable, "n": dataclasses.replace(self.space["n"], high=min(16, self.samples))}

    @property
    def replies_per_row(self) -> int:
        return self.generations

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.language_model import LanguageModelPolicy
        from prefzoo.rewards.log_quantile_reward import LogQuantileReward

        assert bench.reward is not None
        prompts, start = bench.data.prompts, LanguageModelPolicy.start_of(bench)
        drawn = bench.sample(start, prompts, self.samples, seed=bench.seed * 1000)
        del start  # of which the training reads another copy
        scores = bench.score([p for p in prompts for _ in range(self.samples)], [r.text for row in drawn for r in row])
        of_prompt = {prompt_key(p): scores[i * self.samples : (i + 1) * self.samples] for i, p in enumerate(prompts)}
        shared = {"generations": self.generations, "missing_eos_penalty": self.missing_eos_penalty}
        learner = get("rloo", kl_coefficient=1 / (self.n - 1), trainer=self.trainer, **shared)
        # The weight of the KL is that of log F itself; scaled or clipped, it would be another n's.
        machinery = dataclasses.replace(bench.machinery, shaping=Shaping())
        return learner.train(bench.replace(reward=LogQuantileReward(bench.reward, of_prompt), machinery=machinery))
