"""What an algorithm sees of the sealed training rows."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from prefzoo.types import Prompt


def prompt_key(prompt: Prompt) -> str:
    """Two prompts with this key equal are the same prompt: case and white space do not make a new one."""
    return "\n".join(f"{turn['role']}:{' '.join(turn['content'].lower().split())}" for turn in prompt)


@dataclass(frozen=True)
class Views:
    """One split in TRL's conversational formats; every list derives from the same rows in the same order.

    Attributes:
        prompts: distinct prompts.
        preferences: `{"prompt": [...], "chosen": [...], "rejected": [...]}`, each a list of messages.
        demonstrations: `{"prompt": [...], "completion": [...]}`: replies to imitate.
        ratings: `{"prompt": [...], "completion": text, "rating": number}`, higher is better.
        rankings: `{"prompt": [...], "ranking": [texts]}`, best first; a pair that is part of no ranking is one of two.
        sampled: whether what is learned from was made of sampled replies, whose prompts are charged already.
    """

    prompts: list[Prompt]
    preferences: list[dict[str, Any]]
    demonstrations: list[dict[str, Any]]
    ratings: list[dict[str, Any]] = field(default_factory=list)
    rankings: list[dict[str, Any]] = field(default_factory=list)
    sampled: bool = False

    def chosen(self) -> list[dict[str, Any]]:
        """The chosen replies as demonstrations."""
        return [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in self.preferences]

    def with_demonstrations(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Views:
        """These views with other replies to imitate."""
        rows = [{"prompt": p, "completion": assistant_turn(c)} for p, c in zip(prompts, completions, strict=True)]
        return dataclasses.replace(self, demonstrations=rows)

    def with_shuffled_labels(self, seed: int) -> Views:
        """A negative control: each pair's chosen and rejected change places with probability one half, ratings go to
        any reply, rankings into any order."""
        rng = random.Random(f"shuffled labels {seed}")
        shuffled = [
            {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} if rng.random() < 0.5 else pair
            for pair in self.preferences
        ]
        ratings = [each["rating"] for each in self.ratings]
        rng.shuffle(ratings)
        return dataclasses.replace(
            self,
            preferences=shuffled,
            ratings=[{**each, "rating": rating} for each, rating in zip(self.ratings, ratings, strict=True)],
            rankings=[{**each, "ranking": rng.sample(each["ranking"], len(each["ranking"]))} for each in self.rankings],
        )


def assistant_turn(reply: str | None) -> list[dict[str, str]]:
    assert reply is not None
    return [{"role": "assistant", "content": reply}]
