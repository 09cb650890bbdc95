"""A judge out of a description that can be written down, so that a reward or a policy that needs it can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefzoo.data import sources
from prefzoo.judges.control_judges import gold_judge, random_judge
from prefzoo.judges.endpoint import EndpointAsker
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.local_judge import local_judge
from prefzoo.judges.prompt_templates import wording
from prefzoo.judges.text_judge import worded_judge
from prefzoo.models.loading import resolve
from prefzoo.scoring_function import FunctionReward
from prefzoo.types import Progress, Truth


def truth(described: str | None) -> Truth | None:
    """The truth of a source by name, or of a function as `FILE.py:NAME`; None where there is none."""
    if described is None:
        return None
    if ".py:" not in described:
        return sources.load(described).gold
    scored = FunctionReward(described, key="gold.path")
    return lambda prompts, completions: [{"gold": value} for value in scored(prompts, completions)]


def build(described: Mapping[str, Any], progress: Progress | None = None) -> Judge:
    """The judge.

    Args:
        described: `settings`, those of the recipe's block; `model`, the path of the model where the settings name none;
            `loading`, how its files are read; `gold`, see `truth`; `seed`, of the random one;
            `cache`, the folder of a server's answers.
        progress: is told how many of a server's answers have come.
    """
    judge = _built(described, JudgeSettings.model_validate(described["settings"]), progress)
    judge.described = dict(described)
    return judge


def _built(described: Mapping[str, Any], settings: JudgeSettings, progress: Progress | None) -> Judge:
    if settings.type == "gold":
        gold = truth(described["gold"])
        assert gold is not None
        return gold_judge(gold)
    if settings.type == "random":
        return random_judge(described["seed"])
    if settings.type == "openai":
        assert settings.endpoint is not None
        asker = EndpointAsker(settings.endpoint, Path(described["cache"]), progress)
        name = f"the judge {settings.endpoint.model!r}"
        return worded_judge(asker, wording(settings, False), settings.reasoning, settings.max_new_tokens, name)
    path = settings.path or described["model"]
    return local_judge(resolve(path), path == "lab", described["loading"], settings)
