"""Rows of a batch that begin alike, such as two replies to one prompt, go through a model together.

They become one row: their common beginning, and what follows in each, where no token sees another row's. The states are
those of each row alone, and so are the gradients, to rounding (Wang & Hegde 2024, https://arxiv.org/abs/2410.20305).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from prefzoo.models.score_head import backbone

WORTH = 0.85
"""Rows are put together where that leaves at most this share of their tokens, padding included."""
FULL_ATTENTION = frozenset((
    "apertus", "arcee", "cohere", "ernie4_5", "gemma", "glm", "glm4", "gpt2", "gpt_neox", "granite", "helium",
    "llama", "mistral", "nemotron", "olmo", "olmo2", "opt", "persimmon", "phi", "phi3", "qwen2", "qwen3",
    "seed_oss", "smollm3", "stablelm", "starcoder2",
))  # fmt: skip
"""Model types whose tokens see every earlier one, at the position that it is given. Others may count neighbours within
their layers, by windows, chunks or the most relevant keys, which neither their config nor their cache tells alike."""
USUAL = ("use_cache", "return_dict")
"""Arguments of a forward pass beside ids and mask that change no state."""


@dataclass(frozen=True)
class Together:
    """Several rows in one: G rows of L tokens in place of B rows of T.

    Attributes:
        ids, positions: (G, L).
        seen: which tokens each token sees, (G, 1, L, L).
        where: of each token of the B rows its place in (G * L), (B, T).
    """

    ids: Tensor
    positions: Tensor
    seen: Tensor
    where: Tensor


@contextlib.contextmanager
def shared_beginnings(model: nn.Module) -> Iterator[None]:
    """Within this block the model's backbone computes beginnings that rows share once, where that is sound: on a CPU,
    rows padded on the right, full attention, positions that can be given, no dropout. Elsewhere nothing changes.

    Args:
        model: whose tokens see earlier ones alone.
    """
    inner: Any = backbone(model)
    if not _can_share(inner):
        yield
        return
    plain = inner.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        given = {name: value for name, value in kwargs.items() if value is not None and name not in USUAL}
        ids, mask = given.pop("input_ids", None), given.pop("attention_mask", None)
        if args or given or ids is None or mask is None or kwargs.get("use_cache") or _drops(inner):
            return plain(*args, **kwargs)
        if (some := put_together(ids, mask)) is None:
            return plain(*args, **kwargs)
        dtype = inner.dtype
        bias = torch.zeros(some.seen.shape, dtype=dtype).masked_fill_(~some.seen, torch.finfo(dtype).min)
        kwargs |= {"input_ids": some.ids, "position_ids": some.positions, "attention_mask": bias}
        output = plain(**kwargs)
        output.last_hidden_state = output.last_hidden_state.flatten(0, 1)[some.where]
        return output

    with replaced_forward(inner, forward):
        yield


@contextlib.contextmanager
def replaced_forward(module: Any, forward: Callable[..., Any]) -> Iterator[None]:
    """Within this block a module's forward pass is another function."""
    before = vars(module).get("forward")
    module.forward = forward
    try:
        yield
    finally:
        if before is None:
            del module.forward
        else:
            module.forward = before


def _drops(inner: nn.Module) -> bool:
    """Whether there is dropout, whose noise is another one for each row."""
    return any(isinstance(module, nn.Dropout) and module.training and module.p > 0 for module in inner.modules())


def _can_share(inner: Any) -> bool:
    return (
        has_full_attention(inner)
        and inner.device.type == "cpu"
        and getattr(inner.config, "_attn_implementation", None) in ("sdpa", "eager")
    )


def has_full_attention(inner: Any) -> bool:
    """Whether each token of a backbone sees every earlier one and none that follows, at the position that it is
    given."""
    config = getattr(inner, "config", None)
    return (
        getattr(config, "model_type", None) in FULL_ATTENTION
        and type(inner).__module__.startswith("transformers.")
        and not getattr(config, "sliding_window", None)
    )


def put_together(ids: Tensor, mask: Tensor) -> Together | None:
    """Put rows that begin alike into one; None where that is not worth it, or rows are padded on the left.

    Args:
        ids, mask: (B, T), padded on the right.
    """
    lengths = mask.sum(1).tolist()
    if len(lengths) < 2 or 0 in lengths or not torch.equal(mask.bool(), _up_to(mask.sum(1), ids.shape[1])):
        return None
    rows = [row[:length] for row, length in zip(ids.tolist(), lengths, strict=True)]
    groups = _groups(rows, 2 * ids.shape[1])
    width = max(shared + sum(len(rows[i]) - shared for i in group) for shared, group in groups)
    if len(groups) * width > WORTH * ids.numel():
        return None
    tokens = torch.zeros(len(groups), width, dtype=ids.dtype)
    positions, part = torch.zeros_like(tokens), torch.full_like(tokens, -1)
    where = torch.zeros(ids.shape, dtype=torch.long)
    for g, (shared, group) in enumerate(groups):
        begin = shared
        tokens[g, :shared] = ids[group[0], :shared]
        positions[g, :shared] = torch.arange(shared)
        part[g, :shared] = 0
        for k, i in enumerate(group):
            end = begin + lengths[i] - shared
            tokens[g, begin:end] = ids[i, shared : lengths[i]]
            positions[g, begin:end] = torch.arange(shared, lengths[i])
            part[g, begin:end] = k + 1
            where[i, :shared] = torch.arange(shared) + g * width
            where[i, shared : lengths[i]] = torch.arange(begin, end) + g * width
            where[i, lengths[i] :] = g * width + end - 1  # padding, of which nobody asks
            begin = end
    own = part[:, :, None] == part[:, None, :]
    seen = (own | (part == 0)[:, None, :]) & torch.ones(width, width, dtype=torch.bool).tril()
    return Together(tokens, positions, seen[:, None], where)


def _up_to(lengths: Tensor, width: int) -> Tensor:
    return torch.arange(width, device=lengths.device) < lengths[:, None]


def _groups(rows: list[list[int]], most: int) -> list[tuple[int, list[int]]]:
    """Rows that share at least half of the first one's tokens, with how many all of them share; together at most `most`
    tokens."""
    groups: list[tuple[int, list[int]]] = []
    for i in sorted(range(len(rows)), key=rows.__getitem__):
        if groups:
            shared, group = groups[-1]
            both = min(shared, _alike(rows[group[0]], rows[i]))
            joined = both + sum(len(rows[j]) - both for j in (*group, i))
            if 2 * both >= len(rows[i]) and joined <= most:
                groups[-1] = both, [*group, i]
                continue
        groups.append((len(rows[i]), [i]))
    return groups


def _alike(one: list[int], other: list[int]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (x, y) in pairs if x != y), min(len(one), len(other)))
