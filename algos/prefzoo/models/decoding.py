"""Sampling replies side by side: what `generate` does, without computing again what is finished or the same.

Prompts that stand in several rows are read once, a row is dropped soon after its reply has ended, and the keys and
values of earlier tokens are not copied for each new one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import GenerationMixin, StoppingCriteriaList
from transformers.cache_utils import DynamicLayer
from transformers.generation import (
    EosTokenCriteria,
    LogitsProcessorList,
    MaxLengthCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from prefzoo.models.batch_invariance import has_attention_alone, takes
from prefzoo.models.merged_layers import merged_layers
from prefzoo.models.replayed_steps import ReplayedSteps, can_replay

NO_PROBABILITIES = "probability tensor contains"
"""In the error when a sampled distribution is not one, torch's own or ours."""
ROOM = 64
"""By how many tokens the memory for keys and values grows at a time."""
FINISHED_SHARE = 1 / 8
"""Finished rows are dropped when they are this share of a batch: each time what is kept of the others is copied."""

BY_TOKEN = ("attention_mask", "position_ids")
STEP_INPUTS = {*BY_TOKEN, "past_key_values", "use_cache", "logits_to_keep"}
BY_ROW = (TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)
"""What may change the scores of the next token: each looks at nothing but the scores of one row."""


