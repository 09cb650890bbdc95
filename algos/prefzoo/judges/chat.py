"""What a judge that answers in text is asked through: a chat client, its responses, and what they cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from prefzoo.types import Message


@dataclass(frozen=True)
class Response:
    """What came of one conversation.

    Attributes:
        text: the answer; empty where there is none.
        first_token: log-probabilities of some alternatives for the first token, by their text; None where they are
            unknown, as with servers that return none.
        failure: why there is no answer, in a few words; None where there is one.
        prompt_tokens, completion_tokens: tokens of question and answer as a server counted them; None where it did not
            say. Two responses that differ only here are equal.
        finished: False where a server says that it cut the answer.
    """

    text: str = ""
    first_token: Mapping[str, float] | None = None
    failure: str | None = None
    prompt_tokens: int | None = field(default=None, compare=False)
    completion_tokens: int | None = field(default=None, compare=False)
    finished: bool = True


class ChatClient(Protocol):
    """Puts conversations to a model and returns one response each, in their order; it raises for none of them."""

    def __call__(self, conversations: Sequence[Sequence[Message]], max_new_tokens: int) -> list[Response]: ...


@dataclass
class Usage:
    """What asking a server took so far.

    Attributes:
        asked: questions.
        requests: requests sent, retries included.
        cache_hits: questions answered without a request: by the cache, or asked twice in one call.
        failed_attempts: requests that failed in a way that the client tries again, by cause.
        failures: questions that got no answer in the end, by cause.
        prompt_tokens, completion_tokens: what the server counted in the requests and its replies.
        unknown_usage: replies that do not say their tokens.
        cached_prompt_tokens, cached_completion_tokens: what it had counted for the answers from the cache.
        with_logprobs, without_logprobs: answers, cached ones among them, with and without log-probabilities.
        seconds_waited: wall-clock time from the first question of a call to its last answer, summed over calls.
    """

    asked: int = 0
    requests: int = 0
    cache_hits: int = 0
    failed_attempts: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unknown_usage: int = 0
    cached_prompt_tokens: int = 0
    cached_completion_tokens: int = 0
    with_logprobs: int = 0
    without_logprobs: int = 0
    seconds_waited: float = 0.0

    def add_reply(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count a server's reply, whether or not it can be used."""
        self.prompt_tokens += prompt_tokens or 0
        self.completion_tokens += completion_tokens or 0
        self.unknown_usage += prompt_tokens is None or completion_tokens is None

    def add_cached(self, responses: Iterable[Response]) -> None:
        """Count what responses from the cache took when they were asked for."""
        for response in responses:
            self.cached_prompt_tokens += response.prompt_tokens or 0
            self.cached_completion_tokens += response.completion_tokens or 0

    def add_answers(self, responses: Iterable[Response]) -> None:
        """Count how many answers came with log-probabilities and how many without; a failure is no answer."""
        for response in responses:
            if response.failure is None:
                self.with_logprobs += response.first_token is not None
                self.without_logprobs += response.first_token is None

    def report(self, price_in: float | None, price_out: float | None) -> dict[str, Any]:
        """The attributes, with `retries` in the place of `failed_attempts`: how often a question was asked again, by
        cause. Also `logprobs`: whether the answers came with log-probabilities (`yes`, `no`, `some`; None without
        answers); `cost` of the requests, and `cached_cost`, what the answers from the cache cost when they were asked
        for: None without prices.

        Args:
            price_in, price_out: of a million tokens of requests and of replies.
        """

        def cost(prompt: int, completion: int) -> float | None:
            if price_in is None and price_out is None:
                return None
            return (prompt * (price_in or 0.0) + completion * (price_out or 0.0)) / 1e6

        report = asdict(self)
        del report["failed_attempts"]
        sources = (self.with_logprobs > 0, self.without_logprobs > 0)
        return {
            **report,
            "retries": dict(self.failed_attempts - self.failures),  # nothing followed the last attempt of a failure
            "failures": dict(self.failures),
            "logprobs": {(True, False): "yes", (False, True): "no", (True, True): "some"}.get(sources),
            "cost": cost(self.prompt_tokens, self.completion_tokens),
            "cached_cost": cost(self.cached_prompt_tokens, self.cached_completion_tokens),
        }
