"""What was seen to pass through the models of a process, and how the inputs of a model are read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Row = tuple[int, ...]
"""The attended token ids of one sequence."""

UNALTERED = {
    "min_p": (None, 0.0),
    "typical_p": (None, 1.0),
    "repetition_penalty": (None, 1.0),
    "no_repeat_ngram_size": (None, 0),
    "num_beams": (None, 1),
    "epsilon_cutoff": (None, 0.0),
    "eta_cutoff": (None, 0.0),
}
"""Settings of `generate` -> the values with which they change nothing."""


@dataclass
class Batch:
    """One call of `generate`.

    Attributes:
        sampling: whether it draws at random (False is greedy).
        temperature, top_p, top_k, max_new_tokens: its settings.
        altered: other settings that make another distribution of what is sampled.
        by_assistant: whether the bench's assistant made it.
        rows: prompts with their replies, ends included.
    """

    sampling: bool
    temperature: float | None
    top_p: float | None
    top_k: int | None
    max_new_tokens: int | None
    altered: list[str]
    by_assistant: bool
    rows: list[Row]


@dataclass
class Seen:
    """All that passed through any transformers model of this process, rewards and judges left out.

    Attributes:
        trained, forwarded: sequence -> how often it passed with a gradient, and without one.
        sequences: passes with a gradient, also of sequences that cannot be read.
        trained_tokens: attended tokens of passes with a gradient.
        forward_tokens: attended tokens of passes without one; of `generate`, those of the prompts.
        generated_tokens: tokens that `generate` made, ends included.
        flops: the least that these passes cost, by the weights of the models that they went through.
        batches: the calls of `generate`.
        reward_calls, judge_calls: replies scored by a reward, questions put to the bench's judge.
        asked_prompts: the last turns of all prompts that a reward or the judge was given.
        trainings: `config_audit.training_facts` of every `transformers.Trainer` that trained.
        opened: files that are sealed from a training, and that this process opened.
    """

    trained: Counter[Row] = field(default_factory=Counter)
    forwarded: Counter[Row] = field(default_factory=Counter)
    sequences: int = 0
    trained_tokens: int = 0
    forward_tokens: int = 0
    generated_tokens: int = 0
    flops: float = 0.0
    batches: list[Batch] = field(default_factory=list)
    reward_calls: int = 0
    judge_calls: int = 0
    asked_prompts: set[str] = field(default_factory=set)
    trainings: list[dict[str, Any]] = field(default_factory=list)
    opened: list[str] = field(default_factory=list)

    def passed(self, rows: list[Row], tokens: int, sequences: int, weights: int, gradient: bool) -> None:
        """Note one forward pass of a batch.

        Args:
            rows: those of its sequences that can be read.
            weights: of the model.
            gradient: whether its output has one.
        """
        if gradient:
            self.trained.update(rows)
            self.sequences += sequences
            self.trained_tokens += tokens
        else:
            self.forwarded.update(rows)
            self.forward_tokens += tokens
        self.flops += (4.0 if gradient else 2.0) * weights * tokens


def token_ids(model: Any, args: Any, kwargs: Any) -> Any:
    """The token ids (B, T) that a model is given; embeddings are read back as the tokens that they are nearest to."""
    import torch

    for name in ("input_ids", "inputs"):
        if kwargs.get(name) is not None:
            return kwargs[name]
    if args and torch.is_tensor(args[0]) and not args[0].is_floating_point():
        return args[0]
    embeddings = kwargs.get("inputs_embeds")
    if embeddings is None:
        return None
    table = model.get_input_embeddings().weight.detach().float()
    return torch.cdist(embeddings.detach().float().flatten(0, 1), table).argmin(1).view(embeddings.shape[:2])


def mask_of(ids: Any, mask: Any) -> Any:
    """Which positions are attended, (B, T); all of them where the model is given no mask of that shape."""
    if mask is None or mask.dim() != 2 or mask.shape[1] < ids.shape[1]:
        return ids == ids
    return mask[:, -ids.shape[1] :].bool()


def rows_of(ids: Any, mask: Any) -> list[Row]:
    return [tuple(row[own].tolist()) for row, own in zip(ids, mask, strict=True)]


def learns(output: Any) -> bool:
    """Whether anything in a model's output has a gradient."""
    import torch

    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else [output]
    return any(torch.is_tensor(value) and value.requires_grad for value in values)


def in_backward() -> bool:
    """Whether a backward pass runs, in which gradient checkpointing computes layers again."""
    import torch

    return torch._C._current_graph_task_id() != -1
