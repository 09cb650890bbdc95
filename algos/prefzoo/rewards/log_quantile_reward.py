"""A reward by rank among the start's own replies, whose KL-regularized optimum is best-of-n."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence
from typing import Any

from prefzoo.types import Prompt, Reward
from prefzoo.views import prompt_key


class LogQuantileReward:
    """log F(score) of each reply, where F is how the scores of the start's replies to the same prompt are distributed.

    F is the share of m such replies that score lower, ties counted half, with half a reply more at either end, so that
    it is between 1 / (2 m + 2) and 1 - 1 / (2 m + 2).

    Args:
        reward: what scores; its costs are those of this reward.
        scores: `views.prompt_key` of a prompt -> the scores of the start's replies to it.
    """

    def __init__(self, reward: Reward, scores: Mapping[str, Sequence[float]]) -> None:
        self.reward = reward
        self.sorted = {key: sorted(of_prompt) for key, of_prompt in scores.items()}

    def __getattr__(self, name: str) -> Any:
        """What a reward may have beside: `flops`, `questions`, `share_base`."""
        return getattr(self.reward, name)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        scores = self.reward(prompts, completions)
        return [self._log_quantile(prompt_key(prompt), score) for prompt, score in zip(prompts, scores, strict=True)]

    def _log_quantile(self, key: str, score: float) -> float:
        known = self.sorted[key]
        rank = (bisect.bisect_left(known, score) + bisect.bisect_right(known, score)) / 2
        return math.log((rank + 0.5) / (len(known) + 1))
