"""What policies are measured by: the truth, or a judge that compares their replies with the start's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prefzoo.comparison.plan import Plan
from prefzoo.comparison.records import read_records
from prefzoo.comparison.stages.given import gold_function
from prefzoo.comparison.stages.judging import judge_of
from prefzoo.interface import Prompt, Truth


def measure_of(plan: Plan, start: Path | None) -> Truth | None:
    """Prompts and replies to `{"gold": ..}` each; None where nothing but the proxy reward is known.

    With `gold: judge` it is P(the reply is better than the start's to the same prompt), and 0.5 for the start.

    Args:
        start: folder of the start's evaluation with the same seed; None where the start itself is measured.
    """
    settings = plan.recipe.final_judge
    if settings is None:
        return gold_function(plan.recipe)
    if start is None:
        return lambda prompts, completions: [{"gold": 0.5} for _ in completions]
    judge, records = judge_of(plan, settings), read_records(start)

    def measure(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Mapping[str, float]]:
        assert list(prompts) == [record["prompt"] for record in records], "every policy answers the same test prompts"
        better = judge(prompts, completions, [record["reply"] for record in records])
        return [{"gold": p} for p in better]

    return measure
