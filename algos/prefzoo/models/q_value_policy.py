"""A language model whose next-token distribution is shifted by learned Q-values: the policies of ILQL and of SAC."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from prefzoo.ledger import Ledger
from prefzoo.models.loading import count_parameters
from prefzoo.models.policy_with_modules import PolicyWithModules
from prefzoo.models.score_head import hidden_width
from prefzoo.models.weight_counts import HEAD
from prefzoo.settings import Generation
from prefzoo.types import Completion, Progress, Prompt

Q_HEADS, V_HEAD = (f"{HEAD}_q1", f"{HEAD}_q2"), f"{HEAD}_v"
"""Names of the modules. Heads of values are trained in float32, whatever the dtype of the model (`fitting`)."""


class QValuePolicy(PolicyWithModules):
    """Samples from softmax(log pi + decode_beta * (min(Q1, Q2) - V)) over the next token, with pi the language model
    (Snell et al. 2022, https://arxiv.org/abs/2206.11871, section 4.3). V is alike for all tokens of the vocabulary and
    cancels. A temperature divides the whole exponent.

    The heads read the last hidden states. What they give is 0 before they are trained, so that a new policy is exactly
    the start.

    Settings:
        decode_beta: weight of the Q-values; 0 is the language model alone.
    """

    kind: ClassVar[str] = "q_values"

    @classmethod
    def new_modules(cls, model: Any) -> dict[str, nn.Module]:
        width, vocabulary = hidden_width(model.config), model.get_input_embeddings().weight.shape[0]
        return {name: _head(width, vocabulary) for name in Q_HEADS} | {V_HEAD: _head(width, 1)}

    def sample(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        seed: int,
        n: int = 1,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Sample as the language model does; the Q heads are charged for each token that is generated."""
        with self._shifted():
            replies = self.policy.sample(prompts, generation, seed, n=n, ledger=ledger, progress=progress)
        if ledger is not None and self.settings["decode_beta"]:
            heads = sum(count_parameters(self.modules[name]) for name in Q_HEADS)
            ledger.flops += 2.0 * heads * sum(len(reply.token_ids) for row in replies for reply in row)
        return replies

    def log_probabilities(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[list[float]]:
        """The log-probability of each token of each reply, in nats, as it is sampled at this temperature."""
        with self._shifted():
            return self.policy.log_probabilities(prompts, completions, temperature)

    def kl_to_start(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[float]:
        """KL of what is sampled to the start, exact over the vocabulary; see `LanguageModelPolicy.kl_to_start`."""
        with self._shifted():
            return self.policy.kl_to_start(prompts, completions, temperature)

    @contextlib.contextmanager
    def _shifted(self) -> Iterator[None]:
        """Within this block the language model's logits are those of the sampled distribution, but where its adapter is
        off: there it stands for the start."""
        beta, heads = self.settings["decode_beta"], [self.modules[name] for name in Q_HEADS]
        if not beta:
            yield
            return
        model = self.policy.model.get_base_model() if self.policy.adapted else self.policy.model
        states: list[Tensor] = []

        def read(module: nn.Module, inputs: tuple[Any, ...]) -> None:
            states[:] = inputs[:1]  # of those positions alone that logits are made of

        def shift(module: nn.Module, inputs: Any, output: Any) -> None:
            if not self.policy.adapter_off:
                values = torch.minimum(*(head(states[0].float()) for head in heads))
                output.logits = output.logits.float() + beta * values

        hooks = [model.get_output_embeddings().register_forward_pre_hook(read), model.register_forward_hook(shift)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


class SoftQPolicy(PolicyWithModules):
    """The actor of SAC between two rounds, and the Q heads that taught it, with which the next round goes on. It
    samples as the language model does."""

    kind: ClassVar[str] = "soft_q_values"

    @classmethod
    def new_modules(cls, model: Any) -> dict[str, nn.Module]:
        return {name: module for name, module in QValuePolicy.new_modules(model).items() if name != V_HEAD}

    def log_probabilities(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[list[float]]:
        """The log-probability of each token of each reply, in nats, under the actor at this temperature."""
        return self.policy.log_probabilities(prompts, completions, temperature)

    def kl_to_start(
        self, prompts: Sequence[Prompt], completions: Sequence[Completion], temperature: float = 1.0
    ) -> list[float]:
        """KL of the actor to the start, exact over the vocabulary; see `LanguageModelPolicy.kl_to_start`."""
        return self.policy.kl_to_start(prompts, completions, temperature)


def _head(width: int, outputs: int) -> nn.Module:
    """The paper's head, which gives 0 until it is trained."""
    head = nn.Sequential(nn.Linear(width, 2 * width), nn.ReLU(), nn.Linear(2 * width, outputs))
    for weight in head[2].parameters():
        nn.init.zeros_(weight)
    return head