@contextlib.contextmanager
def fast_generate(
    model: nn.Module,
    noise: bool = False,
    drawn: list[tuple[Tensor, Tensor]] | None = None,
    uniform: Tensor | None = None,
) -> Iterator[None]:
    """Within this block `generate` of this model, adapted or not, decodes with `decode`, unless it searches beams or
    brings a `generate` of its own.

    Args:
        noise: draw from the same random numbers as transformers does, one for each token of the vocabulary, so that a
            seed gives the same replies but for rounding; otherwise there is one for each token of a reply.
        drawn: is given, for each call, the replies and the log-probability that each of their tokens was drawn with,
            both (B, tokens of the longest), in nats and 0 after a reply's end; nothing where `decode` did not draw
            from the model's distribution at the temperature.
        uniform: the numbers that tokens are drawn with, (B, new tokens), float64; left out, they are drawn here.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    if getattr(type(inner), "generate", None) is not GenerationMixin.generate:
        yield
        return

    def generate(*args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("generation_config") or inner.generation_config
        kwargs.setdefault("synced_gpus", False)  # FSDP's processes have whole weights while they sample
        if (kwargs.get("num_beams") or config.num_beams or 1) == 1:
            kwargs.setdefault("custom_generate", partial(decode, noise=noise, drawn=drawn, uniform=uniform))
        return type(inner).generate(inner, *args, **kwargs)

    inner.generate = generate
    try:
        yield
    finally:
        del inner.generate


def decode(
    model: Any,
    input_ids: Tensor,
    logits_processor: LogitsProcessorList,
    stopping_criteria: StoppingCriteriaList,
    generation_config: Any,
    noise: bool = False,
    drawn: list[tuple[Tensor, Tensor]] | None = None,
    uniform: Tensor | None = None,
    **model_kwargs: Any,
) -> Any:
    """Return what transformers' own loop returns, (B, prompt and reply); called by `generate` with what it has
    prepared. What is particular (another kind of cache or of layer, scores that depend on earlier tokens) goes to that
    loop."""
    if not _is_plain(model, input_ids, logits_processor, stopping_criteria, generation_config, model_kwargs):
        more = {"logits_processor": logits_processor, "stopping_criteria": stopping_criteria}
        return model._sample(input_ids, generation_config=generation_config, **more, **model_kwargs)
    with merged_layers(model):
        steps = generation_config.max_length - input_ids.shape[1]
        if uniform is None and not noise:
            # All at once, and for every row whether it is finished or not, so that no draw depends on how others end.
            uniform = torch.rand(len(input_ids), steps, dtype=torch.float64, device=input_ids.device)
        replies, logs = _replies(model, input_ids, logits_processor, generation_config, uniform, model_kwargs)
    whole = generation_config.do_sample and all(type(each) is TemperatureLogitsWarper for each in logits_processor)
    if drawn is not None and whole:
        drawn.append((replies, logs))
    return torch.cat([input_ids, replies], dim=1)


def _is_plain(
    model: Any, ids: Tensor, processors: Any, criteria: Any, config: Any, model_kwargs: dict[str, Any]
) -> bool:
    cache: Any = model_kwargs.get("past_key_values")
    return (
        type(model).prepare_inputs_for_generation is GenerationMixin.prepare_inputs_for_generation
        and not model.config.is_encoder_decoder
        and has_attention_alone(cache)
        and cache.get_seq_length() == 0
        and set(model_kwargs) <= STEP_INPUTS
        and all(each is None or each.shape == ids.shape for each in map(model_kwargs.get, BY_TOKEN))
        and bool(model_kwargs.get("use_cache"))
        and all(type(processor) in BY_ROW for processor in processors)
        and all(type(criterion) in (MaxLengthCriteria, EosTokenCriteria) for criterion in criteria)
        and config._eos_token_tensor is not None
        and config._pad_token_tensor is not None
        and config.prefill_chunk_size is None
        and not (config.return_dict_in_generate or config.compile_config)
        and ids.device == model.device
    )


def _replies(
    model: Any, ids: Tensor, processors: Any, config: Any, uniform: Tensor | None, given: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """The replies, (B, tokens of the longest), the pad token after each one's end, and the log-probabilities with which
    their tokens were drawn, 0 there and where nothing is drawn."""
    steps = config.max_length - ids.shape[1]
    ends = config._eos_token_tensor.to(ids.device)
    replies = ids.new_full((len(ids), steps), int(config._pad_token_tensor))
    logs = torch.zeros(replies.shape, device=ids.device)
    logits, follow = _after_prompts(model, ids, given, steps)

    rows = torch.arange(len(ids), device=ids.device)  # which row of the batch stands in each row here
    open_rows = torch.ones_like(rows, dtype=torch.bool)
    longest = steps
    for step in range(steps):
        scores = processors(ids, logits)
        if not config.do_sample:
            tokens = scores.argmax(-1)
        else:
            p = _probabilities(scores)
            tokens = _drawn_by_noise(p, rows, len(ids)) if uniform is None else _drawn(p, uniform[rows, step])
            logs[rows[open_rows], step] = p.gather(1, tokens[:, None])[open_rows, 0].log()
        replies[rows[open_rows], step] = tokens[open_rows]
        open_rows &= ~torch.isin(tokens, ends)
        count = int(open_rows.sum())
        if count == 0:
            longest = step + 1
            break
        if follow.pays_to_drop(len(rows) - count, len(rows)):
            kept = open_rows.nonzero()[:, 0]
            follow.keep(kept)
            rows, open_rows, tokens = rows[kept], open_rows[kept], tokens[kept]
        if step + 1 < steps:
            logits = follow.after(tokens)
    return replies[:, :longest], logs[:, :longest]


def _after_prompts(model: Any, ids: Tensor, given: dict[str, Any], steps: int) -> tuple[Tensor, Any]:
    """The scores of the first token of each reply, (rows, V), and what goes on from there.

    Each prompt is read once, in whichever of its rows comes first; then its keys and values are those of all of them.
    """
    mask, positions = given.get("attention_mask"), given.get("position_ids")
    told_apart = ids if mask is None else torch.cat([ids, mask], dim=1)
    which = torch.unique_consecutive(told_apart, dim=0, return_inverse=True)[1]
    first = torch.cat([which.new_ones(1), which.diff()]).nonzero()[:, 0]
    cache = given["past_key_values"]
    cache.layers = [RoomyLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers]
    reading = LaunchedSteps(model, cache, *(None if each is None else each[first] for each in (mask, positions)))
    logits = reading.scores(ids[first])
    if len(first) < len(ids):
        cache.batch_select_indices(which)
        logits = logits[which]
    last = None if positions is None else positions[:, -1:]
    if last is not None and can_replay(model, cache):
        return logits, ReplayedSteps(model, cache, torch.ones_like(ids) if mask is None else mask, last, steps)
    return logits, LaunchedSteps(model, cache, mask, last)


class LaunchedSteps:
    """Passes on tokens of each row, computed as they are asked for.

    Args:
        model: what passes.
        cache: with keys and values of the tokens before.
        mask: which tokens are seen, those that pass next included, (rows, tokens), or None.
        positions: of the tokens that pass next, (rows, tokens); or, before `after`, of the last one.
    """

    def __init__(self, model: Any, cache: Any, mask: Tensor | None, positions: Tensor | None) -> None:
        self.model, self.cache, self.mask, self.positions = model, cache, mask, positions
        self._more = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}

    def pays_to_drop(self, finished: int, rows: int) -> bool:
        """Whether so many finished rows, of all that there are, are worth being dropped."""
        return finished >= max(1, FINISHED_SHARE * rows)

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, by their indices."""
        self.cache.batch_select_indices(rows)
        self.mask = None if self.mask is None else self.mask[rows]
        self.positions = None if self.positions is None else self.positions[rows]

    def after(self, tokens: Tensor) -> Tensor:
        """The scores of what follows on a token for each row, (rows, V), float32."""
        if self.mask is not None:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], dim=1)
        self.positions = None if self.positions is None else self.positions + 1
        return self.scores(tokens[:, None])

    def scores(self, tokens: Tensor) -> Tensor:
        """The scores of what follows on these tokens, (rows, V), float32."""
        inputs = {"attention_mask": self.mask, "past_key_values": self.cache, "use_cache": True, **self._more}
        if self.positions is not None:
            inputs["position_ids"] = self.positions
        return self.model(input_ids=tokens, return_dict=True, **inputs).logits[:, -1].float()


