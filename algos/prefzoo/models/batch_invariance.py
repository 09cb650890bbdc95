"""Whether a model computes the same for a sequence whatever is beside it: padding, other rows, a shared beginning.

Attention masks padding out, and its keys and values can be copied to several continuations. A recurrent layer has a
state instead: whether it skips padding, and whether its state can be copied, differs from one architecture to the next.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any, Literal

import torch
from peft import PeftModel
from torch import nn
from transformers import cache_utils

from prefzoo.errors import PrefzooError

Batching = Literal["padded", "equal", "single"]
"""Which prompts may be sampled side by side: of any lengths, of one length, or none."""

ATTENTION = tuple(
    getattr(cache_utils, name) for name in ("DynamicLayer", "DynamicSlidingWindowLayer") if hasattr(cache_utils, name)
)
ROWS = (9, 4, 9)
"""Lengths of the sequences that a model is tried on."""
FILLS = (0, 7)
"""Two tokens that padding is made of in turn: what it holds must not matter, which shows in any precision."""
ROUNDING = 1e-3
"""How far two computations of one distribution may be apart, as their total variation; in 16 bits 0.1, where one pads
and the other does not."""
Distributions = list[tuple[torch.Tensor, list[int]]]
"""Of each row the distributions (tokens, V) over the next token, and the tokens that came next or before."""
Compute = Callable[[Any, list[list[int]], int], Distributions]


def is_attention_only(model: Any) -> bool:
    """Whether all layers keep keys and values, and nothing else: read off the cache that transformers makes for its own
    classes, and for others, which may bring a cache of their own, off that of one token."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    if type(inner).__module__.startswith("transformers."):
        if inner._is_stateful or not takes(inner, "past_key_values"):
            return False
        return has_attention_alone(cache_utils.DynamicCache(config=inner.config))
    with _evaluating(model):
        output = model(input_ids=torch.ones((1, 1), dtype=torch.long, device=model.device), use_cache=True)
    return has_attention_alone(getattr(output, "past_key_values", None))


def has_attention_alone(cache: Any) -> bool:
    layers = getattr(cache, "layers", ())
    plain = type(cache) is cache_utils.DynamicCache and len(layers) > 0
    return plain and all(type(layer) in ATTENTION for layer in layers)


def takes(model: nn.Module, argument: str) -> bool:
    """Whether the forward pass of the model under the adapter names this argument."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    return argument in inspect.signature(getattr(inner, "forward", inner)).parameters


def sampling_batches(model: Any) -> Batching:
    """Try which prompts may be sampled side by side, so that each is answered from its own distribution."""
    rows = _sequences(model)
    with _evaluating(model):
        alone = [_greedy_steps(model, [row])[0] for row in rows]
        if _padding_is_masked(model, _greedy_steps, rows, alone):
            return "padded"
        same = [i for i, row in enumerate(rows) if len(row) == len(rows[0])]
        together = _greedy_steps(model, [rows[i] for i in same])
    return "equal" if _agree(together, [alone[i] for i in same], _tolerance(model)) else "single"


def check_left_padding(model: Any) -> None:
    """Refuse a model whose replies, or their log-probabilities, depend on padding on the left, where trainers that
    sample put it.

    Raises:
        PrefzooError: naming the architecture and what to do instead.
    """
    if is_attention_only(model):
        return
    problem = None
    if sampling_batches(model) != "padded":
        problem = "its replies depend on the padding before their prompts"
    else:
        rows = _sequences(model)
        with _evaluating(model):
            alone = [_probabilities(model, [row])[0] for row in rows]
            masked = _padding_is_masked(model, _probabilities, rows, alone)
        if not masked:
            problem = "the log-probabilities of its replies depend on the padding before their prompts"
    if problem:
        raise PrefzooError(
            f"model.path: the architecture {model.config.model_type!r} cannot be trained on its own samples: {problem}."
            " Algorithms that learn from given replies or sample before they train (dpo, sft, rejection_sampling) can."
        )


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Within this block there is no dropout, which would draw from the random state, and no gradient."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in training:
            module.training = True


def _padding_is_masked(model: Any, compute: Compute, rows: list[list[int]], alone: Distributions) -> bool:
    """Whether rows padded on the left are computed as each alone, whatever the padding holds."""
    one, other = (compute(model, rows, fill) for fill in FILLS)
    return _agree(one, other, ROUNDING) and _agree(one, alone, _tolerance(model))


def _tolerance(model: Any) -> float:
    return ROUNDING if model.dtype == torch.float32 else 0.1


def _sequences(model: Any) -> list[list[int]]:
    size = int(model.get_input_embeddings().weight.shape[0])
    return [[(13 + 37 * (i + 1) * (k + 2)) % size for k in range(length)] for i, length in enumerate(ROWS)]


def _padded_left(model: Any, rows: list[list[int]], fill: int) -> dict[str, torch.Tensor]:
    width = max(map(len, rows))
    ids = torch.tensor([[fill] * (width - len(row)) + row for row in rows], device=model.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=model.device)
    return {"input_ids": ids, "attention_mask": mask}


def _greedy_steps(model: Any, rows: list[list[int]], fill: int = 0, steps: int = 4) -> Distributions:
    """The distributions of the next tokens of each row, (steps, V), and the tokens that were taken."""
    output = model.generate(
        **_padded_left(model, rows, fill),
        max_new_tokens=steps,
        do_sample=False,
        eos_token_id=model.get_input_embeddings().weight.shape[0],  # no token, so that no row ends
        pad_token_id=0,
        output_logits=True,
        return_dict_in_generate=True,
    )
    distributions = torch.stack(output.logits, 1).float().softmax(-1)
    return list(zip(distributions, output.sequences[:, -steps:].tolist(), strict=True))


def _probabilities(model: Any, rows: list[list[int]], fill: int = 0) -> Distributions:
    """The distributions after each token of each row, (tokens, V), and the tokens."""
    logits = model(**_padded_left(model, rows, fill)).logits
    return [(logits[i, -len(row) :].float().softmax(-1), row) for i, row in enumerate(rows)]


def _agree(some: Distributions, others: Distributions, tolerance: float) -> bool:
    """Whether distributions are equal to rounding, as long as they follow on the same tokens."""
    for (one, tokens), (other, taken) in zip(some, others, strict=True):
        alike = next((k for k, (x, y) in enumerate(zip(tokens, taken, strict=True)) if x != y), len(tokens) - 1) + 1
        distance = (one[:alike] - other[:alike]).abs().sum(-1).max() / 2
        if not distance <= tolerance:  # nor where it is no number
            return False
    return True
