"""Passages out of documents put before every prompt, alike for whoever reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jinja2 import TemplateError, meta
from pydantic import Field

from prefzoo.atomic_files import read_text, text_sha256, usable_path
from prefzoo.bounded_template import ENVIRONMENT, EXAMPLE, fill_in, template_problem
from prefzoo.data.documents import Documents, Passage, load_documents
from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejected
from prefzoo.errors import PrefzooError, unknown
from prefzoo.settings import PathText, Settings
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

TEMPLATE = (
    "{% for each in passages %}{% if each.title %}{{ each.title }}: {% endif %}{{ each.text }}\n\n{% endfor %}"
    "{{ prompt }}"
)
"""Each passage behind its title, a blank line behind it, and then what the user said."""
SHOWN = ("passages", "prompt")
"""What a template must show: passages with `text`, `title` and `document`, and the last turn."""
_EXAMPLE = {"passages": [asdict(Passage("a", EXAMPLE, "b"))] * 2, "prompt": EXAMPLE}


class Context(Settings):
    """What is put before the last turn of each prompt: the passages that BM25 finds for it.

    Attributes:
        documents: the file that they are in, .jsonl with `text`, .txt or .md.
        k: how many, at most.
        template: a Jinja file that shows `passages` (a list, each with `text`, `title` and `document`) and `prompt`
            (the turn's text); None puts the passages first, with a blank line behind each.
    """

    documents: PathText
    k: int = Field(2, ge=1)
    template: PathText | None = None


def load_context_template(template: str | None) -> str:
    """The text of a template.

    Raises:
        PrefzooError: when there is none, or it does not show what it must.
    """
    if template is None:
        return TEMPLATE
    where = f"context.template: {template!r}"
    if not usable_path(template).is_file():
        raise PrefzooError(f"{where} is no file.")
    try:
        text = read_text(usable_path(template))
        if problem := template_problem(text, **_EXAMPLE):
            raise PrefzooError(f"{where} {problem}")
        variables = meta.find_undeclared_variables(ENVIRONMENT.parse(text))
        fill_in(text, **_EXAMPLE)
    except TemplateError as error:
        problems = [unknown("variable", name, SHOWN) for name in sorted(_variables(text) - {*SHOWN})]
        raise PrefzooError(f"{where}: {' '.join(problems) or f'is no Jinja template: {error}'}") from error
    if missing := [name for name in SHOWN if name not in variables]:
        raise PrefzooError(f"{where} does not show {' and '.join(f'{{{{ {name} }}}}' for name in missing)}.")
    return text


def _variables(text: str) -> set[str]:
    try:
        return meta.find_undeclared_variables(ENVIRONMENT.parse(text))
    except TemplateError:
        return set()


@dataclass(frozen=True)
class PromptContext:
    """Puts passages before prompts."""

    documents: Documents
    k: int
    template: str = field(default=TEMPLATE)

    @classmethod
    def of(cls, settings: Context) -> PromptContext:
        """The one that a recipe describes."""
        return cls(load_documents(settings.documents), settings.k, load_context_template(settings.template))

    @property
    def identity(self) -> dict[str, Any]:
        """All that prompts depend on."""
        return {"documents": self.documents.sha256, "k": self.k, "template": text_sha256(self.template)}

    def around(self, prompt: Prompt, most: int | None = None) -> Prompt:
        """The prompt with the passages that are found for its last turn, at most `most` of them; itself where there is
        none."""
        found = self.documents.find(prompt[-1]["content"], self.k)[:most]
        if not found:
            return prompt
        content = fill_in(self.template, passages=[asdict(each) for each in found], prompt=prompt[-1]["content"])
        return [*prompt[:-1], {**prompt[-1], "content": content}]

    def put_before(
        self,
        rows: Sequence[Row],
        tokens: Callable[[Sequence[Prompt]], Sequence[list[int] | Rejected]],
        limit: int,
    ) -> tuple[list[Row], dict[str, Any]]:
        """Rows with passages before their prompts, and what was done.

        A passage that makes a prompt longer than `limit` tokens is left out whole, the one that was found last first.

        Args:
            tokens: token ids of prompts, or why one cannot be rendered.

        Returns:
            The rows, and of their distinct prompts `prompts`, how many, `by_passages`, how many have so many passages,
            and `left_out`, how many passages did not fit, of `shortened` prompts.
        """
        plain = list({prompt_key(row.prompt): row.prompt for row in rows}.values())
        found = [len(self.documents.find(prompt[-1]["content"], self.k)) for prompt in plain]
        put, made = [*found], [self.around(prompt) for prompt in plain]
        asked = [i for i, count in enumerate(put) if count]
        while asked:
            fits = [not isinstance(ids, Rejected) and len(ids) <= limit for ids in tokens([made[i] for i in asked])]
            asked = [i for i, fit in zip(asked, fits, strict=True) if not fit]
            for i in asked:
                put[i] -= 1
                made[i] = self.around(plain[i], put[i]) if put[i] else plain[i]
            asked = [i for i in asked if put[i]]
        by_key = {prompt_key(prompt): new for prompt, new in zip(plain, made, strict=True)}
        facts = {
            "prompts": len(plain),
            "by_passages": {str(count): number for count, number in sorted(Counter(put).items())},
            "left_out": sum(found) - sum(put),
            "shortened": sum(before > after for before, after in zip(found, put, strict=True)),
        }
        return [replace(row, prompt=list(by_key[prompt_key(row.prompt)])) for row in rows], facts
