"""Rejection sampling: sample replies, keep the best, imitate them."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from prefzoo.errors import PrefzooError
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.judges.ai_preferences import in_words
from prefzoo.registry import get
from prefzoo.types import Completion, Prompt, Range

Scored = tuple[float, Completion]


@dataclass(frozen=True)
class RejectionSampling(Algorithm):
    """Rejection-sampling fine-tuning (Touvron et al. 2023, https://arxiv.org/abs/2307.09288); with several
    iterations, expert iteration (Anthony et al. 2017) or RAFT (Dong et al. 2023, https://arxiv.org/abs/2304.06767).

    Each iteration samples `n` replies to each of its prompts from the latest policy, scores them, keeps some, and
    fine-tunes on what it kept. The prompts are divided among the iterations, so that more iterations cost no more
    samples.

    Attributes:
        n: replies sampled for each prompt. Default: Dong et al. 2023, who use 8 to 32.
        keep: `best` keeps the best of the n; `top_k` the k best of the n; `threshold` every reply whose reward is
            at least `threshold`; `random` one of the n at random: the control that shows what selection adds.
            Default: Touvron et al. 2023.
        k: how many replies `top_k` keeps for each prompt, at most n. Default: ours.
        threshold: the least reward that `threshold` keeps, on the reward's own scale. Default: ours.
        iterations: rounds of sampling and fine-tuning. Default: ours, for the least cost.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})
    family: ClassVar[str] = "imitation"
    divisible: ClassVar[bool] = True
    config: ClassVar[str | None] = "trl.trainer.sft_config:SFTConfig"
    space: ClassVar[Mapping[str, Range]] = {
        "n": Range(2, 16, log=True, source="8 to 32 in Dong et al. 2023; fewer, for budgets of few prompts")
    }

    n: Annotated[int, Field(ge=1)] = 8
    keep: Literal["best", "top_k", "threshold", "random"] = "best"
    k: Annotated[int, Field(ge=1)] = 2
    threshold: float = 0.0
    iterations: Annotated[int, Field(ge=1)] = 1

    def __post_init__(self) -> None:
        if self.keep == "top_k" and self.k > self.n:
            raise ValueError(f"k is {self.k}, but only n = {self.n} replies are sampled")

    @property
    def tunable(self) -> dict[str, Range]:
        """`n` is no less than what is kept of it."""
        n = self.space["n"]
        least = max(2, self.k) if self.keep == "top_k" else 2
        return {**super().tunable, "n": dataclasses.replace(n, low=least, high=max(16, 2 * least))}

    @property
    def replies_per_row(self) -> int:
        return {"top_k": self.k, "threshold": self.n}.get(self.keep, 1)

    def train(self, bench: Bench) -> Policy:
        from prefzoo.trainers.fitting import current_policy

        policy = current_policy(bench)
        prompts = list(bench.data.prompts)
        random.Random(bench.seed).shuffle(prompts)
        learner = get("sft", on="demonstrations", trainer=self.trainer)
        for i in range(self.iterations):
            selected = self.select(bench, policy, prompts[i :: self.iterations], i)
            data = dataclasses.replace(bench.data.with_demonstrations(*selected), sampled=True)
            policy = learner.train(bench.replace(data=data, latest=policy))
        return policy

    def select(
        self, bench: Bench, policy: Policy, prompts: Sequence[Prompt], iteration: int
    ) -> tuple[list[Prompt], list[Completion]]:
        """Sample and score replies, and return the prompts and replies to imitate; counts are reported.

        Raises:
            PrefzooError: when nothing was kept.
        """
        drawn = bench.sample(policy, prompts, self.n, seed=bench.seed * 1000 + iteration)
        flat = [(i, candidate) for i, candidates in enumerate(drawn) for candidate in candidates]
        scores = bench.score([prompts[i] for i, _ in flat], [candidate.text for _, candidate in flat])
        groups: list[list[Scored]] = [[] for _ in prompts]
        for (i, candidate), score in zip(flat, scores, strict=True):
            if bench.generation.counts(candidate):
                groups[i].append((score, candidate))
        rng = random.Random(f"{bench.seed} {iteration}")
        selected = [
            (prompt, *pair) for prompt, group in zip(prompts, groups, strict=True) for pair in self._keep(group, rng)
        ]
        bench.report.setdefault("rejection_sampling", []).append(
            {
                "sampled": len(flat),
                "unfinished": (unfinished := len(flat) - sum(map(len, groups))),
                "kept": len(selected),
                "prompts": len(prompts),
                "prompts_kept": len({id(prompt) for prompt, _, _ in selected}),
                "reward_sampled": sum(scores) / max(1, len(scores)),
                "reward_kept": sum(score for _, score, _ in selected) / max(1, len(selected)),
            }
        )
        if not selected:
            raise PrefzooError(
                f"rejection_sampling: none of {len(flat)} sampled replies was kept (keep: {self.keep}, threshold: "
                f"{self.threshold}; highest reward {max(scores):.3g}): {in_words({'unfinished': unfinished})}"
            )
        return [prompt for prompt, _, _ in selected], [reply for _, _, reply in selected]

    def _keep(self, group: list[Scored], rng: random.Random) -> list[Scored]:
        if self.keep == "threshold":
            return [pair for pair in group if pair[0] >= self.threshold]
        if self.keep == "random":
            return [rng.choice(group)] if group else []
        return sorted(group, key=lambda pair: -pair[0])[: self.k if self.keep == "top_k" else 1]
