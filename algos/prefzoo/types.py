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
"""The gold reward: `(prompts, completions) -> [{"gold": score, "gold/<attribute>": part of it, ..}]`, one a reply."""


Progress = Callable[[str, int, int], None]
"""A function that is called as `(what, done, total)` during long work, such as `("sampling", 64, 256)`."""


@dataclass(frozen=True)
class Completion:
    """One sampled reply, exactly as it was generated.

    Attributes:
        text: the reply without special tokens; every reward and judge sees this.
        token_ids: the generated tokens, end-of-sequence included; log-probabilities are of these.
        finished: True when the policy ended the reply, False when it was cut at `max_new_tokens`.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool


@dataclass(frozen=True)
class Range:
    """What tuning tries of a setting: the numbers from `low` to `high`, whole ones where both are, or `choices`.

    Attributes:
        low, high: the ends, which are tried too.
        log: whether the logarithm is spread evenly, and not the number.
        source: where the range is from: a paper, its authors' advice, or ours and why.
        relative: `low` and `high` are factors of the setting as the recipe has it.
        choices: what is tried, in the place of a range.
    """

    low: float = 0.0
    high: float = 0.0
    log: bool = False
    source: str = ""
    relative: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def whole(self) -> bool:
        """Whether only whole numbers are tried."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def holds(self, value: Any) -> bool:
        """Whether a value is one that may be tried."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def __str__(self) -> str:
        """The range as a recipe writes it; a relative one with what it is relative to."""
        inner = ", ".join(map(str, self.choices)) or f"{self.low:g}, {self.high:g}{', log' * self.log}"
        return f"[{inner}]" + " times the recipe's" * self.relative


class Reward(Protocol):
    """Scores replies: higher is better, any real number, one for each pair of prompt and reply."""

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]: ...

    def spec(self, folder: Path) -> dict[str, Any]:
        """Return plain values from which `prefzoo.rewards.load_reward.load_reward(spec, folder)` builds this reward
        again; paths in them are relative to `folder`."""
        ...


class Judge(Protocol):
    """Compares two replies, and grades one."""

    def __call__(
        self,
        prompts: Sequence[Prompt],
        first: Sequence[str],
        second: Sequence[str],
        questions: Sequence[str | None] | None = None,
    ) -> list[float]:
        """Return P(first is better) of each pair, averaged over both orders of showing the two; 0.5 is a tie.
        `questions` holds what is asked about each pair; None asks which reply is better."""
        ...

    def grade(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float | None]:
        """Return a grade from 0 to 10 for each reply; None where the judge's answer could not be read."""
        ...

    def report(self) -> dict[str, Any]:
        """Return counts of what was asked so far, `questions` among them."""
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
        """Draw one of the principles that apply to the prompt, by weight; None where none does."""
        ...
