"""Whether the judge that decides a comparison may."""

from __future__ import annotations

from typing import Any

from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.recipe.model_check import same_place
from prefzoo.recipe.recipe_schema import Recipe


def final_judge_problems(recipe: Recipe) -> list[str]:
    """What is wrong with `gold: judge`: above all that this judge taught what it is to measure."""
    given = recipe.evaluation
    final = recipe.final_judge
    if final is None:
        named = {"judge": given.judge is not None, "same_judge": given.same_judge}
        return [
            f"evaluation.{key}: has no meaning unless gold is 'judge'." for key, is_given in named.items() if is_given
        ]
    key = "evaluation.judge" if given.judge is not None else "judge"
    if final.type == "gold":
        return [f"{key}.type: 'gold' is the truth, and with gold: judge none is known. Allowed: local, openai, random."]
    taught = _taught(recipe)
    same = _who(final, recipe) == _who(recipe.judge, recipe)
    if taught and same and not given.same_judge:
        return [
            f"gold: 'judge' is the judge that {taught}, and it likes what it taught. Name another one as "
            "evaluation.judge, or say evaluation.same_judge: true if you know."
        ]
    if given.same_judge and not (taught and same):
        return ["evaluation.same_judge: true has no meaning here: the judge that decides taught nothing."]
    return []


def _taught(recipe: Recipe) -> str | None:
    """What is learned from the recipe's judge, where anything is."""
    if recipe.data.label_with == "judge":
        return "made the labels (data.label_with)"
    if any(part.type == "judge" for part in recipe.reward.parts):
        return "gives the reward (reward.type)"
    asking = [label for label, drawn in recipe.draws_on.items() if "judge" in drawn]
    return f"{', '.join(asking)} learns from" if asking else None


def _who(judge: JudgeSettings, recipe: Recipe) -> tuple[Any, ...]:
    """Which model judges, wherever it is served, however its folder is spelt and however it is asked."""
    if judge.endpoint is not None:
        return judge.type, judge.endpoint.model
    return judge.type, same_place(judge.path or recipe.model.path)
