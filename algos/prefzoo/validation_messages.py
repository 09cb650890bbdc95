"""The sentences of refusals: what pydantic finds wrong in a recipe, and what a machine or a model cannot do.

Each names the key, the value, what is allowed and the nearest right spelling. The check of a recipe and a training
share them; nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from prefzoo.errors import did_you_mean, unknown

_TYPES = {
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "string": "text",
    "list": "a list",
    "dict": "a block of keys",
    "model": "a block of keys",
    "none": "null",
    "finite": "a finite number",
}
"""The first word of pydantic's error types -> what should have stood there."""

_BOUNDS = {
    "greater_than": ("gt", "above"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "below"),
    "less_than_equal": ("le", "at most"),
}

Fields = Callable[[tuple[Any, ...]], Iterable[str]]
"""The keys that are allowed in the block at a path."""


class Mistake(NamedTuple):
    """One thing that is wrong.

    Attributes:
        path: where, as keys and places in lists of the content that was checked.
        said: the value, what is allowed and the nearest right spelling.
    """

    path: tuple[Any, ...]
    said: str

    @property
    def key(self) -> str:
        """The dotted key, places in lists counted from 0; a thing in a list of such has the list's."""
        path = self.path
        while path and isinstance(path[-1], int):
            path = path[:-1]
        return ".".join(str(part) for part in path)


def mistakes(error: ValidationError, content: Mapping[str, Any], fields: Fields = lambda path: ()) -> list[Mistake]:
    """Each mistake in `content` once, however many branches of a union it was tried against."""
    found: dict[tuple[Any, ...], list[Any]] = {}
    for item in error.errors():
        found.setdefault(_path(item, content), []).append(item)
    # Where something inside a list or block is wrong, it was meant as one: that it is no text either says nothing.
    deepest = [p for p in found if not any(len(other) > len(p) and other[: len(p)] == p for other in found)]
    return [Mistake(path, _said(path, found[path], fields)) for path in deepest]


def _path(item: Any, content: Any) -> tuple[Any, ...]:
    """Where in `content` pydantic means; the names that it gives to the branches of a union are left out."""
    path: list[Any] = []
    here = content
    for i, part in enumerate(item["loc"]):
        if (isinstance(here, Mapping) and part in here) or (isinstance(here, (list, tuple)) and isinstance(part, int)):
            here = here[part]
            path.append(part)
        elif i == len(item["loc"]) - 1 and item["type"] in ("missing", "value_error"):
            path.append(part)
    return tuple(path) or item["loc"][:1]


def _said(path: tuple[Any, ...], items: list[Any], fields: Fields) -> str:
    kinds = {item["type"]: item for item in items}
    value = items[0]["input"]
    if "missing" in kinds:
        return "is missing"
    if "extra_forbidden" in kinds:
        return unknown("key", path[-1], fields(path[:-1]))
    if "literal_error" in kinds and not isinstance(value, (Mapping, list)):
        return unknown("value", value, re.findall(r"'(.*?)'", kinds["literal_error"]["ctx"]["expected"]))
    if "value_error" in kinds:
        said = kinds["value_error"]["msg"].removeprefix("Value error, ")
        return (
            said
            if value is None or isinstance(value, Mapping) or repr(value) in said
            else f"{said} (got {shown(value)})"
        )
    for kind, (bound, words) in _BOUNDS.items():
        if kind in kinds:
            return f"must be {words} {kinds[kind]['ctx'][bound]:g} (got {shown(value)})"
    if "string_too_short" in kinds:
        least = kinds["string_too_short"]["ctx"]["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} letters (got {shown(value)})"
    if "string_pattern_mismatch" in kinds:
        pattern = kinds["string_pattern_mismatch"]["ctx"]["pattern"]
        return f"must match the regular expression {pattern} (got {shown(value)})"
    wanted = [_TYPES[kind.partition("_")[0]] for kind in kinds if kind.partition("_")[0] in _TYPES]
    if wanted:
        listed = f"; say `[{value}]`" if wanted == ["a list"] and isinstance(value, str) else ""
        return f"must be {' or '.join(dict.fromkeys(wanted))} (got {shown(value)}){listed}"
    if "too_short" in kinds:
        return f"must hold at least {kinds['too_short']['ctx']['min_length']} (got {shown(value)})"
    return f"{items[0]['msg']} (got {shown(value)})"


def shown(value: Any) -> str:
    """A value as a recipe's author wrote it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"a block of the keys {', '.join(map(str, value))}" if value else "an empty block"
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"the list {text}" if isinstance(value, list) else text


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
