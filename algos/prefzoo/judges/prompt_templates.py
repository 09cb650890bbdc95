"""The words in which a judge is asked: templates in files, one for comparing two replies and one for grading one."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from prefzoo.atomic_files import text_sha256
from prefzoo.errors import PrefzooError, unknown
from prefzoo.judges.judge_settings import JudgeSettings

FOLDER = Path(__file__).parent / "prompts"
SHOWN = {"prompt": ("first", "second"), "grading_prompt": ("reply",)}
"""What a template must show, by the recipe's key for it."""
ALLOWED = {"prompt": ("prompt", "first", "second", "question"), "grading_prompt": ("prompt", "reply")}
"""What a template may use: `prompt` is the list of messages, `question` what is asked about a pair, or None."""

_JINJA = ImmutableSandboxedEnvironment(undefined=StrictUndefined)


@dataclass(frozen=True)
class Form:
    """One request as a template.

    Attributes:
        name: of its file.
        text: what is in it.
        variables: which of `ALLOWED` it uses.
    """

    name: str
    text: str
    variables: frozenset[str]

    def render(self, **values: Any) -> str:
        """The request with its variables filled in."""
        return _compiled(self.text).render(**values)

    def __str__(self) -> str:
        """Its name, and the beginning of the SHA-256 of its text, so that results say which wording was used."""
        return f"{self.name}@{text_sha256(self.text)[:12]}"


@functools.cache
def _compiled(text: str) -> Template:
    """Compiled once: that takes far longer than filling in."""
    return _JINJA.from_string(text)


@dataclass(frozen=True)
class Wording:
    """How a judge is asked to compare, and to grade; `grading` is None for one that was never taught to."""

    comparing: Form
    grading: Form | None

    def report(self) -> dict[str, str]:
        """Which templates these are."""
        return {"comparing": str(self.comparing)} | ({"grading": str(self.grading)} if self.grading else {})


def shipped() -> dict[str, Path]:
    """The templates that come with the package: name -> file."""
    return {path.stem: path for path in sorted(FOLDER.glob("*.jinja"))}


def form(template: str, key: str) -> Form:
    """The template of a file, or one of `shipped` by name.

    Args:
        key: the recipe's key under `judge:` that names it, one of `ALLOWED`.

    Raises:
        PrefzooError: when there is none, it is no template, uses what it is not given, or does not show the replies.
    """
    path = shipped().get(template) or Path(template).expanduser()
    where = f"judge.{key}: {template!r}"
    if not path.is_file():
        raise PrefzooError(f"judge.{key}: there is no such file, and {unknown('template', template, shipped())}")
    try:
        text = path.read_text(encoding="utf-8")
        variables = meta.find_undeclared_variables(_JINJA.parse(text))
    except (OSError, UnicodeDecodeError) as error:
        raise PrefzooError(f"{where} cannot be read: {error}") from error
    except TemplateError as error:
        raise PrefzooError(f"{where} is no Jinja template: {error} (line {getattr(error, 'lineno', '?')})") from error
    problems = [unknown("variable", name, ALLOWED[key]) for name in sorted(variables - {*ALLOWED[key]})]
    problems += [f"it does not show {{{{ {name} }}}}." for name in SHOWN[key] if name not in variables]
    if problems:
        raise PrefzooError(f"{where}: {' '.join(problems)}")
    return Form(path.name, text, frozenset(variables))


def wording(settings: JudgeSettings, lab: bool = False) -> Wording:
    """The templates that a recipe's `judge:` block names, and ours where it names none.

    Args:
        lab: whether the judge is the lab's model, which knows one wording for comparing and none for grading.

    Raises:
        PrefzooError: as `form` does.
    """
    how = "-reasoning" if settings.reasoning else ""
    grading = settings.grading_prompt or (None if lab else f"grading{how}-1")
    return Wording(
        form(settings.prompt or ("pairwise-lab" if lab else f"pairwise{how}-1"), "prompt"),
        form(grading, "grading_prompt") if grading else None,
    )
