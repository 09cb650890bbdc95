"""How likely a language model finds replies, and how far from the start it has gone."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from prefzoo.models.merged_layers import merged_layers
from prefzoo.models.padding import padded
from prefzoo.types import Completion, Prompt


class ReplyLikelihoods(ABC):
    """A policy that is a causal language model, seen as a distribution over replies.

    Attributes:
        model, tokenizer: as of `LanguageModelPolicy`.
    """

    model: Any
    tokenizer: Any

    @property
    @abstractmethod
    def adapted(self) -> bool:
        """Whether the start is this model with its adapter off."""

    @abstractmethod
    def render(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt, up to where the assistant's reply begins."""

    @abstractmethod
    def as_start(self) -> contextlib.AbstractContextManager[ReplyLikelihoods]:
        """Give the start within a block; an `adapted` policy is the start itself while in it."""

    @property
    def _vocabulary(self) -> int:
        return int(self.model.get_input_embeddings().weight.shape[0])

    def token_log_probabilities(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> Iterator[tuple[int, torch.Tensor]]:
        """Give the log-probabilities over the whole vocabulary at each token of each reply.

        Yields:
            (index of the reply, tensor of shape (tokens of the reply, vocabulary)), in order of length.
        """
        return self._token_tables([self.render(p) for p in prompts], [c.token_ids for c in completions], temperature)

    @torch.inference_mode()
    def _token_tables(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], temperature: float
    ) -> Iterator[tuple[int, torch.Tensor]]:
        rows = [(list(prompt), list(reply)) for prompt, reply in zip(prompts, replies, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: -sum(map(len, rows[i])))
        begin = 0
        while begin < len(order):
            longest = sum(map(len, rows[order[begin]]))
            # Logits of a batch stay below 256 MiB in float32, whatever the vocabulary.
            size = max(1, min(128, 2**26 // (longest * self._vocabulary)))
            batch = order[begin : begin + size]
            begin += size
            inputs = padded([rows[i][0] + rows[i][1] for i in batch], self.tokenizer, "right", self.model.device)
            with merged_layers(self.model):
                logits = self.model(**inputs).logits  # (B, T, V)
            for row, i in enumerate(batch):
                first, count = len(rows[i][0]) - 1, len(rows[i][1])
                scaled = logits[row, first : first + count].float() / temperature
                yield i, scaled.log_softmax(-1)

    def log_probabilities(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[list[float]]:
        """Return the log-probability of each token of each reply, in nats, under this policy at this temperature."""
        rendered = [self.render(prompt) for prompt in prompts]
        return self.tokens_log_probabilities(rendered, [reply.token_ids for reply in completions], temperature)

    @torch.inference_mode()
    def tokens_log_probabilities(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """The same of prompts and replies that are given in tokens."""
        result: list[list[float]] = [[] for _ in replies]
        for i, table in self._token_tables(prompts, replies, temperature):
            ids = torch.tensor(replies[i], device=table.device, dtype=torch.long)
            result[i] = table.gather(1, ids[:, None])[:, 0].tolist()
        return result

    def log_ratios(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[float]:
        """log p(reply) under this policy minus that under the start, of each reply, in nats."""
        own = self.log_probabilities(prompts, completions, temperature)
        with self.as_start() as start:
            reference = start.log_probabilities(prompts, completions, temperature)
        return [sum(ours) - sum(theirs) for ours, theirs in zip(own, reference, strict=True)]

    def kl_to_start(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[float]:
        """Return KL(policy || start) of each reply in nats, for replies that this policy sampled at `temperature`.

        At each token the exact divergence between the two next-token distributions is summed over the reply
        (the Rao-Blackwellised estimator, Amini et al. 2025, https://arxiv.org/abs/2504.10637): unbiased like the
        log-ratio of the sampled tokens, never negative, and with less variance.
        """
        totals: list[float] = []
        with contextlib.ExitStack() as stack:
            separate_start = None if self.adapted else stack.enter_context(self.as_start())
            # Two tables of (tokens x vocabulary) are held for each reply of a part: below 512 MiB each in float32.
            longest = max((len(c.token_ids) for c in completions), default=1)
            size = max(1, min(32, 2**27 // (longest * self._vocabulary)))
            for begin in range(0, len(completions), size):
                part = (prompts[begin : begin + size], completions[begin : begin + size], temperature)
                if separate_start is None:
                    with self.as_start() as start:
                        reference = dict(start.token_log_probabilities(*part))
                else:
                    reference = dict(separate_start.token_log_probabilities(*part))
                own = dict(self.token_log_probabilities(*part))
                totals += [float((own[i].exp() * (own[i] - reference[i])).sum()) for i in range(len(own))]
        return totals
