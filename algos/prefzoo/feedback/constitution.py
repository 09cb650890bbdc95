"""A constitution: principles that replies are criticised, revised and compared by (Bai et al. 2022)."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import Field, ValidationError, field_validator

from prefzoo.errors import RecipeError
from prefzoo.interface import Prompt
from prefzoo.mistakes import mistakes
from prefzoo.settings import Settings

FOLDER = Path(__file__).parent / "constitutions"


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
        """Whether it is one for this prompt."""
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

    @field_validator("principles")
    @classmethod
    def _own_ids(cls, principles: list[Principle]) -> list[Principle]:
        ids = [each.id for each in principles]
        if twice := sorted({each for each in ids if ids.count(each) > 1}):
            raise ValueError(f"the id {twice[0]!r} is given twice; each principle needs one of its own")
        return principles

    def draw(self, prompt: Prompt, rng: random.Random) -> Principle | None:
        """One principle that applies to the prompt, by weight; None where none does."""
        fitting = [each for each in self.principles if each.applies(prompt)]
        return rng.choices(fitting, [each.weight for each in fitting])[0] if fitting else None


def shipped() -> dict[str, Path]:
    """The constitutions that come with the package: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.yaml"))}


def load(name: str, key: str = "constitution") -> Constitution:
    """The constitution of a file, or one of `shipped` by name.

    Raises:
        RecipeError: listing every mistake in it.
    """
    path = shipped().get(name) or Path(name).expanduser()
    if not path.is_file():
        raise RecipeError(key, [f"{key}: there is no file {name!r}; shipped ones: {', '.join(shipped())}"])
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        return Constitution.model_validate(content)
    except yaml.YAMLError as error:
        raise RecipeError(key, [f"{path}: is no YAML: {' '.join(str(error).split())}"]) from error
    except ValidationError as error:
        given = content if isinstance(content, dict) else {}
        raise RecipeError(key, [f"{path}: {each.key}: {each.said}" for each in mistakes(error, given)]) from error
