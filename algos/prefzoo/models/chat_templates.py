"""How a recipe's `model.chat_template` is read: a shipped name, a file, or none; imports no torch."""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from prefzoo.errors import PrefzooError, unknown

PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + '\n\n' }}"
    "{% elif message['role'] == 'user' %}{{ 'User:\n' + message['content'] + '\n\n' }}"
    "{% else %}{{ 'Assistant:\n' }}{% generation %}{{ message['content'] + eos_token }}{% endgeneration %}"
    "{{ '\n\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)
"""Given to base models that bring no chat template of their own. Replies begin on a new line, because a space before
them would merge with their first word, and the prompt would no longer be a prefix of prompt and reply."""
BEGINNING = "{{ bos_token }}"
"""Goes before it where the tokenizer begins every text with that token."""
SHIPPED = {"plain": PLAIN_TEMPLATE}
CONTINUATION = "none"
"""No template at all: prompts are plain text, and replies go on from there."""
_GENERATION = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")  # transformers' own tag
_SAYS = {"user": "asked-of-it", "assistant": "answered-by-it"}


def template_text(name: str | None) -> str | None:
    """The template that `model.chat_template` names: `CONTINUATION` for itself, the text of a shipped one or of a file;
    None leaves the model its own.

    Raises:
        PrefzooError: when there is no such file, or it is no template that writes both sides of a conversation.
    """
    if name is None or name == CONTINUATION or name in SHIPPED:
        return SHIPPED.get(str(name), name)
    from jinja2 import TemplateError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    path, where = Path(name).expanduser(), f"model.chat_template: {name!r}"
    if not path.is_file():
        known = [CONTINUATION, *SHIPPED]
        raise PrefzooError(f"{where} is no file, and {unknown('template', name, known)} Or a .jinja file.")
    try:
        text = path.read_text(encoding="utf-8")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals |= {"raise_exception": _refuse, "strftime_now": datetime.now().strftime}
        turns = [{"role": role, "content": content} for role, content in _SAYS.items()]
        written = environment.from_string(_GENERATION.sub("", text)).render(messages=turns, bos_token="", eos_token="")
    except (OSError, UnicodeError) as error:
        raise PrefzooError(f"{where} cannot be read: {error}") from error
    except (TemplateError, TypeError, ValueError) as error:
        raise PrefzooError(f"{where} is no chat template: {error}") from error
    if missing := [role for role, content in _SAYS.items() if content not in written]:
        raise PrefzooError(f"{where} does not write what the {' and the '.join(missing)} says")
    return text


def _refuse(message: str) -> None:
    raise ValueError(message)
