"""The tokens of a conversation that is sent to a policy, and how many its reply may have; imports no torch."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import Any

from prefzoo.errors import unknown
from prefzoo.serving.generation_request import GenerationRequest, RequestError


class PromptReader:
    """Renders conversations as the policy's evaluation does.

    Args:
        tokenizer: as `load_tokenizer` prepares it.
        limit: how many tokens of prompt and reply the policy has positions for; None for no limit.
    """

    def __init__(self, tokenizer: Any, limit: int | None) -> None:
        self._tokenizer, self._limit = tokenizer, limit
        self._one_at_a_time = threading.Lock()

    def read(self, request: GenerationRequest, measured: int) -> tuple[list[int], int]:
        """The tokens of a prompt, and how many its reply may have: as the request says, or else `measured`, as far as
        there is room.

        Raises:
            RequestError: when the template refuses the messages, or there is no room for a reply.
        """
        try:
            with self._one_at_a_time:
                ids = list(
                    self._tokenizer.apply_chat_template(
                        [dict(turn) for turn in request.messages], add_generation_prompt=True, return_dict=False
                    )
                )
        except Exception as error:  # a template may refuse anything, in any class of error
            raise RequestError(f"messages: the chat template refuses them: {error}", param="messages") from error
        if not ids:
            raise RequestError("messages: they are empty; the policy has nothing to go on from", param="messages")
        room = (2**31 if self._limit is None else self._limit) - len(ids)
        asked = request.max_tokens
        if room < (asked or 1):
            wanted = f"{len(ids)} tokens of prompt" + (f" and max_tokens {asked}" if asked else "")
            raise RequestError(
                f"{wanted}: {request.policy} has room for {self._limit} together; shorten the messages"
                + (" or lower max_tokens" if asked else ""),
                param="messages",
                code="context_length_exceeded",
            )
        return ids, asked or min(room, measured)


def known_policy(name: str, names: Iterable[str]) -> str:
    """A name that is served.

    Raises:
        RequestError: with the nearest right spelling, where it is not.
    """
    names = list(names)
    if name not in names:
        raise RequestError(unknown("model", name, names), 404, param="model", code="model_not_found")
    return name
