"""Facts about the rows before anything is trained: tokens, lengths, examples."""

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from prefzoo.data.formats import Row, slices_of
from prefzoo.data.rejects import Rejected
from prefzoo.errors import DataError
from prefzoo.types import Progress, Prompt
from prefzoo.views import prompt_key

SHOWN = 5
SAMPLE = 5000
"""As many pairs of a split say how long rejected replies are; more are thinned out evenly."""
BATCH, BATCH_LETTERS = 256, 1 << 19
"""As many rows become tokens together, or fewer where they are long."""
MOST_REMEMBERED = 1 << 25
"""Tokens, of 4 bytes each."""


class Rendering(Protocol):
    """How conversations become tokens, as the trainers do it; faster for many together."""

    def prompts(self, prompts: Sequence[Prompt]) -> Sequence[list[int] | Rejected]:
        """Token ids of each up to where the reply begins; the reason in the place of one that the template refuses."""
        ...

    def wholes(
        self, prompts: Sequence[Prompt], replies: Sequence[str], begun: Sequence[list[int]] | None = None
    ) -> list[list[int]]:
        """Token ids of each prompt and its reply, its end included; `begun` are those of the prompts, if known."""
        ...

    def text(self, ids: Sequence[int]) -> str:
        """What these tokens spell, special ones included."""
        ...


class RememberedPrompts:
    """A rendering that keeps the tokens of prompts of at most `most` tokens, so that none is rendered twice; of the
    first `MOST_REMEMBERED` tokens, so that memory is bounded."""

    def __init__(self, rendering: Rendering, most: int) -> None:
        self._rendering, self._most = rendering, most
        self._prompts: dict[bytes, array[int]] = {}
        self._new: set[bytes] = set()
        self._tokens = 0
        self.wholes, self.text = rendering.wholes, rendering.text

    def prompts(self, prompts: Sequence[Prompt]) -> list[list[int] | Rejected]:
        """See `Rendering.prompts`."""
        keys = [_key(prompt) for prompt in prompts]
        unknown = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if key not in self._prompts}
        made = dict(zip(unknown, self._rendering.prompts([*unknown.values()]), strict=True))
        found = [made[key] if key in made else self._prompts[key].tolist() for key in keys]
        for key, ids in made.items():
            if not isinstance(ids, Rejected) and len(ids) <= self._most and self._tokens < MOST_REMEMBERED:
                self._prompts[key] = array("I", ids)
                self._new.add(key)
                self._tokens += len(ids)
        return found

    def forget(self, but: Iterable[Prompt]) -> None:
        """Forget what was rendered since this was called last, but these prompts."""
        for key in self._new - {_key(prompt) for prompt in but}:
            self._tokens -= len(self._prompts.pop(key))
        self._new.clear()


def _key(prompt: Prompt) -> bytes:
    return blake2b(json.dumps(list(prompt)).encode(), digest_size=16).digest()


