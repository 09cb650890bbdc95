"""Rows as tokens, by a model's tokenizer and chat template."""

from __future__ import annotations

from collections.abc import Sequence

from jinja2 import TemplateError

from prefzoo.data.rejects import Rejected
from prefzoo.models.loading import load_tokenizer
from prefzoo.types import Prompt


class Tokens:
    """A model's tokenizer and chat template; see `preflight.Rendering`. The arguments are those of `load_tokenizer`."""

    def __init__(self, base: str, trust_remote_code: bool, replies: bool = True) -> None:
        self.tokenizer = load_tokenizer(base, trust_remote_code, replies)

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids up to where the reply begins.

        Raises:
            Rejected: when the chat template refuses it, because of the order of the turns, for example.
        """
        try:
            return self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
        except TemplateError as error:
            raise Rejected("refused_by_the_chat_template", shown=str(error)) from error

    def whole(self, prompt: Prompt, reply: str) -> list[int]:
        """Token ids of the prompt and the reply, its end included."""
        turns = [*prompt, {"role": "assistant", "content": reply}]
        return self.tokenizer.apply_chat_template(turns, return_dict=False)

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        return self.tokenizer.decode(list(ids))

    def reply_length(self, reply: str) -> int:
        """Tokens of a reply and its end."""
        return len(self.tokenizer(reply, add_special_tokens=False)["input_ids"]) + 1
