"""Who judges in a comparison, and how far that is to be trusted."""

from __future__ import annotations

from typing import Any

from prefzoo.data.agreement import wilson
from prefzoo.data.formats import Row
from prefzoo.interface import Assistant
from prefzoo.judges.assistant import EndpointAssistant, ModelAssistant
from prefzoo.judges.build_judge import build
from prefzoo.judges.endpoint import EndpointAsker
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.models.loading import resolve
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run.stage_graph import Plan
from prefzoo.run.stages.recipe_inputs import described_gold, gold_function, loading
from prefzoo.types import Progress

CACHE = "judge-answers"
"""Folder of a comparison in which a server's answers are kept."""


def labeller(recipe: Recipe) -> JudgeSettings:
    """Who labels: the truth, or the recipe's judge."""
    return JudgeSettings(type="gold") if recipe.data.label_with == "gold" else recipe.judge


def judge_of(plan: Plan, settings: JudgeSettings, seed: int | None = None, progress: Progress | None = None) -> Judge:
    """The judge that a block of the recipe describes.

    Args:
        seed: of a random one; None is the comparison's first.
        progress: is told how many of a server's answers have come.
    """
    recipe = plan.recipe
    described = {
        "settings": settings.model_dump(mode="json"),
        "model": recipe.model.path,
        "loading": loading(recipe, recipe.adapter),
        "gold": described_gold(recipe),
        "seed": recipe.seeds[0] if seed is None else seed,
        "cache": str((plan.out / CACHE).resolve()),
    }
    return build(described, progress)


def assistant_of(plan: Plan, progress: Progress) -> Assistant:
    """Who writes critiques and revisions: the judge's model where the judge is one, else the recipe's."""
    recipe = plan.recipe
    if recipe.judge.endpoint is not None:
        asker = EndpointAsker(recipe.judge.endpoint, plan.out / CACHE, progress)
        return EndpointAssistant(asker, recipe.generation.max_new_tokens)
    path = recipe.judge.path or recipe.model.path
    return ModelAssistant.load(resolve(path), recipe.generation, loading(recipe, recipe.adapter))


def judge_report(recipe: Recipe, judge: Judge, rows: list[Row]) -> dict[str, Any]:
    """What the judge was asked, and how often it chose as the truth does, where there is one."""
    said: dict[str, Any] = {"type": labeller(recipe).type, **judge.report()}
    pairs = [row for row in rows if row.chosen is not None and row.rejected is not None]
    if (gold := gold_function(recipe)) is not None and pairs:
        sides = [[each["gold"] for each in gold([row.prompt for row in pairs], texts)] for texts in _sides(pairs)]
        settled = [a > b for a, b in zip(*sides, strict=True) if a != b]
        if settled:
            share = sum(settled) / len(settled)
            said |= {"gold_agreement": share, "gold_agreement_ci95": list(wilson(share, len(settled)))}
    return said


def _sides(pairs: list[Row]) -> tuple[list[str], list[str]]:
    return [row.chosen or "" for row in pairs], [row.rejected or "" for row in pairs]
