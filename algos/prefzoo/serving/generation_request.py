"""What an engine is asked for and what it answers; imports no torch."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from prefzoo.types import Prompt


class RequestError(Exception):
    """A request that is not answered, in OpenAI's form.

    Attributes:
        status: the HTTP status.
        kind, param, code: `type`, `param` and `code` of OpenAI's error object.
        retry_after: seconds after which the request may be repeated.
    """

    def __init__(
        self,
        message: str,
        status: int = 400,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.kind, self.param, self.code, self.retry_after = status, kind, param, code, retry_after

    def body(self) -> dict[str, object]:
        """The JSON of the answer."""
        return {"error": {"message": str(self), "type": self.kind, "param": self.param, "code": self.code}}


@dataclass(frozen=True)
class GenerationRequest:
    """Replies that are asked of one policy.

    Attributes:
        policy: its name in the server.
        messages: the conversation that waits for a reply.
        n: how many replies.
        max_tokens: of each reply, its end included; None is as many as the policy was measured with.
        temperature: 0 is greedy; None is that of the policy's evaluation.
        top_p: only the likeliest tokens that together have this probability are drawn from.
        stop: texts before which a reply ends.
        seed: the same seed gives the same replies, whatever else the server does meanwhile; None is another each time.
        top_logprobs: how many alternatives to report at each token; None for no log-probabilities at all.
    """

    policy: str
    messages: Prompt
    n: int = 1
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    top_logprobs: int | None = None


@dataclass(frozen=True)
class TokenScore:
    """A token that was taken, with its log-probability in nats under the policy at temperature 1 and the likeliest
    tokens at its place with theirs."""

    token: str
    logprob: float
    top: Sequence[tuple[str, float]] = ()


@dataclass(frozen=True)
class Piece:
    """A part of a reply.

    Attributes:
        index: of the reply among the `n`.
        text: what is added to it.
        scores: of the tokens that came with it, where they were asked for.
        finish: None while it goes on; `stop` where the policy or a stop text ended it, `length` where it was cut.
        tokens: with `finish`, how many tokens the reply has, its end included.
        whole: with `finish`, the text of the reply.
    """

    index: int
    text: str = ""
    scores: Sequence[TokenScore] = ()
    finish: str | None = None
    tokens: int = 0
    whole: str = ""


class Engine(Protocol):
    """What generates the replies of several policies."""

    @property
    def policies(self) -> Sequence[str]:
        """Their names; the first is what the server was started for."""
        ...

    async def check(self, request: GenerationRequest) -> int:
        """The number of tokens of the prompt.

        Raises:
            RequestError: when the request cannot be answered.
        """
        ...

    def generate(self, request: GenerationRequest) -> AsyncIterator[Piece]:
        """The pieces of the replies, as they come. Closing the iterator ends the work on them.

        Raises:
            RequestError: when generating fails, the server is too busy, or it is being stopped.
        """
        ...

    def stop(self, within: float) -> None:
        """Take no more requests, and end those that run after so many seconds; both are told so."""
        ...


def stopping() -> RequestError:
    """For a request that a server which is being stopped does not take, or not finish."""
    return RequestError("the server is being stopped", 503, "server_error", code="stopping", retry_after=30)
