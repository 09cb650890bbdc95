"""Train an algorithm while watching what it does: which sequences it trains on, what it samples, what it scores.

Runs inside a stage's process of an ordinary comparison; what was seen ends up among the trial's details.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.settings import Generation
from prefzoo.types import Completion, Prompt, Reward

DETAILS = "probe"
ASKED = 8
"""How many prompts a policy is asked about."""


def probed(inner: type[Algorithm]) -> type[Algorithm]:
    """The same algorithm, watched."""

    @dataclass(frozen=True)
    class Probed(inner):  # type: ignore[misc, valid-type]
        def train(self, bench: Bench) -> Policy:
            return observe(lambda given: inner.train(self, given), bench)

    return Probed


def observe(train: Any, bench: Bench) -> Policy:
    """Train on a copy of the start that is this trial's own, sharing no work with others, and report what was seen."""
    from prefzoo.models.policy_kinds import load_policy
    from prefzoo.run.cache import fingerprint
    from prefzoo.trainers import fitting

    start = bench.out / "start"
    shutil.copytree(bench.start, start)
    before = fingerprint(str(start))
    reward = None if bench.reward is None else CountedReward(bench.reward)
    # What is returned is read before `train` can do anything to what was saved: else the two could not differ.
    with watching() as seen, mock.patch.object(fitting, "SavedPolicy", load_policy):
        policy = train(bench.replace(start=str(start), reward=reward, reuse=None))
    bench.report[DETAILS] = {
        "returned": type(policy).__name__ if hasattr(policy, "sample") else None,
        "start_untouched": fingerprint(str(start)) == before,
        "sequences": seen.sequences,
        "trained_tokens": seen.trained_tokens,
        "generated_tokens": seen.generated_tokens,
        "reward_calls": reward.calls if reward is not None else 0,
        "charged": {
            "trained_tokens": bench.ledger.trained_tokens,
            "generated_tokens": bench.ledger.generated_tokens,
            "reward_calls": bench.ledger.reward_calls,
        },
        "rows": max(len(bench.data.prompts), len(bench.data.preferences), len(bench.data.demonstrations)),
        "strangers": strangers(seen.rows, bench),
        "answers": answers(policy, *questions(bench)) if hasattr(policy, "sample") else None,
    }
    return policy


def questions(bench: Bench) -> tuple[list[Prompt], list[Completion]]:
    """Some prompts of the bench, each with a reply whose log-probability is asked for."""
    from prefzoo.models.loading import load_tokenizer

    tokenizer = load_tokenizer(bench.start)
    pairs = bench.data.preferences[:ASKED]
    ids = [(*tokenizer(pair["chosen"][0]["content"])["input_ids"], tokenizer.eos_token_id) for pair in pairs]
    return [pair["prompt"] for pair in pairs], [Completion("", each, True) for each in ids]


def answers(policy: Policy, prompts: Sequence[Prompt], completions: Sequence[Completion]) -> dict[str, Any]:
    """What tells one policy from another: sampled replies, and log-probabilities where it has them, also with its
    adapter off."""
    generation = Generation(max_new_tokens=24)
    said: dict[str, Any] = {
        "prompts": [list(prompt) for prompt in prompts],
        "completions": [list(c.token_ids) for c in completions],
        "replies": [list(each[0].token_ids) for each in policy.sample(prompts, generation, seed=0)],
    }
    if hasattr(policy, "log_probabilities"):
        said["log_probabilities"] = policy.log_probabilities(prompts, completions)
        said["adapted"] = policy.adapted  # type: ignore[attr-defined]
        if said["adapted"]:
            with policy.as_start() as start:  # type: ignore[attr-defined]
                said["adapter_off"] = start.log_probabilities(prompts, completions)
    return said


def strangers(rows: set[tuple[int, ...]], bench: Bench, most: int = 3) -> list[str]:
    """Sequences that were trained on or sampled from and hold no prompt of the bench."""
    from prefzoo.models.loading import load_tokenizer

    tokenizer = load_tokenizer(bench.start)

    def plain(text: str) -> str:
        return " ".join(text.split())

    known = {plain(prompt[-1]["content"]) for prompt in bench.data.prompts}
    texts = (plain(tokenizer.decode(row, skip_special_tokens=True)) for row in sorted(rows))
    return [text for text in texts if not any(prompt in text for prompt in known)][:most]


class CountedReward:
    """A reward that counts the replies it is given, and is otherwise the one inside."""

    def __init__(self, inner: Reward) -> None:
        self.inner, self.calls = inner, 0

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        self.calls += len(completions)
        return self.inner(prompts, completions)

    def spec(self, folder: Path) -> dict[str, Any]:
        return self.inner.spec(folder)

    @property
    def flops(self) -> float:
        """What the reward inside has spent, where it counts that."""
        return getattr(self.inner, "flops", 0.0)


@dataclass
class Seen:
    """What went through any transformers model of this process.

    Attributes:
        sequences, trained_tokens: rows and attended tokens of forward passes whose output has a gradient.
        generated_tokens: sampled tokens, ends included.
        rows: the distinct rows of either sort, attended tokens only.
    """

    sequences: int = 0
    trained_tokens: int = 0
    generated_tokens: int = 0
    rows: set[tuple[int, ...]] = field(default_factory=set)

    def note(self, ids: Any, mask: Any) -> int:
        """Add the rows of a batch; their attended tokens in all."""
        kept = [
            tuple(row[keep.bool()].tolist())
            for row, keep in zip(ids, ids == ids if mask is None else mask, strict=True)
        ]
        self.rows.update(kept)
        return sum(map(len, kept))


@contextlib.contextmanager
def watching() -> Iterator[Seen]:
    """Sees every forward pass and every call of `generate` while the block runs."""
    import torch
    from transformers import GenerationMixin, PreTrainedModel

    seen = Seen()
    call, generate = torch.nn.Module.__call__, GenerationMixin.generate
    depth = 0

    def watched_call(self: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal depth
        depth += 1  # a model's inner model is a model too
        try:
            output = call(self, *args, **kwargs)
        finally:
            depth -= 1
        if depth == 0:
            values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else [output]
            ids = kwargs.get("input_ids", args[0] if args else None)
            if ids is not None and any(torch.is_tensor(v) and v.requires_grad for v in values):
                seen.sequences += len(ids)
                seen.trained_tokens += seen.note(ids, kwargs.get("attention_mask"))
        return output

    def watched_generate(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = generate(self, *args, **kwargs)
        ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
        ends = torch.tensor(kwargs.get("eos_token_id") or self.generation_config.eos_token_id, device=ids.device)
        ended = torch.isin(getattr(output, "sequences", output)[:, ids.shape[1] :], ends.flatten())
        seen.generated_tokens += int((ended.cumsum(1) - ended.long() == 0).sum())
        seen.note(ids, kwargs.get("attention_mask"))
        return output

    PreTrainedModel.__call__, GenerationMixin.generate = watched_call, watched_generate
    try:
        yield seen
    finally:
        del PreTrainedModel.__call__
        GenerationMixin.generate = generate
