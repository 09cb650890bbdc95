"""What a recipe's judges are wrong about together with files and with the model."""

from __future__ import annotations

from prefzoo.errors import PrefzooError
from prefzoo.judges import constitution
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.recipe.recipe_schema import Recipe


def judge_words(recipe: Recipe) -> list[str]:
    """Whether the judge's templates are there and use what they are given, and whether the lab's model can do what it
    is to."""
    return _words("judge", recipe.judge, recipe)


def final_judge_words(recipe: Recipe) -> list[str]:
    """The same of another judge that decides."""
    final = recipe.evaluation.judge
    return _words("evaluation.judge", final, recipe) if final is not None else []


def _words(block: str, settings: JudgeSettings, recipe: Recipe) -> list[str]:
    from prefzoo.judges.prompt_templates import load_template

    problems = []
    for key, template in (("prompt", settings.prompt), ("grading_prompt", settings.grading_prompt)):
        try:
            if template is not None:
                load_template(template, key)
        except PrefzooError as error:
            problems.append(f"{block}{str(error).removeprefix('judge')}")
    if settings.type == "local" and (settings.path or recipe.model.path) == "lab":
        hint = f"it compares only, in the one wording that it was taught. Another model can be named as {block}.path."
        if settings.reasoning:
            problems.append(f"{block}.reasoning: the lab's model does not reason; {hint}")
        if settings.grading_prompt is not None:
            problems.append(f"{block}.grading_prompt: the lab's model was never taught to grade; {hint}")
    return problems


def feedback_problems(recipe: Recipe) -> list[str]:
    """Whether the judge can do what algorithms and rewards ask of it."""
    judge = recipe.judge
    asking = [f"algorithms.{label}" for label, draws_on in recipe.draws_on.items() if "judge" in draws_on]
    by_judge = {key: part for key, part in recipe.reward.places.items() if part.type == "judge"}
    problems = []
    if judge.type == "gold" and recipe.gold_source in ("none", "judge") and (asking or by_judge):
        problems.append(
            f"judge.type: 'gold' needs a truth for {', '.join([*asking, *by_judge])} to ask: "
            "give gold: {path: FILE.py:NAME}."
        )
    if judge.type == "gold" or (judge.type == "local" and (judge.path or recipe.model.path) == "lab"):
        graded = [f"{key}.by" for key, part in by_judge.items() if part.by == "grade"]
        graded += [
            f"algorithms.{label}.score" for label in recipe.draws_on if recipe.algorithms[label].get("score") == "grade"
        ]
        problems += [
            f"{key}: 'grade' asks for grades, and this judge compares only. Allowed: comparison." for key in graded
        ]
    return problems


def constitution_problems(recipe: Recipe) -> list[str]:
    """Whether the constitution is there and sound, where one is named or followed."""
    followed = any("constitution" in draws_on for draws_on in recipe.draws_on.values())
    return constitution.problems(recipe.constitution_name) if followed or recipe.constitution is not None else []
