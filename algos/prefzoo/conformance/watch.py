"""Watch what passes through the models of this process while an algorithm trains, whichever way it goes in."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from prefzoo.conformance.seen import UNALTERED, Batch, Seen, in_backward, learns, mask_of, rows_of, token_ids
from prefzoo.interface import Bench


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
        """Count the weights that every token passes through: of several adapters not all may be on."""
        from prefzoo.models.adapters import of_adapter

        if id(module) not in self.sizes:
            frozen = [weight for name, weight in module.named_parameters() if not of_adapter(f".{name}")]
            self.sizes[id(module)] = module, sum(weight.numel() for weight in frozen)
        return self.sizes[id(module)][1]

    def model_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(model: Any, *args: Any, **kwargs: Any) -> Any:
            ids = token_ids(model, args, kwargs) if self.depth == 0 else None
            if self.depth == 0 and ids is None:  # a call that says not what it is given: what it calls may
                return original(model, *args, **kwargs)
            with self.within():
                output = original(model, *args, **kwargs)
            if ids is not None:
                mask = mask_of(ids, kwargs.get("attention_mask"))
                cached = kwargs.get("past_key_values")
                whole = cached is None or cached.get_seq_length() <= ids.shape[1]
                rows = rows_of(ids, mask)
                tokens = sum(map(len, rows))
                self.seen.passed(rows if whole else [], tokens, len(rows), self.weights(model), learns(output))
            return output

        return call

    def layer_call(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Counts the layers that somebody calls by hand, without their model: by the first layer, all positions."""

        def call(layer: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(layer, *args, **kwargs)
            first = getattr(getattr(layer, "self_attn", None), "layer_idx", 0) == 0
            if self.depth == 0 and first and not in_backward():
                hidden = kwargs.get("hidden_states", args[0] if args else None)
                if hidden is not None:
                    size = int(hidden.shape[:-1].numel())
                    self.seen.passed([], size, len(hidden), self.weights(layer), learns(output))
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
                for name in (
                    *("do_sample", "temperature", "top_p", "top_k", "max_new_tokens", "eos_token_id"),
                    *UNALTERED,
                )
            }
            altered = [f"{name} {settings[name]}" for name, usual in UNALTERED.items() if settings[name] not in usual]
            if kwargs.get("logits_processor"):
                altered.append("a logits_processor")
            ids = token_ids(model, args, kwargs)
            sequences = getattr(output, "sequences", output)
            prompt_ids = kwargs.get("input_ids", kwargs.get("inputs", args[0] if args else None))
            replies = sequences[:, prompt_ids.shape[1] :] if prompt_ids is not None else sequences
            prompts = rows_of(ids, mask_of(ids, kwargs.get("attention_mask")))
            prompts = [prompt for prompt in prompts for _ in range(len(replies) // len(prompts))]
            ends = torch.tensor(settings["eos_token_id"], device=replies.device).flatten()
            ended = torch.isin(replies, ends)
            in_reply = ended.cumsum(1) - ended.long() == 0
            written = [tuple(row[own].tolist()) for row, own in zip(replies, in_reply, strict=True)]
            weights = self.weights(model)
            read, generated = sum(map(len, prompts)), sum(map(len, written))
            self.seen.forward_tokens += read
            self.seen.generated_tokens += generated
            self.seen.flops += 2.0 * weights * (read + generated)
            rows = [prompt + reply for prompt, reply in zip(prompts, written, strict=True)]
            self.seen.batches.append(
                Batch(
                    bool(settings["do_sample"]),
                    settings["temperature"],
                    settings["top_p"],
                    settings["top_k"],
                    settings["max_new_tokens"],
                    altered,
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
                    self._note_prompts(prompts)
                return original(reward, prompts, completions, *args, **kwargs)

        return score

    def judge(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Counts at the judge's own functions, one question a prompt, whichever method they are reached by."""

        def answer(prompts: Any, *args: Any, **kwargs: Any) -> Any:
            self.seen.judge_calls += len(prompts)
            self._note_prompts(prompts)
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

    def _note_prompts(self, prompts: Any) -> None:
        self.seen.asked_prompts.update(prompt[-1]["content"] for prompt in prompts)


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
        names = [name for name in ("compare_once", "grade_replies") if getattr(bench.judge, name, None) is not None]
        targets += [(bench.judge, name, watcher.judge) for name in names]
    if bench.assistant is not None:
        targets.append((type(bench.assistant), "__call__", watcher.assistant))
    with contextlib.ExitStack() as stack:
        for target, name, wrap in targets:
            stack.enter_context(mock.patch.object(target, name, wrap(getattr(target, name))))
        stack.enter_context(
            _watching_opened_files(lambda path: watcher.seen.opened.append(str(path)) if sealed(path) else None)
        )
        yield watcher.seen


_listeners: list[Callable[[Path], object]] = []


def _notify_listeners(event: str, arguments: tuple[Any, ...]) -> None:
    if _listeners and event == "open" and isinstance(arguments[0], str | bytes):
        for listener in _listeners:
            listener(Path(os.path.abspath(os.fsdecode(arguments[0]))))


_hook_installed = False


@contextlib.contextmanager
def _watching_opened_files(listener: Callable[[Path], object]) -> Iterator[None]:
    """Tell `listener` of every file that Python opens. Python never lets go of an audit hook, so that there is one."""
    global _hook_installed
    if not _hook_installed:
        sys.addaudithook(_notify_listeners)
        _hook_installed = True
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
