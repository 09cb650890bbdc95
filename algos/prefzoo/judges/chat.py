"""What a judge that answers in words is asked through, be it a model in this process or a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from prefzoo.types import Message


@dataclass(frozen=True)
class Said:
    """One answer.

    Attributes:
        text: what was answered; empty where nothing was.
        first: log-probabilities of some alternatives for the first token, by their text; None where they are unknown,
            as with servers that return none.
        failure: why there is no answer, in a few words; None where there is one.
    """

    text: str
    first: Mapping[str, float] | None = None
    failure: str | None = None


class Asker(Protocol):
    """Puts conversations to a model and brings its answers, one each, in their order; it raises for none of them."""

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Said]: ...
