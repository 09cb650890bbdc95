"""Who judges in a comparison, and how far that is to be trusted."""

from __future__ import annotations

from typing import Any

from prefzoo.comparison.recipe.blocks import Recipe
from prefzoo.comparison.stages.given import gold_function, loading
from prefzoo.data.formats import Row
from prefzoo.feedback.judges.controls import gold_judge, random_judge
from prefzoo.feedback.judges.judge import Judge
from prefzoo.feedback.judges.local import local_judge
from prefzoo.feedback.reward_report import wilson
from prefzoo.policies.loading import resolve


def judge_of(recipe: Recipe) -> Judge:
    """Who labels: the truth, or the recipe's judge."""
    by_truth = recipe.data.label_with == "gold" or recipe.judge.type == "gold"
    if by_truth:
        gold = gold_function(recipe)
        assert gold is not None
        return gold_judge(gold)
    if recipe.judge.type == "random":
        return random_judge(recipe.seeds[0])
    path = recipe.judge.path or recipe.model.path
    return local_judge(resolve(path), path == "lab", loading(recipe, recipe.adapter), recipe.judge)


def judge_report(recipe: Recipe, judge: Judge, rows: list[Row]) -> dict[str, Any]:
    """What the judge was asked, and how often it chose as the truth does, where there is one."""
    by = "gold" if recipe.data.label_with == "gold" else recipe.judge.type
    said: dict[str, Any] = {"type": by, **judge.report()}
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
