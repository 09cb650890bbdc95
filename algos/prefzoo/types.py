"""Types that every part of the package shares; all light."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user" | "assistant" | "system", "content": text}`."""


Prompt = Sequence[Message]
"""A conversation that waits for the assistant's next turn."""


Truth = Callable[[Sequence[Prompt], Sequence[str]], list[Mapping[str, float]]]
"""`(prompts, completions) -> {"gold": score, attribute: part of it, ..}` of each reply: what is really wanted."""


Progress = Callable[[str, int, int], None]
"""Is told `(what, done, total)` while something long goes on."""


@dataclass(frozen=True)
class Completion:
    """One sampled reply, exactly as it was generated.

    Attributes:
        text: the reply without special tokens; this is what every reward and judge sees.
        token_ids: the generated tokens, end-of-sequence included; this is what log-probabilities are taken of.
        finished: whether the policy ended the reply itself; False when it was cut at `max_new_tokens`.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool


class Reward(Protocol):
    """Scores replies: higher is better, any real number, one for each pair of prompt and reply."""

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]: ...

    def spec(self, folder: Path) -> dict[str, Any]:
        """What `prefzoo.rewards.load_reward.load_reward(spec, folder)` turns back into this reward; paths in it are
        relative to `folder`."""
        ...


class Judge(Protocol):
    """Says which of two replies is better, and how good one is."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> list[float]:
        """P(first is better) of each pair, over both orders of showing the two; 0.5 is a tie. `questions` say for each
        pair what is asked about it; None asks which reply is better."""
        ...

    def grade(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        """A grade from 0 to 10 for each reply; None where the answer could not be read."""
        ...

    def report(self) -> dict[str, Any]:
        """What was asked so far, `questions` among it."""
        ...


class Constitution(Protocol):
    """Principles that replies are criticised, revised and compared by; `prefzoo.judges.constitution` reads them."""

    @property
    def principles(self) -> Sequence[Any]: ...

    @property
    def critique_prompt(self) -> str: ...

    @property
    def revision_prompt(self) -> str: ...

    def draw(self, prompt: Prompt, rng: random.Random) -> Any:
        """One principle that applies to the prompt, by weight; None where none does."""
        ...
