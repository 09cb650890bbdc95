"""Steps of sampling that a GPU replays: one launch for each token in place of some thousand, which a small model or a
small batch mostly waits for.

A step is recorded once, as a CUDA graph, and computes from then on with what stands in the same memory. Keys and values
have their places from the beginning, and what a token sees is a mask over all of them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicLayer

from prefzoo.models.batch_invariance import is_close, takes
from prefzoo.models.score_head import backbone
from prefzoo.models.shared_beginnings import has_full_attention

FEW_OPEN, MANY_ROWS = 1 / 4, 64
"""Finished rows are dropped when of so many at most this share is open: a step is recorded anew, and fewer rows take
about as long."""
WIDTHS = 8
"""The number of places is a multiple of it, for which attention has its fast kernels."""
DEVICES = ("cuda",)
"""Where steps can be recorded."""

Step = Callable[[], Tensor]
_log = logging.getLogger(__name__)
_plain_ways: dict[str, str] = {}
"""Of each kind of model whose steps could not be replayed, why not."""
_held_against: set[str] = set()
"""Kinds of models whose first replayed step was the plain one."""


def can_replay(model: Any, cache: Any) -> bool:
    """Whether steps of this model can be recorded: on a GPU, full attention that takes a mask and positions as given,
    and nothing but keys and values in the cache, in a kind of model that has not failed to."""
    inner = backbone(model)
    return (
        inner.device.type in DEVICES
        and len({weight.device for weight in inner.parameters()}) == 1
        and all(isinstance(layer, DynamicLayer) and not layer.is_sliding for layer in cache.layers)
        and has_full_attention(inner)
        and inner.config._attn_implementation in ("sdpa", "eager")
        and _kind(model) not in _plain_ways
    )


def how_steps_run(model: Any) -> str:
    """How the last replies of a model were sampled step by step: replayed, or why not."""
    kind = _kind(model)
    return _plain_ways.get(kind) or ("replayed" if kind in _held_against else "launched one by one")


class ReplayedSteps:
    """Passes on one token for each row, recorded at the second and replayed from the third one on.

    Where recording fails, or the first replayed step of a kind of model is not the plain one, all steps are computed
    plainly, on the same memory.

    Args:
        model: that has passed over the prompts.
        cache: with what it has left, which is moved to its places.
        mask: which tokens of the prompts are seen, (rows, tokens).
        positions: of each row's last token, (rows, 1).
        steps: how many tokens may follow.
    """

    def __init__(self, model: Any, cache: Any, mask: Tensor, positions: Tensor, steps: int) -> None:
        self.model, self.cache = model, cache
        begun = mask.shape[1]
        places = -(-(begun + steps) // WIDTHS) * WIDTHS
        self.where = torch.full((1,), begun, device=mask.device)
        self.seen = torch.zeros(len(mask), 1, 1, places, dtype=torch.bool, device=mask.device)
        self.seen[:, 0, 0, :begun] = mask.bool()
        self.positions = positions + 1
        self.tokens = torch.zeros_like(positions)
        self.cache.layers = [PlacedLayer(layer, places, self.where) for layer in cache.layers]
        self._more = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
        self._replay: Step | None = None
        self._warm = False

    def pays_to_drop(self, finished: int, rows: int) -> bool:
        """Whether so many finished rows, of all that there are, are worth being dropped."""
        return rows >= MANY_ROWS and rows - finished <= FEW_OPEN * rows

    def keep(self, rows: Tensor) -> None:
        """Go on with these rows alone, by their indices."""
        self.seen, self.positions, self.tokens = self.seen[rows], self.positions[rows], self.tokens[rows]
        self.cache.batch_select_indices(rows)
        self._replay, self._warm = None, False

    def after(self, tokens: Tensor) -> Tensor:
        """The scores of what follows on a token for each row, (rows, V), float32; they stand until the next call."""
        self.tokens.copy_(tokens[:, None])
        if self._replay is None:
            if not self._warm:  # the first step at this size chooses kernels and asks for their memory
                self._warm = True
                return self._step()
            self._replay = self._recorded()
        return self._replay()

    def _step(self) -> Tensor:
        self.seen.index_fill_(3, self.where, True)
        logits = self.model(
            input_ids=self.tokens,
            attention_mask=self._mask(),
            position_ids=self.positions,
            past_key_values=self.cache,
            use_cache=True,
            return_dict=True,
            **self._more,
        ).logits[:, -1]
        self.where.add_(1)
        self.positions.add_(1)
        return logits.float()

    def _mask(self) -> Tensor:
        if backbone(self.model).config._attn_implementation == "sdpa":
            return self.seen
        bias = torch.zeros_like(self.seen, dtype=self.model.dtype)
        return bias.masked_fill(~self.seen, torch.finfo(self.model.dtype).min)

    def _recorded(self) -> Step:
        kind = _kind(self.model)
        if kind in _plain_ways:
            return self._step
        try:
            with _no_kept_casts(self.model.device.type):
                replay = record(self._step)
            if kind not in _held_against:
                plain, again = self._twice(self._step, replay)
                if not is_close(plain.softmax(-1), again.softmax(-1), self.model):
                    raise RuntimeError("a replayed step gives other probabilities than a plain one")
        except torch.OutOfMemoryError:
            raise  # fewer rows may be recorded
        except RuntimeError as error:
            _plain_ways[kind] = f"launched one by one: {str(error).splitlines()[0][:200]}"
            _log.warning("%s: sampling cannot replay its steps and is slower: %s", kind, _plain_ways[kind])
            return self._step
        _held_against.add(kind)
        return replay

    def _twice(self, one: Step, other: Step) -> tuple[Tensor, Tensor]:
        """The scores of the next step by two ways; it is still to be taken then."""
        found, begun = [], (self.where.clone(), self.positions.clone())
        for way in (one, other):
            found.append(way().clone())
            self.where.copy_(begun[0])
            self.positions.copy_(begun[1])
        return found[0], found[1]


class PlacedLayer(DynamicLayer):
    """Keys and values of one layer, each token's at a place of its own from the beginning.

    Args:
        layer: with those of the prompts.
        places: how many tokens there may be.
        where: the place of the next token, (1,); it is moved on from outside.
    """

    keys: Any
    values: Any

    def __init__(self, layer: Any, places: int, where: Tensor) -> None:
        super().__init__()
        self.where, self.is_initialized = where, True
        self.dtype, self.device = layer.keys.dtype, layer.keys.device
        self.keys, self.values = (_with_places(states, places) for states in (layer.keys, layer.values))

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Put those of a token in its place, and return all, (rows, heads, places, width)."""
        self.keys.index_copy_(2, self.where, key_states)
        self.values.index_copy_(2, self.where, value_states)
        return self.keys, self.values


def record(step: Step) -> Step:
    """A function that does on a GPU again what a step does now, which is not done yet."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        output = step()

    def replay() -> Tensor:
        graph.replay()
        return output

    return replay


@contextlib.contextmanager
def _no_kept_casts(device: str) -> Iterator[None]:
    """Within this block autocast, where it is on, casts weights anew: casts that it keeps would end with the block in
    which a step was recorded."""
    dtype, on = torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    with torch.autocast(device, dtype=dtype, enabled=on, cache_enabled=False):
        yield


def _with_places(states: Tensor, places: int) -> Tensor:
    """Zeros behind what is there: what no token sees must be a number."""
    all_places = states.new_zeros(*states.shape[:2], places, states.shape[-1])
    all_places[:, :, : states.shape[2]] = states
    return all_places


def _kind(model: Any) -> str:
    config = model.config
    return f"{config.model_type} in {model.dtype}, {config._attn_implementation}"
