"""Facts about the rows before anything is trained: tokens, lengths, examples."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prefzoo.data.formats import Row
from prefzoo.errors import DataError
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

SHOWN = 5


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


def examine(splits: Mapping[str, Sequence[Row]], shortened: Sequence[str], rendering: Rendering) -> dict[str, Any]:
    """Tokens and lengths of the sealed splits.

    Args:
        splits: rows by split.
        shortened: ids of the rows whose prompt was shortened.
        rendering: the start's tokenizer and chat template.

    Returns:
        `splits`: for each `prompt_tokens` and `chosen_tokens` (see `length_summary`; of demonstrations where there are
        no pairs), `trained_tokens` (tokens of chosen replies, or demonstrations, that carry loss: the reply and its
        end), `unaligned` (replies that do not begin where the prompt alone ends, so that the loss mask is off by some
        tokens), `replies` (rows with one that carries loss), `shortened`, `slices`; and `examples`: a few rows of the
        training split as text, the prompt (`untrained`) apart from what carries loss (`trained`, empty where the split
        has prompts alone).

    Raises:
        DataError: when not one token of the training replies carries loss.
    """
    cut = set(shortened)
    parts: dict[str, dict[str, Any]] = {}
    examples: list[dict[str, str]] = []
    for name, rows in splits.items():
        pairs = any(row.chosen for row in rows)
        replies = pairs or any(row.demonstration for row in rows)
        prompts = {json.dumps(row.prompt): rendering.prompt(row.prompt) for row in rows}
        trained, unaligned = [], 0
        for row in rows:
            reply = row.chosen if pairs else row.demonstration
            before = prompts[json.dumps(row.prompt)]
            if reply is None:
                if name == "train" and not replies and len(examples) < SHOWN:
                    examples.append({"id": row.id, "untrained": rendering.text(before), "trained": ""})
                continue
            whole = rendering.whole(row.prompt, reply)
            begin = len(before)
            trained.append(max(0, len(whole) - begin))
            unaligned += whole[:begin] != before
            if name == "train" and len(examples) < SHOWN:
                shown = {"untrained": rendering.text(whole[:begin]), "trained": rendering.text(whole[begin:])}
                examples.append({"id": row.id, **shown})
        if trained and not sum(trained):
            raise DataError(
                f"data: not one token of the {len(trained)} {name} replies would be trained on: the chat template of "
                "the model renders a conversation with its reply as long as the prompt alone. Give the model a chat "
                "template that renders the assistant's turns."
            )
        parts[name] = {
            "prompt_tokens": length_summary([len(ids) for ids in prompts.values()]),
            "chosen_tokens": length_summary(trained),
            "trained_tokens": sum(trained),
            "replies": len(trained),
            "unaligned": unaligned,
            "shortened": sum(row.id in cut for row in rows),
            "slices": slice_counts(rows),
        }
    return {"splits": parts, "examples": examples}


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
