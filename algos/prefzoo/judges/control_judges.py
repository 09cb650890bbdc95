"""Judges that need no model: the truth, and a coin."""

from __future__ import annotations

import random
from collections.abc import Sequence

from prefzoo.judges.judge import Judge
from prefzoo.types import Prompt, Truth


def gold_judge(gold: Truth) -> Judge:
    """The truth: 1 where the first is better, 0 where the second is, one half where they are as good."""

    def answers(
        prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float]:
        scores = [[each["gold"] for each in gold(list(prompts), list(side))] for side in (first, second)]
        return [0.5 if x == y else float(x > y) for x, y in zip(*scores, strict=True)]

    return Judge(answers, name="the gold judge")


def random_judge(seed: int) -> Judge:
    """A coin for each question, and a grade drawn evenly from 0 to 10; the negative control."""
    rng = random.Random(f"random judge {seed}")
    return Judge(
        lambda prompts, first, second, questions: [rng.random() for _ in prompts],
        lambda prompts, completions: [10 * rng.random() for _ in prompts],
        name="the random judge",
    )
