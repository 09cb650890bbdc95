"""A constitution: principles that replies are criticised, revised and compared by (Bai et al. 2022)."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from jinja2 import TemplateError, TemplateSyntaxError, meta
from pydantic import Field, ValidationInfo, field_validator

from prefzoo.bounded_template import ENVIRONMENT, EXAMPLE, fill_in, template_problem
from prefzoo.errors import unknown
from prefzoo.judges.shipped_files import ShippedFiles, refuse_repeated
from prefzoo.settings import Settings
from prefzoo.types import Prompt


class Principle(Settings):
    """One rule of conduct.

    Attributes:
        id: names it in transcripts and reports.
        critique: asks for what is wrong with a reply by this rule.
        revision: asks for a reply that is mended by the critique.
        preference: asks which of two replies keeps this rule better.
        weight: how often it is drawn, relative to the others.
        where: a regular expression; the rule is drawn only for prompts whose last message it is found in. None: for
            all.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$")]
    critique: Annotated[str, Field(min_length=1)]
    revision: Annotated[str, Field(min_length=1)]
    preference: Annotated[str, Field(min_length=1)]
    weight: Annotated[float, Field(gt=0)] = 1.0
    where: str | None = None

    @field_validator("where")
    @classmethod
    def _is_expression(cls, where: str | None) -> str | None:
        if where is not None:
            try:
                re.compile(where)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
        return where

    def applies(self, prompt: Prompt) -> bool:
        """Whether its `where` is found in the prompt's last message."""
        return self.where is None or re.search(self.where, prompt[-1]["content"]) is not None


class Constitution(Settings):
    """Principles, and the words in which requests with them are put.

    Attributes:
        principles: at least one, each with an id of its own.
        critique_prompt, revision_prompt: Jinja templates of the two requests; they are given `prompt` (the messages),
            `reply`, `principle`, and the second also `critique`.
    """

    principles: Annotated[list[Principle], Field(min_length=1)]
    critique_prompt: str
    revision_prompt: str

    @field_validator("critique_prompt", "revision_prompt")
    @classmethod
    def _is_template(cls, text: str, info: ValidationInfo) -> str:
        principle = Principle(id="any", critique="?", revision="?", preference="?")
        example: dict[str, Any] = {
            "prompt": [{"role": "user", "content": EXAMPLE}],
            "reply": EXAMPLE,
            "principle": principle,
            **({"critique": EXAMPLE} if info.field_name == "revision_prompt" else {}),
        }
        shipped = (info.context or {}).get("shipped", False)
        if problem := None if shipped else template_problem(text, **{**example, "principle": principle.model_dump()}):
            raise ValueError(problem)
        try:
            if stray := sorted(meta.find_undeclared_variables(ENVIRONMENT.parse(text)) - example.keys()):
                raise ValueError(unknown("variable", stray[0], example))
            fill_in(text, **example)
        except TemplateSyntaxError as error:
            raise ValueError(f"is no Jinja template: {error.message} (line {error.lineno})") from error
        except (TemplateError, ArithmeticError, TypeError, RecursionError) as error:
            raise ValueError(f"cannot be filled in: {error}") from error
        return text

    @field_validator("principles")
    @classmethod
    def _own_ids(cls, principles: list[Principle]) -> list[Principle]:
        refuse_repeated([principle.id for principle in principles], "principle")
        return principles

    def draw(self, prompt: Prompt, rng: random.Random) -> Principle | None:
        """One principle that applies to the prompt, by weight; None where none does."""
        applying = [principle for principle in self.principles if principle.applies(prompt)]
        return rng.choices(applying, [principle.weight for principle in applying])[0] if applying else None


def _fields_at(path: Sequence[Any]) -> list[str]:
    return list((Principle if "principles" in path[:1] else Constitution).model_fields)


_FILES = ShippedFiles("constitution", Path(__file__).parent / "constitutions", Constitution, _fields_at)
shipped, find, load, problems = _FILES.shipped, _FILES.find, _FILES.load, _FILES.problems
