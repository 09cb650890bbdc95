"""What an algorithm sees of the sealed rows."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

from prefzoo.data.formats import Row
from prefzoo.interface import Prompt


def prompt_key(prompt: Prompt) -> str:
    """Two prompts with this key equal are the same prompt: case and white space do not make a new one."""
    return "\n".join(f"{turn['role']}:{' '.join(turn['content'].lower().split())}" for turn in prompt)


def once_each(rows: Sequence[Row]) -> list[Row]:
    """Each pair of replies to one prompt once, as most of the rows have it, so that whoever is measured on it is not
    measured several times on the same; rows without a pair, and pairs on which as many say the opposite, are left out.
    """
    sides: dict[tuple[str, frozenset[str | None]], list[Row]] = {}
    for row in rows:
        if row.chosen is not None and row.rejected is not None:
            sides.setdefault((prompt_key(row.prompt), frozenset((row.chosen, row.rejected))), []).append(row)
    kept = []
    for same in sides.values():
        like = [row for row in same if row.chosen == same[0].chosen]
        if len(like) * 2 != len(same):
            kept.append(like[0] if len(like) * 2 > len(same) else next(row for row in same if row not in like))
    return kept


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

    @classmethod
    def of(cls, rows: Sequence[Row]) -> Views:
        """All views of these rows."""
        distinct = {prompt_key(row.prompt): row.prompt for row in reversed(rows)}
        return cls(
            prompts=[distinct[key] for key in dict.fromkeys(prompt_key(row.prompt) for row in rows)],
            preferences=[
                {"prompt": row.prompt, "chosen": _turn(row.chosen), "rejected": _turn(row.rejected)}
                for row in rows
                if row.chosen is not None and row.rejected is not None
            ],
            demonstrations=[
                {"prompt": row.prompt, "completion": _turn(row.demonstration)}
                for row in rows
                if row.demonstration is not None
            ],
            ratings=[
                {"prompt": row.prompt, "completion": row.reply, "rating": row.rating}
                for row in rows
                if row.reply is not None
            ],
            rankings=_rankings(rows),
        )

    def chosen(self) -> list[dict[str, Any]]:
        """The chosen replies as demonstrations."""
        return [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in self.preferences]

    def with_demonstrations(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> Views:
        """These views with other replies to imitate."""
        rows = [{"prompt": p, "completion": _turn(c)} for p, c in zip(prompts, completions, strict=True)]
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


def _rankings(rows: Sequence[Row]) -> list[dict[str, Any]]:
    within = {(prompt_key(row.prompt), *pair) for row in rows for pair in combinations(row.ranking or (), 2)}
    rankings = []
    for row in rows:
        if row.ranking is not None:
            rankings.append({"prompt": row.prompt, "ranking": row.ranking})
        elif row.chosen is not None and (prompt_key(row.prompt), row.chosen, row.rejected) not in within:
            rankings.append({"prompt": row.prompt, "ranking": [row.chosen, row.rejected]})
    return rankings


def _turn(reply: str | None) -> list[dict[str, str]]:
    assert reply is not None
    return [{"role": "assistant", "content": reply}]
