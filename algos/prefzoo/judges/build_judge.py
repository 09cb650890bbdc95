"""Judges by description: a model, a server, and two that need neither, the truth and a coin."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefzoo.data import sources
from prefzoo.judges.endpoint import EndpointClient
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.local_judge import local_judge
from prefzoo.judges.people_judge import PeopleJudge
from prefzoo.judges.prompt_templates import judge_templates
from prefzoo.judges.text_judge import TextJudge
from prefzoo.lab import MODELS
from prefzoo.models.loading import resolve
from prefzoo.scoring_function import FunctionReward
from prefzoo.settings import Generation
from prefzoo.types import Progress, Prompt, Truth


def load_truth(spec: str | None) -> Truth | None:
    """The truth of a source by name, or of a function as `FILE.py:NAME`; None where there is none."""
    if spec is None:
        return None
    if ".py:" not in spec:
        return sources.load(spec).gold
    function = FunctionReward(spec, key="gold.path")
    return lambda prompts, completions: [{"gold": score} for score in function(prompts, completions)]


def gold_judge(gold: Truth) -> Judge:
    """The truth: 1 where the first is better, 0 where the second is, one half where they are as good."""

    def compare(
        prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], questions: Sequence[str | None]
    ) -> list[float]:
        scores = [[score["gold"] for score in gold(list(prompts), list(side))] for side in (first, second)]
        return [0.5 if x == y else float(x > y) for x, y in zip(*scores, strict=True)]

    return Judge(compare, name="the gold judge")


class RandomJudge(Judge):
    """A coin for each question, and a grade drawn evenly from 0 to 10; the negative control."""

    def __init__(self, seed: int) -> None:
        self.rng = rng = random.Random(f"random judge {seed}")
        super().__init__(
            lambda prompts, first, second, questions: [rng.random() for _ in prompts],
            lambda prompts, completions: [10 * rng.random() for _ in prompts],
            name="the random judge",
        )

    def state(self) -> dict[str, Any]:
        return {**super().state(), "random": self.rng.getstate()}

    def restore(self, state: Mapping[str, Any]) -> None:
        super().restore(state)
        self.rng.setstate(state["random"])


def build_judge(spec: Mapping[str, Any], progress: Progress | None = None) -> Judge:
    """The judge that a description makes, which can be written down, so that a reward that needs a judge can be saved.

    Args:
        spec: `settings`, those of the recipe's block; `model`, the path of the model where the settings name none;
            `loading`, how its files are read; `gold`, see `load_truth`; `seed`, of the random one;
            `cache`, the folder of a server's answers and of people's; `asker`, for whom people are asked; `sampling`, a
            `Generation` whose engine writes a local one's answers in words, where that is not transformers.
        progress: is told how many of a server's answers have come.
    """
    judge = _build(spec, JudgeSettings.model_validate(spec["settings"]), progress)
    judge.spec = dict(spec)
    return judge


def _build(spec: Mapping[str, Any], settings: JudgeSettings, progress: Progress | None) -> Judge:
    if settings.type == "gold":
        gold = load_truth(spec["gold"])
        assert gold is not None
        return gold_judge(gold)
    if settings.type == "random":
        return RandomJudge(spec["seed"])
    if settings.type == "people":
        assert settings.store is not None
        asker = spec.get("asker", "a policy")
        return PeopleJudge(Path(settings.store), settings.per_round, Path(spec["cache"]), asker)
    if settings.type == "openai":
        assert settings.endpoint is not None
        client = EndpointClient(settings.endpoint, Path(spec["cache"]), progress)
        name = f"the judge {settings.endpoint.model!r}"
        return TextJudge(client, judge_templates(settings), settings.reasoning, settings.max_new_tokens, name)
    path = settings.path or spec["model"]
    sampling = Generation.model_validate(spec.get("sampling", {}))
    return local_judge(resolve(path), path in MODELS, spec["loading"], settings, sampling)
