"""Rewards by description: models, functions, judges, noise, and sums and ensembles of rewards."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from prefzoo.rewards.reward_files import resolve_path
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Prompt, Reward

Combine = Literal["mean", "min", "mean_minus_std"]


def load_reward(spec: dict[str, Any], folder: Path, loading: Mapping[str, Any] | None = None) -> Reward:
    """The reward that a `spec` describes.

    Args:
        spec: what `Reward.spec(folder)` gave.
        folder: what paths in it are relative to.
        loading: how the files of models are read, and whether their code may run.
    """
    if spec["type"] == "function":
        return FunctionReward(spec["path"])
    if spec["type"] == "random":
        return RandomReward(spec["seed"])
    if spec["type"] == "sum":
        parts = [load_reward(part, folder, loading) for part in spec["of"]]
        return WeightedSum(parts, spec["weights"], spec.get("names", ()))
    if spec["type"] == "ensemble":
        members = [load_reward(member, folder, loading) for member in spec["members"]]
        return Ensemble(members, spec["combine"], spec["std_weight"])
    if spec["type"] == "judge":
        from prefzoo.rewards.judge_reward import load_judge_reward

        return load_judge_reward(spec, folder)
    if spec["type"] == "knowledge":
        from prefzoo.rewards.knowledge_reward import load_knowledge_reward

        return load_knowledge_reward(spec, folder, loading)
    from prefzoo.rewards.reward_model import RewardModel

    return RewardModel.load(resolve_path(spec["path"], folder), loading)


class RandomReward:
    """A negative control: noise in [0, 1) that depends on the text and the seed, and on nothing that can be learned."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        return [self._noise(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]

    def _noise(self, prompt: Prompt, text: str) -> float:
        digest = hashlib.sha256(repr((self.seed, [turn["content"] for turn in prompt], text)).encode()).digest()
        return int.from_bytes(digest[:8], "big") / 2**64

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "random", "seed": self.seed}


class _Combination:
    """A reward that is made of others."""

    def __init__(self, parts: Sequence[Reward]) -> None:
        self.parts = list(parts)

    @property
    def flops(self) -> float:
        """Operations of all parts so far."""
        return sum(getattr(part, "flops", 0.0) for part in self.parts)

    @property
    def questions(self) -> int:
        """Questions that parts put to a judge so far."""
        return sum(getattr(part, "questions", 0) for part in self.parts)

    def _rows(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[tuple[float, ...]]:
        """For each reply the scores of all parts."""
        return list(zip(*[part(prompts, completions) for part in self.parts], strict=True))

    def share_base(self, model: Any, path: str) -> None:
        """See `RewardModel.share_base`."""
        for part in self.parts:
            if hasattr(part, "share_base"):
                part.share_base(model, path)


class WeightedSum(_Combination):
    """The sum of several rewards, each times its weight.

    Args:
        parts: the rewards.
        weights: one for each, of either sign.
        names: of the parts, under which `by_part` gives their scores.
    """

    def __init__(self, parts: Sequence[Reward], weights: Sequence[float], names: Sequence[str] = ()) -> None:
        super().__init__(parts)
        self.weights, self.names = list(weights), list(names)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        rows = self._rows(prompts, completions)
        return [sum(w * s for w, s in zip(self.weights, row, strict=True)) for row in rows]

    def by_part(
        self, prompts: Sequence[Prompt], completions: Sequence[str]
    ) -> tuple[list[float], list[dict[str, float]]]:
        """The sum for each reply, and what each named part adds to it, its weight included."""
        rows = [[w * s for w, s in zip(self.weights, row, strict=True)] for row in self._rows(prompts, completions)]
        return [sum(row) for row in rows], [dict(zip(self.names, row, strict=False)) for row in rows]

    def spec(self, folder: Path) -> dict[str, Any]:
        parts = [part.spec(folder) for part in self.parts]
        return {"type": "sum", "of": parts, "weights": self.weights, "names": self.names}


class Ensemble(_Combination):
    """Several rewards for one and the same thing, as one (Coste et al. 2023, https://arxiv.org/abs/2310.02743).

    Args:
        members: the rewards.
        combine: `mean`; `min`, the worst case; `mean_minus_std`, the mean less `std_weight` standard deviations
            (over the members, not corrected for their number).
        std_weight: used by `mean_minus_std`.
    """

    def __init__(self, members: Sequence[Reward], combine: Combine, std_weight: float = 1.0) -> None:
        super().__init__(members)
        self.combine, self.std_weight = combine, std_weight

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        combinations: dict[str, Callable[[Sequence[float]], float]] = {
            "mean": statistics.fmean,
            "min": min,
            "mean_minus_std": lambda row: statistics.fmean(row) - self.std_weight * statistics.pstdev(row),
        }
        return [combinations[self.combine](row) for row in self._rows(prompts, completions)]

    def spec(self, folder: Path) -> dict[str, Any]:
        members = [part.spec(folder) for part in self.parts]
        return {"type": "ensemble", "members": members, "combine": self.combine, "std_weight": self.std_weight}
