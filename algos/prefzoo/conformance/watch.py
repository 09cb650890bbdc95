"""Watch what passes through the models of this process while an algorithm trains, whichever way it goes in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from prefzoo.interface import Bench

Row = tuple[int, ...]
"""The attended token ids of one sequence."""


@dataclass
class Batch:
    """One call of `generate`.

    Attributes:
        sampling: whether it draws at random (False is greedy).
        temperature, top_p, top_k, max_new_tokens: its settings.
        by_assistant: whether the bench's assistant made it.
        rows: prompts with their replies, ends included.
    """

    sampling: bool
    temperature: float | None
    top_p: float | None
    top_k: int | None
    max_new_tokens: int | None
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
        asked: the last turns of all prompts that a reward or the judge was given.
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
    asked: set[str] = field(default_factory=set)
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


class _Watcher:
    """The functions that stand in the place of the libraries' own while a training is watched."""

    def __init__(self) -> None:
        self.seen = Seen()
        self.depth = 0
        """Above 0 within a model's own call, `generate`, a reward or a judge: what passes there is counted there."""
        self.assisting = 0
        self.sizes: dict[int, tuple[Any, int]] = {}

    @contextlib.contextmanager
    def within(self) -> Iterator[bool]:
        """Enter a counted call; gives whether it is the outermost one."""
        self.depth += 1
        try:
            yield self.depth == 1
        finally:
            self.depth -= 1

    def weights(self, module: Any) -> int:
        if id(module) not in self.sizes:
            self.sizes[id(module)] = module, sum(weight.numel() for weight in module.parameters())
        return self.sizes[id(module)][1]

    def model_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(model: Any, *args: Any, **kwargs: Any) -> Any:
            with self.within() as outermost:
                output = original(model, *args, **kwargs)
            if outermost:
                ids = _token_ids(model, args, kwargs)
                if ids is not None:
                    mask = _mask(ids, kwargs.get("attention_mask"))
                    cached = kwargs.get("past_key_values")
                    whole = cached is None or cached.get_seq_length() <= ids.shape[1]
                    rows = _rows(ids, mask)
                    tokens = sum(map(len, rows))
                    self.seen.passed(rows if whole else [], tokens, len(rows), self.weights(model), _learns(output))
            return output

        return call

    def layer_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Counts the layers that somebody calls by hand, without their model: by the first layer, all positions."""

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(layer, *args, **kwargs)
            first = getattr(getattr(layer, "self_attn", None), "layer_idx", 0) == 0
            if self.depth == 0 and first and not _in_backward():
                hidden = kwargs.get("hidden_states", args[0] if args else None)
                if hidden is not None:
                    size = int(hidden.shape[:-1].numel())
                    self.seen.passed([], size, len(hidden), self.weights(layer), _learns(output))
            return output

        return call

    def generate(self, original: Callable[..., Any]) -> Callable[..., Any]:
        import torch

        def generate(model: Any, *args: Any, **kwargs: Any) -> Any:
            with self.within() as outermost:
                output = original(model, *args, **kwargs)
            if not outermost:
                return output
            config = kwargs.get("generation_config") or model.generation_config
            settings = {
                name: kwargs[name] if kwargs.get(name) is not None else getattr(config, name, None)
                for name in ("do_sample", "temperature", "top_p", "top_k", "max_new_tokens", "eos_token_id")
            }
            ids = _token_ids(model, args, kwargs)
            sequences = getattr(output, "sequences", output)
            given = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
            replies = sequences[:, given.shape[1] :] if given is not None else sequences
            prompts = _rows(ids, _mask(ids, kwargs.get("attention_mask")))
            prompts = [prompt for prompt in prompts for _ in range(len(replies) // len(prompts))]
            ends = torch.tensor(settings["eos_token_id"], device=replies.device).flatten()
            ended = torch.isin(replies, ends)
            kept = ended.cumsum(1) - ended.long() == 0
            written = [tuple(row[own].tolist()) for row, own in zip(replies, kept, strict=True)]
            weights = self.weights(model)
            read, made = sum(map(len, prompts)), sum(map(len, written))
            self.seen.forward_tokens += read
            self.seen.generated_tokens += made
            self.seen.flops += 2.0 * weights * (read + made)
            rows = [prompt + reply for prompt, reply in zip(prompts, written, strict=True)]
            self.seen.batches.append(
                Batch(
                    bool(settings["do_sample"]),
                    settings["temperature"],
                    settings["top_p"],
                    settings["top_k"],
                    settings["max_new_tokens"],
                    self.assisting > 0,
                    rows,
                )
            )
            return output

        return generate

    def train(self, original: Callable[..., Any]) -> Callable[..., Any]:
        from prefzoo.trainers.config_audit import training_facts

        def train(trainer: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(trainer, *args, **kwargs)
            self.seen.trainings.append(training_facts(trainer))
            return output

        return train

    def reward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def score(reward: Any, prompts: Any, completions: Any, *args: Any, **kwargs: Any) -> Any:
            with self.within() as outermost:
                if outermost:
                    self.seen.reward_calls += len(completions)
                    self._ask(prompts)
                return original(reward, prompts, completions, *args, **kwargs)

        return score

    def judge(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Counts at the judge's own functions, one question a prompt, whichever method they are reached by."""

        def answer(prompts: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.judge_calls += len(prompts)
            self._ask(prompts)
            with self.within():
                return original(prompts, *args, **kwargs)

        return answer

    def assistant(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def answer(*args: Any, **kwargs: Any) -> Any:
            self.assisting += 1
            try:
                return original(*args, **kwargs)
            finally:
                self.assisting -= 1

        return answer

    def _ask(self, prompts: Any) -> None:
        self.seen.asked.update(prompt[-1]["content"] for prompt in prompts)


@contextlib.contextmanager
def watching(bench: Bench, sealed: Callable[[Path], bool] = lambda path: False) -> Iterator[Seen]:
    """See every forward pass, every call of `generate`, of a reward and of the bench's judge, every training, and every
    file that is opened, while the block runs.

    Args:
        bench: whose reward, judge and assistant are watched.
        sealed: whether a file is one that a training must not read.
    """
    from transformers import GenerationMixin, PreTrainedModel, Trainer
    from transformers.modeling_layers import GradientCheckpointingLayer

    from prefzoo.rewards.reward_model import RewardModel

    watcher = _Watcher()
    rewards = {RewardModel, *([type(bench.reward)] if bench.reward is not None else [])}
    targets: list[tuple[Any, str, Any]] = [
        (PreTrainedModel, "__call__", watcher.model_call),
        (GradientCheckpointingLayer, "__call__", watcher.layer_call),
        (GenerationMixin, "generate", watcher.generate),
        (Trainer, "train", watcher.train),
        *((cls, "__call__", watcher.reward) for cls in rewards),
    ]
    if bench.judge is not None:
        names = [name for name in ("answers", "grades") if getattr(bench.judge, name, None) is not None]
        targets += [(bench.judge, name, watcher.judge) for name in names]
    if bench.assistant is not None:
        targets.append((type(bench.assistant), "__call__", watcher.assistant))
    with contextlib.ExitStack() as stack:
        for target, name, wrap in targets:
            stack.enter_context(mock.patch.object(target, name, wrap(getattr(target, name))))
        stack.enter_context(_hearing(lambda path: watcher.seen.opened.append(str(path)) if sealed(path) else None))
        yield watcher.seen


def _token_ids(model: Any, args: Any, kwargs: Any) -> Any:
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


def _mask(ids: Any, mask: Any) -> Any:
    """Which positions are attended, (B, T); all of them where the model is given no mask of that shape."""
    if mask is None or mask.dim() != 2 or mask.shape[1] < ids.shape[1]:
        return ids == ids
    return mask[:, -ids.shape[1] :].bool()


def _rows(ids: Any, mask: Any) -> list[Row]:
    return [tuple(row[own].tolist()) for row, own in zip(ids, mask, strict=True)]


def _learns(output: Any) -> bool:
    """Whether anything in a model's output has a gradient."""
    import torch

    values = output.values() if isinstance(output, dict) else output if isinstance(output, tuple) else [output]
    return any(torch.is_tensor(value) and value.requires_grad for value in values)


def _in_backward() -> bool:
    """Whether a backward pass runs, in which gradient checkpointing computes layers again."""
    import torch

    return torch._C._current_graph_task_id() != -1


_listeners: list[Callable[[Path], object]] = []


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _listeners and event == "open" and isinstance(arguments[0], str | bytes):
        for listener in _listeners:
            listener(Path(os.path.abspath(os.fsdecode(arguments[0]))))


_hooked = False


@contextlib.contextmanager
def _hearing(listener: Callable[[Path], object]) -> Iterator[None]:
    """Tell `listener` of every file that Python opens. Python never lets go of an audit hook, so that there is one."""
    global _hooked
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked = True
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
