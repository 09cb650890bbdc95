"""Replies to many prompts, in batches of a recipe's size, and on a GPU in as large ones as fit.

What a reply is drawn with is told by the seed and by its place in a batch of the recipe's size. So it is the same
reply, to rounding, however many rows pass through the model at a time; but where transformers' own loop draws and a
batch had to be halved.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from prefzoo.errors import PrefzooError
from prefzoo.models.batch_invariance import Batching
from prefzoo.models.decoding import NO_PROBABILITIES, fast_generate
from prefzoo.models.padding import padded
from prefzoo.settings import Generation
from prefzoo.validation_messages import diverged

SIDE_BY_SIDE = 512
"""Up to how many rows a GPU is given at a time where batches of the recipe are smaller: 16 times the rows took 1.3
times as long (an H200, 0.5B, steps launched one by one)."""
JOINING = ("cuda",)
"""Devices for which batches are joined."""


@dataclass(frozen=True)
class Sampled:
    """Tokens of replies, and whether others may be sampled beside them without a change to any: they may be padded, and
    were drawn with our numbers."""

    rows: list[list[int]]
    may_be_joined: bool


@dataclass(frozen=True)
class SampledModel:
    """What replies are sampled from.

    Attributes:
        model: a causal language model, with an adapter or without.
        tokenizer: for padding.
        ends: ids of the tokens that end a reply.
        batching: which prompts may be side by side.
    """

    model: Any
    tokenizer: Any
    ends: list[int]
    batching: Batching

    def replies(self, prompts: Sequence[list[int]], generation: Generation, seed: int) -> Iterator[list[list[int]]]:
        """The tokens of a reply to each prompt, batch by batch, with what follows on its end.

        Args:
            prompts: in tokens, the longest first: a batch that does not fit in memory is met at once, not after an
                hour.
            seed: gives the same replies again.

        Raises:
            PrefzooError: where the model gives no probabilities.
            torch.OutOfMemoryError: where not even one row fits on the GPU.
        """
        batches = list(self._batches(prompts, generation.batch_size))
        batch_of = [batch for batch in batches for _ in batch]
        joined, most, begin = False, generation.batch_size, 0
        while begin < len(prompts):
            end = min(begin + most, len(prompts) if joined else batch_of[begin].stop)
            sampled = None
            try:
                sampled = self._sampled(prompts[begin:end], batch_of[begin:end], begin, generation, seed)
            except torch.OutOfMemoryError:
                if end - begin == 1:
                    raise
            if sampled is None:  # what did not fit is let go of by now
                most = (end - begin) // 2
                torch.cuda.empty_cache()
                continue
            if begin == 0 and end == batches[0].stop and self.model.device.type in JOINING and sampled.may_be_joined:
                joined, most = True, max(SIDE_BY_SIDE, most)
            begin = end
            yield sampled.rows

    def _batches(self, prompts: Sequence[list[int]], size: int) -> Iterator[range]:
        """Which prompts are in one batch as the recipe says."""
        begin = 0
        while begin < len(prompts):
            end = min(begin + (1 if self.batching == "single" else size), len(prompts))
            if self.batching == "equal":
                alike = (i for i in range(begin, end) if len(prompts[i]) != len(prompts[begin]))
                end = next(alike, end)
            yield range(begin, end)
            begin = end

    def _sampled(
        self, prompts: Sequence[list[int]], batch_of: list[range], begin: int, generation: Generation, seed: int
    ) -> Sampled:
        """Replies to prompts that stand at `begin` and after it."""
        batch = padded(list(prompts), self.tokenizer, "left", self.model.device)
        how: dict[str, Any] = {"do_sample": False}
        uniform: Tensor | None = None
        if generation.temperature > 0:
            how = {"do_sample": True, "temperature": generation.temperature, "top_k": 0, "top_p": 1.0}
            tokens, end = generation.max_new_tokens, begin + len(prompts)
            uniform = torch.cat([
                self._numbers(each, tokens, seed)[max(begin - each.start, 0) : end - each.start]
                for each in dict.fromkeys(batch_of)
            ])  # fmt: skip
        torch.manual_seed(_derive(seed, begin))  # for transformers' own loop
        drawn: list[tuple[Tensor, Tensor]] = []
        try:
            with fast_generate(self.model, drawn=drawn, uniform=uniform):
                output = self.model.generate(
                    **batch,
                    max_new_tokens=generation.max_new_tokens,
                    pad_token_id=self.tokenizer.pad_token_id,
                    eos_token_id=self.ends,
                    **how,
                )
        except RuntimeError as error:
            if NO_PROBABILITIES not in str(error):
                raise
            raise PrefzooError(diverged("the policy gives no probabilities")) from error
        ours = bool(drawn) or not how["do_sample"]
        return Sampled(output[:, batch["input_ids"].shape[1] :].tolist(), ours and self.batching == "padded")

    def _numbers(self, batch: range, tokens: int, seed: int) -> Tensor:
        """What the replies of a batch are drawn with, (rows, tokens), uniform."""
        torch.manual_seed(_derive(seed, batch.start))
        return torch.rand(len(batch), tokens, dtype=torch.float64, device=self.model.device)


def derived_seed(*parts: object) -> int:
    """A seed for one part of the work, below 2^31, which vLLM takes."""
    return _derive(0, *parts) % 2**31


def _derive(seed: int, *parts: object) -> int:
    """Return a seed for one part of the work, derived from the seed of the whole."""
    text = " ".join(map(str, (seed, *parts)))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
