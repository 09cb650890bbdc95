"""Assistants, which write critiques and revisions: a model in this process, or one behind a server."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prefzoo.judges.endpoint import EndpointClient
from prefzoo.ledger import Ledger
from prefzoo.settings import Generation

if TYPE_CHECKING:
    from prefzoo.models.language_model import LanguageModelPolicy


class ModelAssistant:
    """A language model in this process that answers each request as a conversation's first message.

    An answer that was cut at the length limit counts as none and comes back empty: it would be taken for a whole one.

    Args:
        model: who writes.
        generation: how.
    """

    def __init__(self, model: LanguageModelPolicy, generation: Generation) -> None:
        self.model, self.generation = model, generation

    def __call__(self, requests: Sequence[str], seed: int, ledger: Ledger | None = None) -> list[str]:
        """See `interface.Assistant`."""
        prompts = [[{"role": "user", "content": request}] for request in requests]
        samples = self.model.sample(prompts, self.generation, seed, ledger=ledger)
        return [reply.text if self.generation.counts(reply) else "" for (reply,) in samples]


class EndpointAssistant:
    """A model behind a server. What it writes is kept on disk with the judge's answers, so that the same request with
    the same seed brings the same text, whether or not the server would draw it again.

    An answer that was cut counts as none and comes back empty. The seed is a part of the request where the temperature
    of `client.settings` is above 0. A request that the server does not answer gets an empty text and is counted under
    `failures` in `client.report()`; the tokens of all others, of those on disk too, are charged, as far as the server
    counts them. Operations are not: how large the model is is unknown.

    Args:
        client: asks the server.
        max_new_tokens: of a text.
    """

    def __init__(self, client: EndpointClient, max_new_tokens: int) -> None:
        self.client, self.max_new_tokens = client, max_new_tokens

    def report(self) -> dict[str, Any]:
        """What asking took: requests, failures, tokens, cost; see `EndpointClient.report`."""
        return self.client.report()

    def __call__(self, requests: Sequence[str], seed: int, ledger: Ledger | None = None) -> list[str]:
        """See `interface.Assistant`.

        Raises:
            PrefzooError: when the server is gone or refuses everything.
        """
        prompts = [[{"role": "user", "content": request}] for request in requests]
        sampling_seed = seed if self.client.settings.temperature > 0 else None
        answers = self.client(prompts, self.max_new_tokens, sampling_seed, logprobs=False)
        if ledger is not None:
            ledger.generated(sum(answer.completion_tokens or 0 for answer in answers), parameters=0)
        return [answer.text if answer.finished else "" for answer in answers]
