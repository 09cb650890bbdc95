"""What cannot be done, in the words that the check of a recipe and a training share; imports no torch."""

from __future__ import annotations

from collections.abc import Iterable

from prefzoo.errors import did_you_mean

UNPAGED = {
    "paged_adamw": "adamw_torch_fused",
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_ademamix_32bit": "ademamix",
}
"""Optimizers that are called otherwise where they are not paged."""


def paged(key: str, optimizer: str) -> str:
    """Of an optimizer that pages, on a machine without a GPU."""
    allowed = UNPAGED.get(optimizer, optimizer.removeprefix("paged_"))
    return f"{key}: {optimizer!r} pages a GPU's memory, and this machine has no GPU. Allowed here: {allowed}"


def half_precision(key: str) -> str:
    """Of `fp16: true`, on a machine without a GPU."""
    return f"{key}: true needs a GPU, and this machine has none. Allowed here: training.bf16"


def attention(implementation: str | None) -> str | None:
    """Of an implementation of attention that needs a GPU, on a machine without one; None for others."""
    if implementation is None or not implementation.startswith(("flash", "flex")):
        return None
    needs = "needs a GPU for its backward pass" if implementation.startswith("flex") else "needs a GPU"
    return (
        f"model.attn_implementation: {implementation!r} {needs}, and this machine has none. Allowed here: sdpa, eager."
    )


def no_module(key: str, name: str, known: Iterable[str], listed: bool) -> str:
    """Of a name, or (where it is not `listed`) a regular expression, that fits no module; `known` are the names of
    those with weights."""
    names = sorted(set(known))
    if listed:
        meant = did_you_mean(name, names)
    elif name in names:
        meant = f" A name stands in a list: [{name}]."
    else:
        meant = did_you_mean(name, ["all-linear", *names])
    return f"{key}: {name!r} is no module of this model.{meant} Modules with weights: {', '.join(names)}."


def tied(key: str, name: str) -> str:
    """Of a module whose weights are the embeddings and the head at once."""
    return (
        f"{key}: {name!r} shares its weights with the other end of this model (tie_word_embeddings); what is trained "
        "at one end alone would be lost, or be at both, when the policy is exported"
    )


def head(key: str, name: str) -> str:
    """Of a language model's head as a target of an adapter."""
    return (
        f"{key}: {name!r} would put an adapter on the head, whose weight TRL's losses read by itself, so that "
        "it would not be trained. Where the embeddings are not tied, adapter.modules_to_save trains it whole"
    )
