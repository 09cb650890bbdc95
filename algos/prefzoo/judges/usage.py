"""What asking a server took, in requests, tokens, money and time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

from prefzoo.judges.answer_cache import Answer


@dataclass
class Spent:
    """What asking took so far.

    Attributes:
        asked: questions.
        requests: requests sent, retries included.
        cache_hits: questions answered without a request: by the cache, or asked twice in one call.
        retries, failures: how often a question was asked again, and how many got no answer in the end, by cause.
        prompt_tokens, completion_tokens: what the server counted in the requests and its replies.
        unknown_usage: replies that do not say their tokens.
        cached_prompt_tokens, cached_completion_tokens: what it had counted for the answers from the cache.
        with_logprobs, without_logprobs: answers, cached ones among them, with and without log-probabilities.
        seconds_waited: wall-clock time from the first question of a call to its last answer, summed over calls.
    """

    asked: int = 0
    requests: int = 0
    cache_hits: int = 0
    retries: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    prompt_tokens: int = 0
    completion_tokens: int = 0
    unknown_usage: int = 0
    cached_prompt_tokens: int = 0
    cached_completion_tokens: int = 0
    with_logprobs: int = 0
    without_logprobs: int = 0
    seconds_waited: float = 0.0

    def replied(self, prompt_tokens: int | None, completion_tokens: int | None) -> None:
        """Count a reply, whether or not it can be used."""
        self.prompt_tokens += prompt_tokens or 0
        self.completion_tokens += completion_tokens or 0
        self.unknown_usage += prompt_tokens is None or completion_tokens is None

    def cached(self, answers: Iterable[Answer]) -> None:
        """Count what answers from the cache took when they were asked for."""
        for answer in answers:
            self.cached_prompt_tokens += answer.prompt_tokens or 0
            self.cached_completion_tokens += answer.completion_tokens or 0

    def gave(self, answers: Iterable[Answer]) -> None:
        """Count how answers came; what failed is none."""
        for answer in answers:
            if answer.failure is None:
                self.with_logprobs += answer.first is not None
                self.without_logprobs += answer.first is None

    def report(self, price_in: float | None, price_out: float | None) -> dict[str, Any]:
        """The attributes, and `logprobs`: whether the answers came with log-probabilities (`yes`, `no`, `some`; None
        without answers); `cost` of the requests, and `cached_cost`, what the answers from the cache cost when they were
        asked for: None without prices.

        Args:
            price_in, price_out: of a million tokens of requests and of replies.
        """

        def cost(prompt: int, completion: int) -> float | None:
            if price_in is None and price_out is None:
                return None
            return (prompt * (price_in or 0.0) + completion * (price_out or 0.0)) / 1e6

        came = (self.with_logprobs > 0, self.without_logprobs > 0)
        return {
            **asdict(self),
            "retries": dict(self.retries),
            "failures": dict(self.failures),
            "logprobs": {(True, False): "yes", (False, True): "no", (True, True): "some"}.get(came),
            "cost": cost(self.prompt_tokens, self.completion_tokens),
            "cached_cost": cost(self.cached_prompt_tokens, self.cached_completion_tokens),
        }
