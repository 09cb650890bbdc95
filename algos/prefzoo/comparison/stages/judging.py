"""Who judges in a comparison, and how far that is to be trusted."""

from __future__ import annotations

from typing import Any

from prefzoo.comparison.recipe.blocks import Recipe
from prefzoo.comparison.stages.given import described_gold, gold_function, loading
from prefzoo.data.formats import Row
from prefzoo.feedback.assistant import ModelAssistant
from prefzoo.feedback.judges.build import build
from prefzoo.feedback.judges.judge import Judge
from prefzoo.feedback.judges.settings import JudgeSettings
from prefzoo.feedback.reward_report import wilson
from prefzoo.interface import Assistant
from prefzoo.policies.loading import resolve


def labeller(recipe: Recipe) -> JudgeSettings:
    """Who labels: the truth, or the recipe's judge."""
    return JudgeSettings(type="gold") if recipe.data.label_with == "gold" else recipe.judge


def judge_of(recipe: Recipe, settings: JudgeSettings, seed: int | None = None) -> Judge:
    """The judge that a block of the recipe describes.

    Args:
        seed: of a random one; None is the comparison's first.
    """
    return build(
        {
            "settings": settings.model_dump(mode="json"),
            "model": recipe.model.path,
            "loading": loading(recipe, recipe.adapter),
            "gold": described_gold(recipe),
            "seed": recipe.seeds[0] if seed is None else seed,
        }
    )


def assistant_of(recipe: Recipe) -> Assistant:
    """Who writes critiques and revisions: the judge's model where the judge is one, else the recipe's."""
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
