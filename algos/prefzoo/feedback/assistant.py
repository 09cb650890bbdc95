"""Who writes critiques and revisions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefzoo.interface import Ledger, Policy
from prefzoo.settings import Generation


class ModelAssistant:
    """A language model that is asked in single user messages.

    An answer that was cut at the length limit counts as none and comes back empty: it would be taken for a whole one.
    """

    def __init__(self, model: Policy, generation: Generation) -> None:
        self.model, self.generation = model, generation

    @classmethod
    def load(cls, base: str, generation: Generation, loading: Mapping[str, Any]) -> ModelAssistant:
        """The model in the folder `base`, read as `loading` says."""
        from prefzoo.policies.language_model import LanguageModelPolicy

        return cls(LanguageModelPolicy.from_start(base, **loading), generation)

    def __call__(self, requests: Sequence[str], seed: int, ledger: Ledger | None = None) -> list[str]:
        """See `prefzoo.interface.Assistant`."""
        asked = [[{"role": "user", "content": request}] for request in requests]
        drawn = self.model.sample(asked, self.generation, seed, ledger=ledger)
        return [reply.text if reply.finished else "" for (reply,) in drawn]
