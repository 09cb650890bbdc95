"""What a recipe's `judge:` block is wrong about together with files and with the model."""

from __future__ import annotations

from prefzoo.comparison.recipe.blocks import Recipe
from prefzoo.errors import PrefzooError


def judge_problems(recipe: Recipe) -> list[str]:
    """Whether its templates are there and use what they are given, and whether the lab's model can do what it is to."""
    from prefzoo.feedback.judges.wording import form

    settings = recipe.judge
    problems = []
    for key, template in (("prompt", settings.prompt), ("grading_prompt", settings.grading_prompt)):
        try:
            if template is not None:
                form(template, key)
        except PrefzooError as error:
            problems.append(str(error))
    if settings.type == "local" and (settings.path or recipe.model.path) == "lab":
        hint = "it compares only, in the one wording that it was taught. Another model can be named as judge.path."
        if settings.reasoning:
            problems.append(f"judge.reasoning: the lab's model does not reason; {hint}")
        if settings.grading_prompt is not None:
            problems.append(f"judge.grading_prompt: the lab's model was never taught to grade; {hint}")
    return problems
