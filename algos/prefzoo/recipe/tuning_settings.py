"""The block `tuning` of a recipe: how much, and by what, each label's settings are searched."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prefzoo.settings import Settings


class TuningBudget(Settings):
    """What the training of a trial may use.

    Less than the recipe's own budget is cheaper and misleads: what over-optimizes in many steps does not in few.

    Attributes:
        prompts: training prompts; null, and whatever is more than the recipe's budget, is as many as that has.
        epochs: how often they are seen; null is as often as the recipe's budget says.
    """

    prompts: int | None = Field(None, ge=1)
    epochs: float | None = Field(None, gt=0)


class Tuning(Settings):
    """How the settings of each label are searched on validation prompts, before they are compared.

    Attributes:
        trials: of each label; the first is its settings as written.
        sampler: `tpe` is Optuna's TPESampler (Bergstra et al. 2011), multivariate, random in the first half of the
            trials; `random` draws every trial; `grid` takes points of a grid that is as fine as the trials allow.
        equal: what all labels get alike: `trials`, or as many `flops` or `seconds` as `trials` first trials of the
            dearest label take.
        prompts: validation prompts that a trial is scored by.
        budget: what the training of a trial may use.
        seeds: of each trial; with more than one, Optuna's WilcoxonPruner may give a trial up after any of them.
        objective: `gold`, `judge` (the one that decides: P(better than the start's reply)), or `reward`; `auto` is the
            first of these that there is.
        kl_penalty: what is taken off the reward for each nat of a reply's KL to the start.
        seed: of what is tried.
    """

    trials: int = Field(8, ge=1)
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    equal: Literal["trials", "flops", "seconds"] = "trials"
    prompts: int = Field(128, ge=2)
    budget: TuningBudget = TuningBudget()
    seeds: int = Field(1, ge=1)
    objective: Literal["auto", "gold", "judge", "reward"] = "auto"
    kl_penalty: float = Field(0.05, ge=0)
    seed: int = Field(0, ge=0)