def batches(rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """The rows in their order, so many at a time that their tokens need little memory."""
    begin = letters = 0
    for i, row in enumerate(rows):
        letters += sum(len(turn["content"]) for turn in row.prompt) + sum(map(len, row.replies()))
        if i + 1 - begin == BATCH or letters > BATCH_LETTERS or i + 1 == len(rows):
            yield rows[begin : i + 1]
            begin, letters = i + 1, 0


def examine(
    splits: Mapping[str, Sequence[Row]],
    shortened: Sequence[str],
    rendering: Rendering,
    progress: Progress = lambda what, done, total: None,
) -> dict[str, Any]:
    """Tokens and lengths of the sealed splits.

    Args:
        splits: rows by split.
        shortened: ids of the rows whose prompt was shortened.
        rendering: the start's tokenizer and chat template.
        progress: is told how many rows are done.

    Returns:
        `splits`: for each `prompt_tokens` and `chosen_tokens` (see `length_summary`; of demonstrations and
        labelled replies where there are no pairs), `trained_tokens` (tokens of chosen replies, or
        demonstrations, that carry loss: the reply and its end), `unaligned` (replies that do not begin where
        the prompt alone ends, so that the loss mask is off by some tokens), `replies` (rows with one that
        carries loss), `shortened`, `slices`, and where there are pairs `rejected_tokens` and `length_bias` (see
        `length_bias`), both of at most `SAMPLE` pairs; and `examples`: a few rows of the training split as
        text, the prompt (`untrained`) apart from what carries loss (`trained`, empty where the split has
        prompts alone), and of pairs the `rejected` reply.

    Raises:
        DataError: when not one token of the training replies carries loss.
    """
    cut = set(shortened)
    parts: dict[str, dict[str, Any]] = {}
    examples: list[dict[str, str]] = []
    done, total = 0, sum(map(len, splits.values()))
    for name, rows in splits.items():
        measured = _Measured(rows)
        for batch in batches(rows):
            measured.add(batch, rendering)
            done += len(batch)
            progress("examining", done, total)
        if measured.trained and not sum(measured.trained):
            raise DataError(
                f"data: not one token of the {len(measured.trained)} {name} replies would be trained on: the chat "
                "template of the model renders a conversation with its reply as long as the prompt alone. Give the "
                "model a chat template that renders the assistant's turns."
            )
        parts[name] = {
            **measured.facts(),
            "shortened": sum(row.id in cut for row in rows),
            "slices": slice_counts(rows),
        }
        if measured.both:
            parts[name]["rejected_tokens"] = length_summary([rejected for _, rejected in measured.both])
            parts[name]["length_bias"] = length_bias(measured.both)
        if name == "train":
            examples = [
                {"id": row_id, **{part: rendering.text(ids) for part, ids in tokens.items()}}
                for row_id, tokens in measured.shown
            ]
    return {"splits": parts, "examples": examples}


class _Measured:
    """Tokens of the rows of one split.

    Attributes:
        prompts: how many each distinct prompt has.
        trained: how many of each reply carry loss.
        both: tokens of the chosen and the rejected reply of some pairs.
        unaligned: replies that do not begin where the prompt alone ends.
        shown: the first rows by id, with the tokens of their parts.
    """

    def __init__(self, rows: Sequence[Row]) -> None:
        self.prompts: dict[int, int] = {}
        self.trained: list[int] = []
        self.both: list[tuple[int, int]] = []
        self.unaligned = 0
        self.shown: list[tuple[str, dict[str, list[int]]]] = []
        self._pairs = any(row.chosen for row in rows)
        self._replies = self._pairs or any(row.demonstration or row.liked is not None for row in rows)
        self._step = max(1, len(rows) // SAMPLE)
        self._done = 0

    def add(self, rows: Sequence[Row], rendering: Rendering) -> None:
        """Measure further rows."""
        befores = []
        for ids in rendering.prompts([row.prompt for row in rows]):
            if isinstance(ids, Rejected):
                raise ids
            befores.append(ids)
        good: list[tuple[int, str]] = []
        bad: list[tuple[int, str]] = []
        for i, row in enumerate(rows):
            labelled = row.reply if row.liked is not None else None
            reply = (row.chosen if self._pairs else row.demonstration) or labelled
            if reply is not None:
                good.append((i, reply))
                place = self._done + i
                if row.rejected is not None and (place % self._step == 0 or place < SHOWN):
                    bad.append((i, row.rejected))
        wholes = rendering.wholes(
            [rows[i].prompt for i, _ in good + bad],
            [reply for _, reply in good + bad],
            [befores[i] for i, _ in good + bad],
        )
        whole_of = {i: ids for (i, _), ids in zip(good, wholes[: len(good)], strict=True)}
        other_of = {i: ids for (i, _), ids in zip(bad, wholes[len(good) :], strict=True)}
        for i, (row, before) in enumerate(zip(rows, befores, strict=True)):
            begin = self.prompts[hash(json.dumps(row.prompt))] = len(before)
            parts = {} if self._replies else {"untrained": before, "trained": []}
            if i in whole_of:
                parts = {"untrained": whole_of[i][:begin], "trained": whole_of[i][begin:]}
                self.trained.append(len(parts["trained"]))
                self.unaligned += parts["untrained"] != before
            if i in other_of:
                parts["rejected"] = other_of[i][begin:]
                self.both.append((self.trained[-1], len(parts["rejected"])))
            if parts and len(self.shown) < SHOWN:
                self.shown.append((row.id, parts))
        self._done += len(rows)

    def facts(self) -> dict[str, Any]:
        """What `examine` tells of the tokens of a split."""
        return {
            "prompt_tokens": length_summary(list(self.prompts.values())),
            "chosen_tokens": length_summary(self.trained),
            "trained_tokens": sum(self.trained),
            "replies": len(self.trained),
            "unaligned": self.unaligned,
        }


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
    return dict(Counter(name for row in rows for name in slices_of(row.slice)))


def group_counts(rows: Sequence[Row]) -> dict[str, int]:
    """How many distinct `prompts` these rows have, in how many `groups`, and how many the `largest` group has."""
    group_of = {prompt_key(row.prompt): row.group for row in rows}
    sizes = Counter(group_of.values())
    return {"prompts": len(group_of), "groups": len(sizes), "largest": max(sizes.values())}
