"""Facts about the rows before anything is trained: tokens, lengths, near-duplicates across splits."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prefzoo.data.formats import Row
from prefzoo.errors import DataError
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

NEAR = 0.8
"""Two prompts are near-duplicates when their sets of three-word sequences have at least this Jaccard index."""
PERMUTATIONS = 64
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
    """Tokens, lengths and near-duplicates of the sealed splits.

    Args:
        splits: rows by split.
        shortened: ids of the rows whose prompt was shortened.
        rendering: the start's tokenizer and chat template.

    Returns:
        `splits`: for each `prompt_tokens` and `chosen_tokens` (see `length_summary`; of demonstrations where there are
        no pairs), `trained_tokens` (tokens of chosen replies, or demonstrations, that carry loss: the reply and its
        end), `unaligned` (replies that do not begin where the prompt alone ends, so that the loss mask is off by some
        tokens), `replies` (rows with one that carries loss), `shortened`, `slices`; `near_duplicates`: see
        `near_duplicates`; `examples`: a few rows of the training split as text, the prompt (`untrained`) apart from
        what carries loss (`trained`, empty where the split has prompts alone).

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
    return {"splits": parts, "near_duplicates": near_duplicates(splits), "examples": examples}


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


def near_duplicates(splits: Mapping[str, Sequence[Row]]) -> dict[str, dict[str, Any]]:
    """Prompts that differ, but hardly: of `test` and `validation` against `train`, and within `train`.

    Candidates come from MinHash and locality-sensitive hashing (Broder 1997; datasketch), and each is compared in full,
    so that none is counted wrongly; a pair just above the threshold may be missed.

    Returns:
        By split `count`, its prompts that are near to a training prompt (within `train`: to an earlier one), `prompts`,
        how many it has, and `examples`: `[id, training id, text, training text]`.
    """
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=NEAR, num_perm=PERMUTATIONS)
    known: list[tuple[Row, set[str]]] = []
    near_prompts = {}
    for name in ("train", "validation", "test"):
        distinct = list({prompt_key(row.prompt): row for row in reversed(splits[name])}.values())[::-1]
        shingles = [_shingles(row) for row in distinct]
        hashes = MinHash.bulk(([s.encode() for s in own] for own in shingles), num_perm=PERMUTATIONS)
        count = 0
        examples: list[list[str]] = []
        for row, own, hashed in zip(distinct, shingles, hashes, strict=True):
            near = next((k for k in sorted(index.query(hashed)) if _jaccard(known[k][1], own) >= NEAR), None)
            if near is not None:
                count += 1
                if len(examples) < SHOWN:
                    other = known[near][0]
                    examples.append([row.id, other.id, _text(row), _text(other)])
            if name == "train":
                index.insert(len(known), hashed, check_duplication=False)
                known.append((row, own))
        near_prompts[name] = {"count": count, "prompts": len(distinct), "examples": examples}
    return near_prompts


def _shingles(row: Row) -> set[str]:
    words = " ".join(turn["content"] for turn in row.prompt).lower().split()
    return {" ".join(words[i : i + 3]) for i in range(max(1, len(words) - 2))}


def _jaccard(a: set[str], b: set[str]) -> float:
    return len(a & b) / len(a | b)


def _text(row: Row) -> str:
    return " ".join(" ".join(turn["content"] for turn in row.prompt).split())[:300]
