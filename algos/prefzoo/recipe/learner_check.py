"""What algorithms and their learners are wrong about together with the rest of a recipe."""

from __future__ import annotations

import contextlib

from prefzoo import registry
from prefzoo.errors import PrefzooError
from prefzoo.interface import Algorithm
from prefzoo.judges.prompt_templates import form
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.zoo.constitutional_ai import ConstitutionalAI
from prefzoo.zoo.feedback_loop import FeedbackLoop


def sampling_problems(recipe: Recipe) -> list[str]:
    """Whether what must sample while it trains can."""
    if recipe.generation.temperature > 0:
        return []
    known = registry.sound()
    named = {label: str(settings.get("algorithm", label)) for label, settings in recipe.algorithms.items()}
    # What sets the temperature of its trainer samples while it trains.
    sampling = [label for label, name in named.items() if name in known and "temperature" in known[name].owned]
    sampling += [
        label
        for label, algorithm in _sound(recipe).items()
        if isinstance(algorithm, FeedbackLoop)
        and (algorithm.compares_samples or "temperature" in algorithm.build_learner().owned)
    ]
    if not sampling:
        return []
    return [f"generation.temperature: 0 is greedy, and {', '.join(sampling)} must sample; it must be above 0"]


def question_problems(recipe: Recipe) -> list[str]:
    """Whether the judge's template has a place for the question that a principle asks."""
    asking = [
        label
        for label, algorithm in _sound(recipe).items()
        if isinstance(algorithm, ConstitutionalAI) and algorithm.compares_samples
    ]
    if not asking or recipe.judge.prompt is None:
        return []
    with contextlib.suppress(PrefzooError):  # what else is wrong with it is told elsewhere
        if "question" not in form(recipe.judge.prompt, "prompt").variables:
            return [
                f"judge.prompt: {recipe.judge.prompt!r} does not show {{{{ question }}}}, and "
                f"{', '.join(f'algorithms.{label}' for label in asking)} asks one for each principle."
            ]
    return []


def _sound(recipe: Recipe) -> dict[str, Algorithm]:
    """The algorithms by label; those with mistakes of their own are left out."""
    found = {}
    for label in recipe.algorithms:
        with contextlib.suppress(PrefzooError, KeyError, TypeError, ValueError):
            found[label] = recipe.algorithm(label)
    return found
