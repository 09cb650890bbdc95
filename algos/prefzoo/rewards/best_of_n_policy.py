"""The start policy with a filter: of n replies, the one that the reward likes best."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import write_policy_file
from prefzoo.rewards.load_reward import load_reward
from prefzoo.settings import Generation
from prefzoo.types import Completion, Progress, Prompt, Reward


class BestOfNPolicy:
    """Samples n replies from the start for each answer and gives the best; each answer is charged n times.

    Its KL to the start is not measured but bounded: log n - (n - 1) / n (Beirami et al. 2024,
    https://arxiv.org/abs/2401.01879), which is exact when no two replies are alike.
    """

    def __init__(self, policy: LanguageModelPolicy, reward: Reward, n: int) -> None:
        self.policy, self.reward, self.n = policy, reward, n
        self.start = policy.start

    @property
    def kl_bound(self) -> float:
        """The upper bound on KL(this policy || start), in nats a reply."""
        return math.log(self.n) - (self.n - 1) / self.n

    def kl_to_start(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[float]:
        """The bound for each reply."""
        return [self.kl_bound] * len(completions)

    def save(self, folder: Path) -> None:
        """`policy.json` alone: the weights are the start's and the reward's."""
        write_policy_file(
            folder, "best_of_n", self.start, n=self.n, reward=self.reward.spec(folder), loading=self.policy.loading
        )

    @classmethod
    def load(cls, folder: Path, start: str, settings: dict[str, Any]) -> BestOfNPolicy:
        """The policy that `save` wrote; `settings` are those of `policy.json`."""
        policy = LanguageModelPolicy.from_start(start, **settings["loading"])
        return cls(policy, load_reward(settings["reward"], folder, settings["loading"]), settings["n"])

    def sample(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        seed: int,
        n: int = 1,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """For each of the n replies asked for, the best of this policy's own n candidates."""
        drawn = self.policy.sample(prompts, generation, seed, n=n * self.n, ledger=ledger, progress=progress)
        repeated = [prompt for prompt, candidates in zip(prompts, drawn, strict=True) for _ in candidates]
        texts = [candidate.text for candidates in drawn for candidate in candidates]
        scores = iter((ledger or Ledger()).scored(self.reward, repeated, texts))
        answers = []
        for candidates in drawn:
            scored = [(next(scores), candidate) for candidate in candidates]
            groups = [scored[i : i + self.n] for i in range(0, len(scored), self.n)]
            answers.append([max(group, key=lambda pair: pair[0])[1] for group in groups])
        return answers
