"""Facts about the rows before anything is trained: tokens, lengths, examples."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from prefzoo.data.formats import Row
from prefzoo.errors import DataError
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

SHOWN = 5
SAMPLE = 5000
"""As many pairs of a split say how long rejected replies are; more are thinned out evenly."""


class Rendering(Protocol):
    """How a conversation becomes tokens, as the trainers do it."""

    def prompt(self, prompt: Prompt) -> list[int]:
        """Token ids up to where the reply begins."""
        ...

    def whole(self, prompt: Prompt, reply: str) -> list[int]:
        """Token ids of the prompt and the reply, its end included."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        ...


class RememberedPrompts:
    """A rendering that keeps the tokens of prompts of at most `most` tokens, so that none is rendered twice."""

    def __init__(self, rendering: Rendering, most: int) -> None:
        self._rendering, self._most = rendering, most
        self._prompts: dict[bytes, array[int]] = {}
        self.whole, self.text = rendering.whole, rendering.text

    def prompt(self, prompt: Prompt) -> list[int]:
        """See `Rendering.prompt`."""
        key = blake2b(json.dumps(list(prompt)).encode(), digest_size=16).digest()
        if (kept := self._prompts.get(key)) is not None:
            return kept.tolist()
        ids = self._rendering.prompt(prompt)
        if len(ids) <= self._most:
            self._prompts[key] = array("I", ids)
        return ids


def examine(splits: Mapping[str, Sequence[Row]], shortened: Sequence[str], rendering: Rendering) -> dict[str, Any]:
    """Tokens and lengths of the sealed splits.

    Args:
        splits: rows by split.
        shortened: ids of the rows whose prompt was shortened.
        rendering: the start's tokenizer and chat template.

    Returns:
        `splits`: for each `prompt_tokens` and `chosen_tokens` (see `length_summary`; of demonstrations and labelled
        replies where there are no pairs), `trained_tokens` (tokens of chosen replies, or demonstrations, that carry
        loss: the reply and its
        end), `unaligned` (replies that do not begin where the prompt alone ends, so that the loss mask is off by some
        tokens), `replies` (rows with one that carries loss), `shortened`, `slices`, and where there are pairs
        `rejected_tokens` and `length_bias` (see `length_bias`), both of at most `SAMPLE` pairs; and `examples`: a few
        rows of the training split as text, the prompt (`untrained`) apart from what carries loss (`trained`, empty
        where the split has prompts alone), and of pairs the `rejected` reply.

    Raises:
        DataError: when not one token of the training replies carries loss.
    """
    cut = set(shortened)
    parts: dict[str, dict[str, Any]] = {}
    examples: list[dict[str, str]] = []
    for name, rows in splits.items():
        pairs = any(row.chosen for row in rows)
        replies = pairs or any(row.demonstration or row.liked is not None for row in rows)
        prompt_lengths: dict[int, int] = {}
        trained, unaligned = [], 0
        both: list[tuple[int, int]] = []
        step = max(1, len(rows) // SAMPLE)
        for i, row in enumerate(rows):
            labelled = row.reply if row.liked is not None else None
            reply = (row.chosen if pairs else row.demonstration) or labelled
            before = rendering.prompt(row.prompt)
            begin = prompt_lengths[hash(json.dumps(row.prompt))] = len(before)
            if reply is not None:
                whole = rendering.whole(row.prompt, reply)
                trained.append(max(0, len(whole) - begin))
                unaligned += whole[:begin] != before
                parts_of = {"untrained": whole[:begin], "trained": whole[begin:]}
                if row.rejected is not None and (i % step == 0 or i < SHOWN):
                    parts_of["rejected"] = rendering.whole(row.prompt, row.rejected)[begin:]
                    both.append((trained[-1], len(parts_of["rejected"])))
            else:
                parts_of = {} if replies else {"untrained": before, "trained": []}
            if name == "train" and parts_of and len(examples) < SHOWN:
                examples.append({"id": row.id, **{part: rendering.text(ids) for part, ids in parts_of.items()}})
        if trained and not sum(trained):
            raise DataError(
                f"data: not one token of the {len(trained)} {name} replies would be trained on: the chat template of "
                "the model renders a conversation with its reply as long as the prompt alone. Give the model a chat "
                "template that renders the assistant's turns."
            )
        parts[name] = {
            "prompt_tokens": length_summary(list(prompt_lengths.values())),
            "chosen_tokens": length_summary(trained),
            "trained_tokens": sum(trained),
            "replies": len(trained),
            "unaligned": unaligned,
            "shortened": sum(row.id in cut for row in rows),
            "slices": slice_counts(rows),
        }
        if both:
            parts[name]["rejected_tokens"] = length_summary([rejected for _, rejected in both])
            parts[name]["length_bias"] = length_bias(both)
    return {"splits": parts, "examples": examples}


def length_bias(pairs: Sequence[tuple[int, int]]) -> dict[str, float]:
    """How chosen replies differ in length from rejected ones.

    Args:
        pairs: tokens of the chosen and of the rejected reply.

    Returns:
        `pairs`, the mean length of `chosen` and `rejected`, and the shares of pairs in which the chosen one is
        `longer` and `shorter`.
    """
    count = len(pairs)
    return {
        "pairs": count,
        "chosen": sum(chosen for chosen, _ in pairs) / count,
        "rejected": sum(rejected for _, rejected in pairs) / count,
        "longer": sum(chosen > rejected for chosen, rejected in pairs) / count,
        "shorter": sum(chosen < rejected for chosen, rejected in pairs) / count,
    }


def length_summary(lengths: Sequence[int]) -> dict[str, int]:
    """Median, 95th percentile and maximum, in tokens."""
    ordered = sorted(lengths) or [0]
    return {
        "median": ordered[len(ordered) // 2],
        "p95": ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))],
        "max": ordered[-1],
    }


def slice_counts(rows: Sequence[Row]) -> dict[str, int]:
    """Rows by named slice; empty when the source names none."""
    return dict(Counter(row.slice for row in rows if row.slice is not None))


def group_counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many distinct `prompts` these rows have, in how many `groups`, and how many the `largest` group has."""
    group_of = {prompt_key(row.prompt): row.group for row in rows}
    sizes = Counter(group_of.values())
    return {"prompts": len(group_of), "groups": len(sizes), "largest": max(sizes.values())}
