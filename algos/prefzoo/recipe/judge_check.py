"""Checks of judges: their templates, what they are asked, and whether the judge that decides may decide."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

from prefzoo import registry
from prefzoo.data.read_files import is_database
from prefzoo.errors import PrefzooError
from prefzoo.feedback.store import FeedbackStore
from prefzoo.judges import constitution, dimensions
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.prompt_templates import load_template
from prefzoo.lab import MODELS
from prefzoo.recipe.model_check import same_place
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.zoo.constitutional_ai import ConstitutionalAI
from prefzoo.zoo.feedback_loop import WithLearner


def judge_template_problems(recipe: Recipe) -> list[str]:
    """The judge's templates must exist and use what they are given; the lab's model must be able to follow them."""
    return _template_problems("judge", recipe.judge, recipe)


def final_judge_template_problems(recipe: Recipe) -> list[str]:
    """The same for another judge that decides."""
    final = recipe.evaluation.judge
    return _template_problems("evaluation.judge", final, recipe) if final is not None else []


def _template_problems(block: str, settings: JudgeSettings, recipe: Recipe) -> list[str]:
    problems = []
    for key, template in (("prompt", settings.prompt), ("grading_prompt", settings.grading_prompt)):
        try:
            if template is not None:
                load_template(template, key)
        except PrefzooError as error:
            problems.append(f"{block}{str(error).removeprefix('judge')}")
    if settings.type == "local" and (settings.path or recipe.model.path) in MODELS:
        hint = f"it compares only, in the one wording that it was taught. Another model can be named as {block}.path."
        if settings.reasoning:
            problems.append(f"{block}.reasoning: the lab's model does not reason; {hint}")
        if settings.grading_prompt is not None:
            problems.append(f"{block}.grading_prompt: the lab's model was never taught to grade; {hint}")
    return problems


def question_problems(recipe: Recipe) -> list[str]:
    """The judge must have a place for the question that a principle or a reward asks."""
    rewards = [f"{key}.question" for key, part in recipe.reward.places.items() if part.question is not None]
    judge = recipe.judge
    if rewards and judge.type == "local" and (judge.path or recipe.model.path) in MODELS:
        return [
            f"{key}: the lab's model compares as a whole only, in the one wording that it was taught. Allowed: another "
            "model as judge.path, or no question."
            for key in rewards
        ]
    if rewards and judge.type == "gold":
        return [
            f"{key}: judge.type 'gold' knows one truth and no questions. Allowed: local, openai." for key in rewards
        ]
    asking = [
        f"algorithms.{label}"
        for label, algorithm in recipe.sound_algorithms.items()
        if isinstance(algorithm, ConstitutionalAI) and algorithm.compares_samples
    ]
    asking += rewards
    if asking and recipe.judge.prompt is not None:
        with contextlib.suppress(PrefzooError):  # `judge_template_problems` reports it
            if "question" not in load_template(recipe.judge.prompt, "prompt").variables:
                return [
                    f"judge.prompt: {recipe.judge.prompt!r} does not show {{{{ question }}}}, and "
                    f"{', '.join(asking)} asks one."
                ]
    return []


def sampling_problems(recipe: Recipe) -> list[str]:
    """What must sample while it trains needs a temperature above 0."""
    if recipe.generation.temperature > 0:
        return []
    known = registry.sound()
    names = {label: str(settings.get("algorithm", label)) for label, settings in recipe.algorithms.items()}
    # What sets the temperature of its trainer samples while it trains.
    sampling = [label for label, name in names.items() if name in known and "temperature" in known[name].owned]
    sampling += [
        label
        for label, algorithm in recipe.sound_algorithms.items()
        if getattr(algorithm, "compares_samples", False)
        or (isinstance(algorithm, WithLearner) and "temperature" in algorithm.build_learner().owned)
    ]
    if not sampling:
        return []
    return [f"generation.temperature: 0 is greedy, and {', '.join(sampling)} must sample; it must be above 0"]


def feedback_problems(recipe: Recipe) -> list[str]:
    """The judge must be able to do what algorithms and rewards ask of it."""
    judge = recipe.judge
    asking = [f"algorithms.{label}" for label, needs in recipe.draws_on.items() if "judge" in needs]
    by_judge = {key: part for key, part in recipe.reward.places.items() if part.type == "judge"}
    problems = []
    if judge.type == "gold" and recipe.gold_source in ("none", "judge") and (asking or by_judge):
        problems.append(
            f"judge.type: 'gold' needs a truth for {', '.join([*asking, *by_judge])} to ask: "
            "give gold: {path: FILE.py:NAME}."
        )
    if judge.type == "gold" or (judge.type == "local" and (judge.path or recipe.model.path) in MODELS):
        grading = [f"{key}.by" for key, part in by_judge.items() if part.by == "grade"]
        grading += [
            f"algorithms.{label}.score" for label in recipe.draws_on if recipe.algorithms[label].get("score") == "grade"
        ]
        problems += [
            f"{key}: 'grade' asks for grades, and this judge compares only. Allowed: comparison." for key in grading
        ]
    return problems


def people_problems(recipe: Recipe) -> list[str]:
    """People are asked in rounds, between trainings, and their answers are in a file that is theirs."""
    judge, problems = recipe.judge, list[str]()
    if (evaluation := recipe.evaluation.judge) is not None and evaluation.type == "people":
        problems.append("evaluation.judge.type: 'people' is no judge of all test replies. Say evaluation.human.")
    if judge.type != "people":
        return problems
    for label, algorithm in recipe.sound_algorithms.items():
        if "judge" in algorithm.required and not getattr(algorithm, "asks_people", False):
            problems.append(
                f"algorithms.{label}: people cannot be asked in every step, or about each principle. With judge.type "
                "'people': iterative_dpo with labeller: judge, iterated_rlhf, or rlaif with mode: preferences."
            )
    problems += [
        f"{key}.type: 'judge' would ask people in every step. Allowed with judge.type 'people': trained."
        for key, part in recipe.reward.places.items()
        if part.type == "judge"
    ]
    if recipe.final_judge is judge:
        problems.append(
            "gold: 'judge' would ask people about all test replies. Say evaluation.human, or name evaluation.judge."
        )
    elif recipe.dimension_judge is judge:
        problems.append("evaluation.dimensions: people are not asked about them. Name evaluation.judge.")
    if recipe.tuning is not None:
        problems.append("tuning: every trial would ask people anew. Tune with another judge first.")
    store = Path(judge.store or ".").expanduser()
    if any(Path(file).expanduser().absolute() == store.absolute() for _, file in recipe.data.places().values()):
        problems.append(
            f"judge.store: {judge.store!r} is among the data, too, which every answer would change. Give another file; "
            "the next comparison can have this one as data."
        )
    try:
        if store.exists() and not is_database(store):
            problems.append(f"judge.store: {judge.store!r} is there, and is no store of feedback. Give another file.")
        elif store.exists():
            FeedbackStore(store).close()
        elif not store.absolute().parent.is_dir():
            problems.append(f"judge.store: the folder of {judge.store!r} is not there.")
    except (PrefzooError, OSError) as error:
        problems.append(f"judge.store: {error}.")
    return problems


def constitution_problems(recipe: Recipe) -> list[str]:
    """The constitution must exist and be sound, where one is named or followed."""
    followed = any("constitution" in needs for needs in recipe.draws_on.values())
    return constitution.problems(recipe.constitution_name) if followed or recipe.constitution is not None else []


def dimension_problems(recipe: Recipe) -> list[str]:
    """The file of dimensions must be sound, and the judge able to answer its questions."""
    name, judge = recipe.evaluation.dimensions, recipe.dimension_judge
    if name is None or judge is None:
        return []
    if found := dimensions.problems(name):
        return [f"evaluation.{problem}" for problem in found]
    asked = [each.id for each in dimensions.load(name).dimensions if each.question is not None]
    key = "evaluation.judge" if recipe.evaluation.judge is not None else "judge"
    if not asked:
        return []
    if judge.type == "gold" and recipe.gold_source in ("none", "judge"):
        return [f"{key}.type: 'gold' needs a truth to answer {', '.join(asked)} by: give gold: {{path: FILE.py:NAME}}."]
    if judge.type == "local" and (judge.path or recipe.model.path) in MODELS:
        return [
            f"evaluation.dimensions: {name!r} asks about {', '.join(asked)}, and the lab's model compares as a whole "
            f"only. Allowed: {key}: {{type: gold}}, another model as {key}.path, or dimensions by rule."
        ]
    if judge.prompt is not None:
        with contextlib.suppress(PrefzooError):  # `judge_template_problems` reports it
            if "question" not in load_template(judge.prompt, "prompt").variables:
                return [
                    f"{key}.prompt: {judge.prompt!r} does not show {{{{ question }}}}, and dimensions ask one each."
                ]
    return []


def final_judge_problems(recipe: Recipe) -> list[str]:
    """What is wrong with `gold: judge`: above all that this judge taught what it is to measure."""
    evaluation = recipe.evaluation
    final = recipe.final_judge
    if final is None and evaluation.judge is not None and (evaluation.dimensions or recipe.knowledge_judge):
        return []
    if final is None:
        settings = {"judge": evaluation.judge is not None, "same_judge": evaluation.same_judge}
        return [
            f"evaluation.{key}: has no meaning unless gold is 'judge'." for key, is_set in settings.items() if is_set
        ]
    key = "evaluation.judge" if evaluation.judge is not None else "judge"
    if final.type == "gold":
        return [f"{key}.type: 'gold' is the truth, and with gold: judge none is known. Allowed: local, openai, random."]
    role = _teaching_role(recipe)
    taught = role is not None and _identity(final, recipe) == _identity(recipe.judge, recipe)
    if taught and not evaluation.same_judge:
        return [
            f"gold: 'judge' is the judge that {role}, and it likes what it taught. Name another one as "
            "evaluation.judge, or say evaluation.same_judge: true if you know."
        ]
    if evaluation.same_judge and not taught:
        return ["evaluation.same_judge: true has no meaning here: the judge that decides taught nothing."]
    return []


def _teaching_role(recipe: Recipe) -> str | None:
    """What is learned from the recipe's judge; None where nothing is."""
    if recipe.data.label_with == "judge":
        return "made the labels (data.label_with)"
    if any(part.asks_judge for part in recipe.reward.parts):
        return "gives the reward (reward.type)"
    asking = [label for label, needs in recipe.draws_on.items() if "judge" in needs]
    return f"{', '.join(asking)} learns from" if asking else None


def _identity(judge: JudgeSettings, recipe: Recipe) -> tuple[Any, ...]:
    """The model that judges, wherever it is served, however its folder is spelt and however it is asked."""
    if judge.endpoint is not None:
        return judge.type, judge.endpoint.model
    return judge.type, same_place(judge.path or recipe.model.path)
