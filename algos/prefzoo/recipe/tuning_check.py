"""What is wrong with the tuning of a recipe, together with the rest of it."""

from __future__ import annotations

from prefzoo.recipe.recipe_schema import LONGEST_LABEL, Recipe
from prefzoo.recipe.tuning_space import UNTUNED, not_tuned, tune_problems, tuning_seeds


def tuning_problems(recipe: Recipe) -> list[str]:
    """A sentence for each."""
    tuning = recipe.tuning
    if tuning is None:
        return []
    problems = []
    if recipe.data.splits.validation == 0:
        problems.append(
            "data.splits.validation: 0 leaves no prompts by which tuning could choose settings; "
            "say for instance `splits: {train: 0.7, validation: 0.1, test: 0.2}`, or `tuning: null`"
        )
    if tuning.sampler == "grid" and tuning.equal != "trials":
        problems.append(
            f"tuning.sampler: 'grid' has as many points as there are trials, and with equal: {tuning.equal} that "
            "number is not known before. Allowed: tpe, random."
        )
    truth = recipe.gold_source not in ("none", "judge")
    if tuning.objective == "gold" and not truth:
        problems.append("tuning.objective: 'gold' is not known here. Allowed: auto, reward, or say `gold`.")
    if tuning.objective == "judge" and recipe.final_judge is None:
        problems.append("tuning.objective: 'judge' needs a judge that decides: say `gold: judge`. Allowed: auto.")
    by_reward = tuning.objective == "reward" or (tuning.objective == "auto" and recipe.gold_source == "none")
    if by_reward and recipe.reward.type == "random":
        problems.append(
            "tuning.objective: the reward is random, by which no setting is better. Give `gold`, or another reward."
        )
    for label in recipe.sound_algorithms:
        if tune_problems(recipe, label) or not_tuned(recipe, label) is not None:
            continue
        beside = UNTUNED.format(label)
        if beside in recipe.algorithms:
            problems.append(f"algorithms.{beside}: is the name of {label!r} as it was before tuning; choose another")
        if len(beside) > LONGEST_LABEL:
            problems.append(
                f"algorithms.{label}: {beside!r} is compared too, and has more than {LONGEST_LABEL} letters"
            )
    if taken := sorted(set(tuning_seeds(recipe)) & set(recipe.seeds)):
        problems.append(f"seeds: {', '.join(map(str, taken))} trained the trials of tuning; choose others")
    return problems
