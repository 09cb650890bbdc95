"""Base classes of algorithms that make preferences themselves and have another algorithm learn from them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

from pydantic import Field

from prefzoo.errors import RecipeError
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.registry import get, load
from prefzoo.types import Prompt, Range
from prefzoo.zoo.sft import SFT

LEARNER_NEEDS = frozenset({"preferences", "unpaired", "prompts", "demonstrations", "reward"})
"""What a learner may need: what the loop or the data can give it."""


@dataclass(frozen=True)
class WithLearner(Algorithm):
    """Makes preferences and has a learner learn from them.

    Attributes:
        learner: any algorithm that learns from preferences, prompts or a reward, by name. One that needs a reward gets
            a reward model, trained on the preferences of the same round. Default: ours, for the least cost.
        learner_settings: the learner's own settings. Default: the learner's own.
    """

    learner: str = "dpo"
    learner_settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        try:
            needs = load(self.learner).needs
            learner = self.build_learner()
        except KeyError as error:
            raise ValueError(f"learner: {error.args[0]}") from error
        except RecipeError as error:
            raise ValueError("; ".join(f"learner_settings.{problem}" for problem in error.problems)) from error
        if stray := sorted(needs - LEARNER_NEEDS):
            raise ValueError(f"learner: {self.learner!r} needs {', '.join(stray)}, which cannot be made for it")
        if isinstance(learner, SFT) and learner.on != "chosen":
            raise ValueError(
                f"learner_settings.on: {learner.on!r} imitates the data's own replies, whatever the feedback says. "
                "Allowed: chosen."
            )

    @property
    def compares_samples(self) -> bool:
        """Whether it has sampled replies to a prompt compared, which must then be able to differ."""
        return True

    @property
    def divisible(self) -> bool:
        """Whether its learner is: what is sampled and judged between trainings is so by a whole policy."""
        return self.build_learner().divisible

    def build_learner(self) -> Algorithm:
        """Return the learner with its settings."""
        return get(self.learner, **self.learner_settings)

    @property
    def tunable(self) -> dict[str, Range]:
        """The algorithm's own settings, and the learner's."""
        learner = self.build_learner().tunable
        return {**super().tunable, **{f"learner_settings.{key}": tried for key, tried in learner.items()}}

    @property
    def learner_replies_per_row(self) -> int:
        """How many sequences a prompt contributes to an epoch of the learner's training and of its reward model's."""
        learner = self.build_learner()
        return learner.replies_per_row + (2 if "reward" in learner.needs else 0)


@dataclass(frozen=True)
class FeedbackLoop(WithLearner):
    """Makes preferences in rounds and has a learner learn from them.

    Attributes:
        rounds: how often to sample from the latest policy, ask for feedback, and learn from it. The prompts are divided
            among the rounds, so that more rounds use no more of them; the policy of each round is measured.
            Default: Lee et al. 2023 and Bai et al. 2022, of one round each.
    """

    family: ClassVar[str] = "AI feedback"

    rounds: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.continues and not load(self.learner).trains:
            raise ValueError(f"learner: {self.learner!r} trains nothing, and cannot go on from an earlier policy")

    @property
    def asks_people(self) -> bool:
        """Whether people can be its judge: they are asked between trainings, and about two replies as a whole."""
        return "judge" in self.required and "constitution" not in self.required and self.compares_samples

    @property
    def continues(self) -> bool:
        """Whether the learner is ever to go on from a policy that is not the start."""
        return self.rounds > 1

    def learn(self, bench: Bench, prompts: Sequence[Prompt], pairs: list[dict[str, Any]]) -> Policy:
        """Train the learner from `bench.latest` on these prompts and pairs. One that needs a reward gets the bench's,
        or a reward model trained on the pairs."""
        learner = self.build_learner()
        data = dataclasses.replace(bench.data, prompts=list(prompts), preferences=pairs, labelled=[], sampled=True)
        bench = bench.replace(data=data)
        if "reward" in learner.needs and bench.reward is None:
            from prefzoo.rewards.train_reward import train_reward_model

            bench = bench.replace(reward=train_reward_model(bench, {}))
        return learner.train(bench)
