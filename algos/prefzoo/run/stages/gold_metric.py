"""The gold metric of policies: the truth, or a judge that compares their replies with the start's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefzoo.judges.judge import Asked, Judge
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import Plan
from prefzoo.run.stages.recipe_inputs import gold_function, judge_of
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
        self.judge.asked, self.judge.examples = Asked(), []
        better = self.judge(prompts, completions, [record["reply"] for record in self.records])
        return [{"gold": p} for p in better]

    def report(self) -> dict[str, Any]:
        """What the judge was asked about the last replies (see `judge.Asked`), and some unreadable answers."""
        return {**asdict(self.judge.asked), "failure_examples": self.judge.examples}
