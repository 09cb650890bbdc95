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
from torch.distributed.fsdp import FSDPModule
from transformers.cache_utils import DynamicLayer

from prefzoo.models.batch_invariance import takes
from prefzoo.models.score_head import backbone
from prefzoo.models.shared_beginnings import has_full_attention

FEW_OPEN, MANY_ROWS = 1 / 4, 64
"""Finished rows are dropped when of so many at most this share is open: a step is recorded anew, and fewer rows take
about as long."""
WIDTHS = 8
"""The number of places is a multiple of it, for which attention has its fast kernels."""
DEVICES = ("cuda",)
"""Where steps can be recorded."""
CLOSE, CLOSE_16_BIT = 1e-3, 0.05
"""How far scores of a replayed step may be from those of a plain one, as a share of how far these are from their mean,
in float32 and in 16 bits."""

Step = Callable[[], Tensor]
Kind = tuple[Any, ...]
_log = logging.getLogger(__name__)
_cannot: dict[Kind, str] = {}
"""Of each kind of model whose steps could not be replayed, why not."""
_held_against: set[Kind] = set()
"""Kinds of models whose first replayed step was the plain one."""
_notes: list[list[str]] = []


@contextlib.contextmanager
def noting_steps() -> Iterator[list[str]]:
    """Gives a list of how the steps of replies that are sampled within this block were computed: `replayed`, or
    `launched one by one` and why. It stays empty where nothing tried to replay them."""
    ways: list[str] = []
    _notes.append(ways)
    try:
        yield ways
    finally:
        _notes.pop()


def can_replay(model: Any, cache: Any) -> bool:
    """Whether steps of this model may be recorded: on a GPU, with full attention that takes a mask and positions as
    given, and nothing but keys and values in the cache. What stands against it on a GPU is noted."""
    if backbone(model).device.type not in DEVICES:
        return False
    why = _why_not(backbone(model), cache) or _cannot.get(_kind(model))
    if why is not None:
        _note(f"launched one by one: {why}")
    return why is None


def _why_not(inner: Any, cache: Any) -> str | None:
    keeps_all = all(isinstance(layer, DynamicLayer) and not layer.is_sliding for layer in cache.layers)
    takes_masks = inner.config._attn_implementation in ("sdpa", "eager")
    if not (keeps_all and takes_masks and has_full_attention(inner)):
        return "its attention is not known to see all tokens"
    if len({weight.device for weight in inner.parameters()}) > 1:
        return "it is on several devices"
    if inner.device.type == "cuda" and inner.device.index not in (None, torch.cuda.current_device()):
        return "it is not on the current device"
    if any(isinstance(module, FSDPModule) for module in inner.modules()):
        return "its weights are divided"
    if torch.__version__ < "2.13":  # compared as a version
        return "torch is older than 2.13, which recovers where recording fails"
    return None


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
        for i, layer in enumerate(cache.layers):  # each in the place of the other, so that few are there twice
            cache.layers[i] = PlacedLayer(layer, places, self.where)
        self._more = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
        self._replay: Step | None = None
        self._warm, self._plainly = False, False

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
        if self._replay is None and self._warm and not self._plainly:
            self._replay = self._recorded()
            self._plainly = self._replay is None
        self._warm = True  # the first step at a size chooses kernels and asks for their memory
        return self._step() if self._replay is None else self._replay()

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

    def _recorded(self) -> Step | None:
        """The next step, to be replayed; None where that cannot be."""
        kind, begun = _kind(self.model), (self.where.clone(), self.positions.clone())
        replay = None
        try:
            with _no_kept_casts(self.model.device.type):
                replay = record(self._step)
            if kind not in _held_against:
                plain = self._step().clone()
                self._go_back(*begun)
                if not _alike(plain, replay(), self.model.dtype):
                    raise RuntimeError("a replayed step gives other scores than a plain one")
                _held_against.add(kind)
        except RuntimeError as error:
            cause = error.__context__ or error  # what ended the recording, rather than that it had been ended
            why = (str(cause).splitlines() or [type(cause).__name__])[0][:200]
            if not isinstance(cause, torch.OutOfMemoryError):  # fewer rows may be recorded another time
                _cannot[kind] = why
            _note(f"launched one by one: {why}")
            _log.warning("%s: sampling cannot replay its steps and is slower: %s", self.model.config.model_type, why)
            replay = None
        else:
            _note("replayed")
        self._go_back(*begun)
        return replay

    def _go_back(self, where: Tensor, positions: Tensor) -> None:
        """Let the step that was taken be the next one again."""
        self.where.copy_(where)
        self.positions.copy_(positions)


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
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
    try:
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            output = step()
    finally:
        torch.cuda.set_stream(stream)  # where recording fails torch (2.13) stays on its own

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


def _alike(plain: Tensor, replayed: Tensor, dtype: torch.dtype) -> bool:
    spread = (plain - plain.mean(-1, keepdim=True)).norm()
    close = CLOSE if dtype == torch.float32 else CLOSE_16_BIT
    return bool((plain - replayed).norm() <= close * spread)  # False where one is no number


def _note(way: str) -> None:
    for ways in _notes:
        if way not in ways:
            ways.append(way)


def _kind(model: Any) -> Kind:
    """What decides which operations a step has: the architecture, its precision and quantization, an adapter, RoPE."""
    config, modules = model.config, sorted({type(module).__qualname__ for module in model.modules()})
    rope = str(getattr(config, "rope_parameters", None))
    return config.model_type, model.dtype, config._attn_implementation, rope, *modules
