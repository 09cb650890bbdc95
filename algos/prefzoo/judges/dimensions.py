"""Dimensions that replies are measured by, each a question of its own to the judge or a rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from prefzoo.errors import PrefzooError, unknown
from prefzoo.judges.judge import Judge, JudgeCounts
from prefzoo.judges.shipped_files import ShippedFiles, refuse_repeated
from prefzoo.scoring_function import FunctionReward, function_problem
from prefzoo.settings import Settings
from prefzoo.types import Prompt, Truth

METRIC = "dimension/"
"""Begins the name of a dimension's metric."""


class Dimension(Settings):
    """One respect in which replies are better or worse.

    Attributes:
        id: names it in tables and figures.
        question: asks the judge which of two replies is better in it. The metric is P(better than the start's reply).
        rule: `FILE.py:NAME` in its place, a function `(prompts, completions) -> numbers`, higher is better.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    question: Annotated[str, Field(min_length=1)] | None = None
    rule: str | None = None

    @field_validator("rule")
    @classmethod
    def _is_function(cls, rule: str | None) -> str | None:
        if rule is not None and (problem := function_problem(rule)):
            raise ValueError(problem)
        return rule

    @model_validator(mode="after")
    def _has_one(self) -> Dimension:
        if (self.question is None) == (self.rule is None):
            raise ValueError(f"{self.id}: needs either a question to the judge or a rule, FILE.py:NAME")
        return self


class Dimensions(Settings):
    """A file of dimensions."""

    dimensions: Annotated[list[Dimension], Field(min_length=1)]

    @field_validator("dimensions")
    @classmethod
    def _own_ids(cls, dimensions: list[Dimension]) -> list[Dimension]:
        refuse_repeated([dimension.id for dimension in dimensions], "dimension")
        return dimensions


def _fields_at(path: Sequence[Any]) -> list[str]:
    return list((Dimension if "dimensions" in path[:1] else Dimensions).model_fields)


_FILES = ShippedFiles("dimensions", Path(__file__).parent / "dimension_sets", Dimensions, _fields_at)
shipped, find, load, problems = _FILES.shipped, _FILES.find, _FILES.load, _FILES.problems


class ByDimension:
    """Measures replies in each dimension, as `{"dimension/<id>": number}`.

    Args:
        dimensions: what is measured.
        judge: answers the questions; each is asked in both orders. None where there is none to ask.
        records: the start's replies to the prompts, which others are compared with; None for the start itself, which
            has one half everywhere.
        truth: for a judge that is the truth: gold's attribute of a dimension's name answers its question.
    """

    def __init__(
        self,
        dimensions: Dimensions,
        judge: Judge | None,
        records: Sequence[Mapping[str, Any]] | None,
        truth: Truth | None = None,
    ) -> None:
        self.dimensions, self.judge, self.records, self.truth = dimensions.dimensions, judge, records, truth
        self.asked: dict[str, Any] = {}

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[Mapping[str, float]]:
        columns = {METRIC + each.id: self._column(each, prompts, completions) for each in self.dimensions}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def _column(self, dimension: Dimension, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        if dimension.rule is not None:
            return FunctionReward(dimension.rule, "rule")(prompts, completions)
        if self.records is None:
            return [0.5 for _ in completions]
        others = [str(record["reply"]) for record in self.records]
        if self.truth is not None:
            return self._by_truth(dimension, prompts, completions, others)
        assert self.judge is not None, "a question needs a judge"
        self.judge.counts, self.judge.failure_examples = JudgeCounts(), []
        better = self.judge(prompts, completions, others, [dimension.question] * len(prompts))
        self.asked[dimension.id] = asdict(self.judge.counts)
        return better

    def _by_truth(
        self, dimension: Dimension, prompts: Sequence[Prompt], completions: Sequence[str], others: Sequence[str]
    ) -> list[float]:
        assert self.truth is not None
        sides, name = (
            [self.truth(list(prompts), list(texts)) for texts in (completions, others)],
            f"gold/{dimension.id}",
        )
        known = [key.removeprefix("gold/") for key in sides[0][0] if key.startswith("gold/")]
        if dimension.id not in known:
            raise PrefzooError(f"{unknown('attribute of gold', dimension.id, known)} (judge.type: gold)")
        return [(x[name] > y[name]) + 0.5 * (x[name] == y[name]) for x, y in zip(*sides, strict=True)]
