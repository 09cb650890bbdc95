"""The gold metric of policies: the truth, or a judge that compares their replies with the start's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefzoo.judges import dimensions
from prefzoo.judges.dimensions import ByDimension
from prefzoo.judges.fact_checking import FactChecker
from prefzoo.judges.judge import Judge, JudgeCounts
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
