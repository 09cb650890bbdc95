"""The requests that a judge is asked by: templates in files, one for comparing two replies and one for grading one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, meta

from prefzoo.atomic_files import read_text, text_sha256, usable_path
from prefzoo.bounded_template import ENVIRONMENT, EXAMPLE, fill_in, template_problem
from prefzoo.errors import PrefzooError, unknown
from prefzoo.judges.judge_settings import JudgeSettings

FOLDER = Path(__file__).parent / "prompts"
SHOWN = {"prompt": ("first", "second"), "grading_prompt": ("reply",)}
"""What a template must show, by the recipe's key for it."""
ALLOWED = {"prompt": ("prompt", "first", "second", "question"), "grading_prompt": ("prompt", "reply")}
"""What a template may use: `prompt` is the list of messages, `question` what is asked about a pair, or None."""

_MESSAGES = [{"role": role, "content": EXAMPLE} for role in ("user", "assistant", "user")]


@dataclass(frozen=True)
class PromptTemplate:
    """A Jinja template of one request.

    Attributes:
        name: of its file.
        text: what is in it.
        variables: which of `ALLOWED` it uses.
    """

    name: str
    text: str
    variables: frozenset[str]

    def render(self, **values: Any) -> str:
        """The request with its variables filled in.

        Raises:
            PrefzooError: where that cannot be done.
        """
        try:
            return fill_in(self.text, **values)
        except (TemplateError, ArithmeticError, TypeError, ValueError, RecursionError) as error:
            raise PrefzooError(f"the judge's template {self.name} cannot be filled in: {error}") from error

    def __str__(self) -> str:
        """Its name, and the beginning of the SHA-256 of its text, so that results say which template was used."""
        return f"{self.name}@{text_sha256(self.text)[:12]}"


@dataclass(frozen=True)
class JudgeTemplates:
    """The requests to compare and to grade; `grading` is None for a judge that was never taught to."""

    comparing: PromptTemplate
    grading: PromptTemplate | None

    def report(self) -> dict[str, str]:
        """Name and hash of each template."""
        return {"comparing": str(self.comparing)} | ({"grading": str(self.grading)} if self.grading else {})


def shipped_templates() -> dict[str, Path]:
    """The templates that come with the package: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.jinja"))}


def load_template(template: str, key: str) -> PromptTemplate:
    """The template of a file, or one of `shipped_templates` by name.

    Args:
        key: the recipe's key under `judge:` that names it, one of `ALLOWED`.

    Raises:
        PrefzooError: when there is none, it is no template, uses what it is not given, or does not show the replies.
    """
    shipped = shipped_templates()
    path = shipped.get(template) or usable_path(template)
    where = f"judge.{key}: {template!r}"
    if not path.exists():
        raise PrefzooError(f"judge.{key}: there is no such file, and {unknown('template', template, shipped)}")
    try:
        text = read_text(path)
    except PrefzooError as error:
        raise PrefzooError(f"{where} cannot be read: {error}") from error
    example = {"prompt": _MESSAGES, **dict.fromkeys(("first", "second", "reply", "question"), EXAMPLE)}
    if template not in shipped and (problem := template_problem(text, **example)):
        raise PrefzooError(f"{where} {problem}")
    try:
        variables = meta.find_undeclared_variables(ENVIRONMENT.parse(text))
    except TemplateError as error:
        raise PrefzooError(f"{where} is no Jinja template: {error} (line {getattr(error, 'lineno', '?')})") from error
    problems = [unknown("variable", name, ALLOWED[key]) for name in sorted(variables - {*ALLOWED[key]})]
    problems += [f"it does not show {{{{ {name} }}}}." for name in SHOWN[key] if name not in variables]
    if problems:
        raise PrefzooError(f"{where}: {' '.join(problems)}")
    return PromptTemplate(path.name, text, frozenset(variables))


def judge_templates(settings: JudgeSettings, lab: bool = False) -> JudgeTemplates:
    """The templates that a recipe's `judge:` block names, and the shipped ones where it names none.

    Args:
        lab: whether the judge is the lab's model, which knows one request for comparing and none for grading.

    Raises:
        PrefzooError: as `load_template` does.
    """
    comparing, grading = ("pairwise-lab", None) if lab else ("pairwise-1", "grading-1")
    if settings.reasoning and not lab:
        comparing, grading = "pairwise-reasoning-2", "grading-reasoning-2"
    grading = settings.grading_prompt or grading
    return JudgeTemplates(
        load_template(settings.prompt or comparing, "prompt"),
        load_template(grading, "grading_prompt") if grading else None,
    )