def _probabilities(scores: Tensor) -> Tensor:
    probabilities = scores.softmax(-1)
    if not torch.isfinite(probabilities.sum()):
        raise RuntimeError(f"{NO_PROBABILITIES} what is no number")
    return probabilities


def _drawn(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """A token for each row, (rows,): the first up to which the probabilities (rows, V) add up to more than a uniform
    number (rows,)."""
    sums = probabilities.cumsum(-1, dtype=torch.float64)
    found = torch.searchsorted(sums, (uniform * sums[:, -1])[:, None], right=True)[:, 0]
    return found.clamp(max=sums.shape[1] - 1)


def _drawn_by_noise(probabilities: Tensor, rows: Tensor, size: int) -> Tensor:
    """A token for each row, (rows,), as `torch.multinomial` draws it for all `size` rows that the batch began with: the
    largest p / e, with e exponentially distributed, is at a token with its probability p."""
    noise = probabilities.new_empty(size, probabilities.shape[1]).exponential_(1)
    return (probabilities / (noise if len(rows) == size else noise[rows])).argmax(-1)


class RoomyLayer(DynamicLayer):
    """Keys and values of one layer in memory that has room for tokens to come."""

    keys: Any
    values: Any
    memory: tuple[Tensor, Tensor] | None = None

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write those of new tokens behind the others, and return all, (rows, heads, tokens, width)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        begin = self.get_seq_length()
        end = begin + key_states.shape[-2]
        if self.memory is None or self.memory[0].shape[-2] < end:
            self.memory = self._with_room(self.keys, key_states, end), self._with_room(self.values, value_states, end)
        for memory, states in zip(self.memory, (key_states, value_states), strict=True):
            memory[:, :, begin:end] = states
        self.keys, self.values = (memory[:, :, :end] for memory in self.memory)
        return self.keys, self.values

    @staticmethod
    def _with_room(before: Tensor, states: Tensor, end: int) -> Tensor:
        memory = states.new_empty(*states.shape[:2], end + ROOM, states.shape[-1])
        if before.numel():
            memory[:, :, : before.shape[-2]] = before
        return memory

    def batch_select_indices(self, indices: Tensor) -> None:
        """Keep these rows, in this order."""
        end = self.get_seq_length()
        if self.memory is not None:
            keys, values = (memory.index_select(0, indices) for memory in self.memory)
            self.memory = keys, values
            self.keys, self.values = keys[:, :, :end], values[:, :, :end]
