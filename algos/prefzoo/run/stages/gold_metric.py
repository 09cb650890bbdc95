"""The gold metric of policies: the truth, or a judge that compares their replies with the start's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefzoo.judges import constitution, dimensions
from prefzoo.judges.dimensions import METRIC as DIMENSION
from prefzoo.judges.dimensions import ByDimension, Dimension, Dimensions
from prefzoo.judges.fact_checking import FactChecker
from prefzoo.judges.judge import Judge, JudgeCounts
from prefzoo.judges.prompt_templates import load_template
from prefzoo.lab import MODELS
from prefzoo.rewards.knowledge_reward import build_fact_checker
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import Plan
from prefzoo.run.stages.recipe_inputs import checked_by_of, gold_function, judge_of, loading
from prefzoo.types import Prompt, Truth


def gold_metric(plan: Plan, start: Path | None) -> Truth | None:
    """A function from prompts and replies to `{"gold": ..}` for each; None where only the proxy reward is known.

    With `gold: judge` it is P(the reply is better than the start's to the same prompt), and 0.5 for the start.

    Args:
        start: folder of the start's evaluation with the same seed; None where the start itself is measured.
    """
    settings = plan.recipe.final_judge
    if settings is None:
        return gold_function(plan.recipe)
    if start is None:
        return lambda prompts, completions: [{"gold": 0.5} for _ in completions]
    return AgainstTheStart(judge_of(plan, settings), read_records(start))


def dimension_metric(plan: Plan, start: Path | None) -> ByDimension | None:
    """What measures replies by the recipe's dimensions; None where it names none.

    Args:
        start: as of `gold_metric`.
    """
    settings = plan.recipe.dimension_judge
    if settings is None:
        return None
    found = dimensions.load(str(plan.recipe.evaluation.dimensions))
    by_truth = settings.type == "gold"
    asked = any(each.question is not None for each in found.dimensions) and start is not None and not by_truth
    judge = judge_of(plan, settings) if asked else None
    return ByDimension(
        found, judge, None if start is None else read_records(start), gold_function(plan.recipe) if by_truth else None
    )


def principle_scores(
    plan: Plan, prompts: Sequence[Prompt], replies: Sequence[str], others: Sequence[str]
) -> list[dict[str, float | None]]:
    """For each reply by principle: P(it keeps the principle better than the other reply to the prompt), by the recipe's
    judge, in both orders; None where no answer could be read.

    It is told where something is learned from the judge and the recipe names or follows a constitution, of principles
    that apply to the prompt, and that the judge can be asked about: not by people or the lab's model, which compares as
    a whole, or by a prompt without a place for a question; by the truth those that are attributes of gold by name.
    """
    recipe, settings = plan.recipe, plan.recipe.judge
    followed = recipe.constitution is not None or any("constitution" in needs for needs in recipe.draws_on.values())
    found: list[dict[str, float | None]] = [{} for _ in prompts]
    if not followed or not recipe.uses_judge or not prompts or not _answers_questions(plan):
        return found
    principles = constitution.load(recipe.constitution_name).principles
    truth, judge = (gold_function(recipe), None) if settings.type == "gold" else (None, judge_of(plan, settings))
    if truth is not None:
        known = truth([prompts[0]], [replies[0]])[0]
        principles = [each for each in principles if f"gold/{each.id}" in known]
    for each in principles:
        at = [k for k, prompt in enumerate(prompts) if each.applies(prompt)]
        asked, (first, second) = [prompts[k] for k in at], [[texts[k] for k in at] for texts in (replies, others)]
        if judge is None:
            one = Dimensions(dimensions=[Dimension(id=each.id, question=each.preference)])
            marks = ByDimension(one, None, [{"reply": reply} for reply in second], truth)(asked, first)
            better: Sequence[float | None] = [mark[DIMENSION + each.id] for mark in marks]
        else:
            both = judge.compare_both_orders(asked, first, second, [each.preference] * len(at))
            read = [
                [p for p in (mine, None if its is None else 1 - its) if p is not None]
                for mine, its in zip(*both, strict=True)
            ]
            better = [sum(answers) / len(answers) if answers else None for answers in read]
        for k, p in zip(at, better, strict=True):
            found[k][each.id] = p
    return found


def _answers_questions(plan: Plan) -> bool:
    """Whether the recipe's judge can be asked about one principle."""
    recipe, settings = plan.recipe, plan.recipe.judge
    if settings.type == "gold":
        return gold_function(recipe) is not None
    if settings.type != "people" and settings.prompt is not None:
        return "question" in load_template(settings.prompt, "prompt").variables
    return settings.type == "openai" or (
        settings.type == "local" and (settings.path or recipe.model.path) not in MODELS
    )


def knowledge_metric(plan: Plan) -> FactChecker | None:
    """What checks replies against the recipe's documents; None where it names none."""
    knowledge, recipe = plan.recipe.evaluation.knowledge, plan.recipe
    if knowledge is None:
        return None
    checked_by = checked_by_of(plan, knowledge.path, recipe.knowledge_judge or recipe.judge)
    return build_fact_checker(knowledge.documents, knowledge.k, checked_by, loading(recipe, recipe.adapter))


class AgainstTheStart:
    """A judge as a truth: P(the reply is better than the start's to the same prompt).

    Args:
        judge: compares two replies.
        records: the start's replies to the test prompts.
    """

    def __init__(self, judge: Judge, records: Sequence[Mapping[str, Any]]) -> None:
        self.judge, self.records = judge, records

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Mapping[str, float]]:
        assert list(prompts) == [record["prompt"] for record in self.records], "every policy answers the same prompts"
        self.judge.counts, self.judge.failure_examples = JudgeCounts(), []
        better = self.judge(prompts, completions, [record["reply"] for record in self.records])
        return [{"gold": p} for p in better]

    def report(self) -> dict[str, Any]:
        """What the judge was asked about the last replies (see `JudgeCounts`), and some unreadable answers."""
        return {**asdict(self.judge.counts), "failure_examples": self.judge.failure_examples}
