"""What an algorithm sees of the sealed training rows."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.types import Completion, Prompt


def prompt_key(prompt: Prompt) -> str:
    """Two prompts with this key equal are the same prompt: case and white space do not make a new one."""
    return "\n".join(f"{turn['role']}:{' '.join(turn['content'].lower().split())}" for turn in prompt)


@dataclass(frozen=True)
class Views:
    """One split in TRL's conversational formats; every list derives from the same rows in the same order.

    Attributes:
        prompts: distinct prompts.
        preferences: `{"prompt": [...], "chosen": [...], "rejected": [...]}`, each a list of messages; with `margin`
            where people said by how much the chosen reply is better.
        demonstrations: `{"prompt": [...], "completion": [...]}`: replies to imitate.
        ratings: `{"prompt": [...], "completion": text, "rating": number}`, higher is better; with `attributes`, numbers
            by name, where the data rates replies in several respects.
        rankings: `{"prompt": [...], "ranking": [texts]}`, best first; a pair that is part of no ranking is one of two.
        labelled: `{"prompt": [...], "completion": [...], "label": liked}`: single replies that people liked, or did
            not; those that are part of a pair are in `preferences` alone.
        sampled: whether what is learned from was made of sampled replies, whose prompts are charged already.
    """

    prompts: list[Prompt]
    preferences: list[dict[str, Any]]
    demonstrations: list[dict[str, Any]]
    ratings: list[dict[str, Any]] = field(default_factory=list)
    rankings: list[dict[str, Any]] = field(default_factory=list)
    labelled: list[dict[str, Any]] = field(default_factory=list)
    sampled: bool = False

    @property
    def unpaired(self) -> list[dict[str, Any]]:
        """Single replies, `{"prompt", "completion", "label"}`: those of each pair, whose label is True for the chosen
        one, which comes right before the rejected one; then `labelled`. The pairs keep their order. A reply that is in
        several pairs of its prompt with one label is one row; pairs that are there several times, as votes are,
        count as often.

        An optimizer step takes two such rows where it takes one pair (`rows_per_example`), so that it sees as many
        sequences.
        """
        pairs, seen, rows = Counter[str](), set[tuple[str, str, int]](), []
        for pair in self.preferences:
            times = pairs[whole := repr((pair["prompt"], pair["chosen"], pair["rejected"]))]
            pairs[whole] += 1
            for side in ("chosen", "rejected"):
                key = (side, repr((pair["prompt"], pair[side])), times)
                if key not in seen:
                    seen.add(key)
                    rows.append({"prompt": pair["prompt"], "completion": pair[side], "label": side == "chosen"})
        return [*rows, *self.labelled]

    def chosen(self) -> list[dict[str, Any]]:
        """The chosen replies, and those that were liked, as demonstrations."""
        chosen = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in self.preferences]
        liked = [row for row in self.labelled if row["label"]]
        return [*chosen, *({"prompt": row["prompt"], "completion": row["completion"]} for row in liked)]

    def with_demonstrations(self, prompts: Sequence[Prompt], completions: Sequence[str | Completion]) -> Views:
        """These views with other replies to imitate: texts, or sampled replies, which are imitated as they were
        sampled."""
        rows = [{"prompt": p, "completion": assistant_turn(c)} for p, c in zip(prompts, completions, strict=True)]
        return dataclasses.replace(self, demonstrations=rows)

    def with_sampled_pairs(self, pairs: Iterable[tuple[Prompt, str | Completion, str | Completion]]) -> Views:
        """These views with preference pairs made of sampled replies: (prompt, chosen, rejected) of each.
        Their prompts are charged as the replies are sampled (`Bench.sample`), and not again as they are trained on."""
        rows = [{"prompt": list(p), "chosen": assistant_turn(c), "rejected": assistant_turn(r)} for p, c, r in pairs]
        return dataclasses.replace(self, preferences=rows, labelled=[], sampled=True)

    def with_shuffled_labels(self, seed: int) -> Views:
        """A negative control: each pair's chosen and rejected change places with probability one half, ratings and
        labels go to any reply, rankings into any order."""
        rng = random.Random(f"shuffled labels {seed}")
        shuffled = [
            {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]} if rng.random() < 0.5 else pair
            for pair in self.preferences
        ]
        rated = ("rating", "attributes")
        ratings = [{key: row[key] for key in rated if key in row} for row in self.ratings]
        rng.shuffle(ratings)
        labels = [row["label"] for row in self.labelled]
        rng.shuffle(labels)
        return dataclasses.replace(
            self,
            preferences=shuffled,
            ratings=[{**row, **rating} for row, rating in zip(self.ratings, ratings, strict=True)],
            rankings=[{**row, "ranking": rng.sample(row["ranking"], len(row["ranking"]))} for row in self.rankings],
            labelled=[{**row, "label": label} for row, label in zip(self.labelled, labels, strict=True)],
        )


def with_margins(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Preference pairs that all have a `margin`, 0 where nobody said one.

    Raises:
        PrefzooError: when none has one.
    """
    if not any("margin" in pair for pair in pairs):
        raise PrefzooError(f"not one of {len(pairs)} pairs has a margin: data.preferences needs a column 'margin'")
    return [{"margin": 0.0, **pair} for pair in pairs]


def without_margins(pairs: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Preference pairs without their margins."""
    return [{key: value for key, value in pair.items() if key != "margin"} for pair in pairs]


def rows_per_example(rows: Sequence[dict[str, Any]]) -> int:
    """How many of these training rows count as one of `training.batch_size`: a pair, a demonstration and a prompt count
    as one each; of unpaired rows, which have a `completion` and a `label`, two do."""
    return 2 if rows and {"completion", "label"} <= rows[0].keys() else 1


def assistant_turn(reply: str | Completion | None, token_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
    """The turn of a reply. A sampled one keeps its tokens as `token_ids`, from which `trainers.fitting.fit` takes them
    where its text would make others."""
    assert reply is not None
    if isinstance(reply, Completion):
        token_ids, reply = reply.token_ids, reply.text
    turn: dict[str, Any] = {"role": "assistant", "content": reply}
    return [turn if token_ids is None else {**turn, "token_ids": list(token_ids)}]


def text_alone(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Training rows without the tokens of sampled replies: for a model with a tokenizer of its own."""
    return [
        {
            key: [*map(_text_turn, value)] if key in REPLIES and isinstance(value, list) else value
            for key, value in row.items()
        }
        for row in rows
    ]


REPLIES = ("chosen", "rejected", "completion")
"""Keys of training rows that hold the assistant's turn."""


def _text_turn(turn: Any) -> Any:
    return {key: value for key, value in turn.items() if key != "token_ids"} if isinstance(turn, dict) else turn
