"""Messages about settings: what pydantic finds wrong in them, and what a machine or a model cannot do.

Each names the key, the value, what is allowed and the nearest right spelling. The check of a recipe and a training
share these messages. No torch is imported.
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


class Problem(NamedTuple):
    """One thing that is wrong with some settings.

    Attributes:
        path: where, as keys and places in lists of the content that was checked.
        message: the value, what is allowed and the nearest right spelling.
    """

    path: tuple[Any, ...]
    message: str

    @property
    def key(self) -> str:
        """The dotted key, places in lists counted from 0; an item of a list has the list's key."""
        path = self.path
        while path and isinstance(path[-1], int):
            path = path[:-1]
        return ".".join(str(part) if str(part).strip() else repr(part) for part in path)


def validation_problems(
    error: ValidationError, content: Mapping[str, Any], fields: Fields = lambda path: ()
) -> list[Problem]:
    """Each problem that pydantic has with `content` once, however many branches of a union it was tried against."""
    by_path: dict[tuple[Any, ...], list[Any]] = {}
    for item in error.errors():
        by_path.setdefault(_path(item, content), []).append(item)
    # Where something inside a list or block is wrong, it was meant as one: that it is no text either says nothing.
    around = {path[:length] for path in by_path for length in range(1, len(path))}
    deepest = [path for path in by_path if path not in around]
    return [Problem(path, _message(path, by_path[path], fields)) for path in deepest]


def _path(item: Any, content: Any) -> tuple[Any, ...]:
    """Where in `content` pydantic means; the names that it gives to the branches of a union are left out."""
    path: list[Any] = []
    here = content
    for i, part in enumerate(item["loc"]):
        if (isinstance(here, Mapping) and part in here) or (isinstance(here, (list, tuple)) and isinstance(part, int)):
            here = here[part]
            path.append(part)
        elif isinstance(here, Mapping) and i == len(item["loc"]) - 1 and item["type"] in ("missing", "value_error"):
            path.append(part)
    return tuple(path) or item["loc"][:1]


def _message(path: tuple[Any, ...], items: list[Any], fields: Fields) -> str:
    """The message for pydantic's errors (`items`) at one path."""
    by_type = {item["type"]: item for item in items}
    limits = {type_: item.get("ctx", {}) for type_, item in by_type.items()}
    value = items[0]["input"]
    got = f"(got {shown(value)})"
    if "missing" in by_type:
        return "is missing"
    if "extra_forbidden" in by_type:
        return unknown("key", path[-1], fields(path[:-1]))
    if "literal_error" in by_type and not isinstance(value, (Mapping, list)):
        return unknown("value", value, re.findall(r"'(.*?)'", limits["literal_error"]["expected"]))
    if "value_error" in by_type:
        message = by_type["value_error"]["msg"].removeprefix("Value error, ")
        complete = value is None or isinstance(value, Mapping) or repr(value) in message
        return message if complete else f"{message} {got}"
    for type_, (bound, phrase) in _BOUNDS.items():
        if type_ in by_type:
            return f"must be {phrase} {limits[type_][bound]:g} {got}"
    if "string_too_short" in by_type:
        least = limits["string_too_short"]["min_length"]
        return "must not be empty" if least == 1 else f"must have at least {least} letters {got}"
    if "string_pattern_mismatch" in by_type:
        return f"must match the regular expression {limits['string_pattern_mismatch']['pattern']} {got}"
    if types := [_TYPES[first] for type_ in by_type if (first := type_.partition("_")[0]) in _TYPES]:
        listed = f"; say `[{value}]`" if types == ["a list"] and isinstance(value, str) else ""
        return f"must be {' or '.join(dict.fromkeys(types))} {got}{listed}"
    if "too_short" in by_type:
        return f"must hold at least {limits['too_short']['min_length']} {got}"
    return f"{items[0]['msg']} {got}"


def shown(value: Any) -> str:
    """A value as a recipe's author wrote it, shortened."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        keys = ", ".join(map(str, value))
        return f"a block of the keys {keys if len(keys) <= 80 else f'{keys[:77]}...'}" if value else "an empty block"
    text = repr(value)
    text = text if len(text) <= 80 else f"{text[:77]}..."
    return f"the list {text}" if isinstance(value, list) else text


OTHER_NAMES = {
    "aot_pair": "aot",
    "apo": "apo_zero",
    "bon": "best_of_n",
    "cai": "constitutional_ai",
    "drgrpo": "dr_grpo",
    "exo_pair": "exo",
    "h_dpo": "hdpo",
    "iterative": "iterative_dpo",
    "ld_dpo": "ldpo",
    "nca_pair": "nca",
    "oaif": "online_dpo",
    "r_dpo": "rdpo",
    "raft": "rejection_sampling",
    "reinforce++": "reinforce_plus_plus",
    "reinforce++_baseline": "reinforce_plus_plus_baseline",
    "rlhf": "ppo",
    "robust_dpo": "robust",
    "sigmoid_norm": "dpo_norm",
    "semi_online_dpo": "online_dpo",
    "slic_hf": "slic",
    "smaug": "dpop",
    "sppo_hard": "sppo",
}
ABSENT = (
    "gkd",
    "minillm",
    "nash_md",
    "prm",
    "remax",
    "rrhf",
    "spin",
    "tdpo",
)
"""Published algorithms that are not here, whose names are near those of others."""


def unknown_algorithm(name: object, allowed: Iterable[str]) -> str:
    """For a name that no algorithm has; of a published one, how it is had here, or that it is not."""
    names = sorted(set(allowed))
    known = str(name).lower().replace("-", "_")
    if known in OTHER_NAMES:
        hint = f"Here it is called {OTHER_NAMES[known]!r}."
    elif known in ABSENT:
        hint = "It is not built in; docs/algorithms.md of the sources says how to add one."
    else:
        return unknown("algorithm", name, names)
    return f"unknown algorithm {name!r}. {hint} Allowed: {', '.join(names)}."


UNPAGED = {
    "paged_adamw": "adamw_torch_fused",
    "paged_adamw_32bit": "adamw_torch_fused",
    "paged_ademamix_32bit": "ademamix",
}
"""Optimizers that are called otherwise where they are not paged."""


def diverged(sign: str) -> str:
    """The sentence about a training that diverged, which `sign` shows."""
    return f"training diverged: {sign}; a lower learning_rate usually helps"


def paged_without_gpu(key: str, optimizer: str) -> str:
    """For an optimizer that pages, on a machine without a GPU."""
    allowed = UNPAGED.get(optimizer, optimizer.removeprefix("paged_"))
    return f"{key}: {optimizer!r} pages a GPU's memory, and this machine has no GPU. Allowed here: {allowed}"


def fp16_without_gpu(key: str) -> str:
    """For `fp16: true`, on a machine without a GPU."""
    return f"{key}: true needs a GPU, and this machine has none. Allowed here: training.bf16"


def attention_without_gpu(implementation: str | None) -> str | None:
    """For an implementation of attention that needs a GPU, on a machine without one; None for others."""
    if implementation is None or not implementation.startswith(("flash", "flex")):
        return None
    needs = "needs a GPU for its backward pass" if implementation.startswith("flex") else "needs a GPU"
    return (
        f"model.attn_implementation: {implementation!r} {needs}, and this machine has none. Allowed here: sdpa, eager."
    )


def unknown_module(key: str, name: str, known: Iterable[str], listed: bool) -> str:
    """For a name, or (where it is not `listed`) a regular expression, that fits no module; `known` are the names of
    modules with weights."""
    names = sorted(set(known))
    if listed:
        meant = did_you_mean(name, names)
    elif name in names:
        meant = f" A name stands in a list: [{name}]."
    else:
        meant = did_you_mean(name, ["all-linear", *names])
    return f"{key}: {name!r} is no module of this model.{meant} Modules with weights: {', '.join(names)}."


def tied_module(key: str, name: str) -> str:
    """For a module whose weights are the embeddings and the head at once."""
    return (
        f"{key}: {name!r} shares its weights with the other end of this model (tie_word_embeddings); what is trained "
        "at one end alone would be lost, or be at both, when the policy is exported"
    )


def fused_module(key: str, name: str) -> str:
    """For a layer of a Mamba block as a target of an adapter, whose weights its kernels read by themselves."""
    return (
        f"{key}: {name!r} would put an adapter on a layer whose weights the kernels of this model's Mamba blocks read "
        "by themselves, so that it would not be trained. all-linear leaves such layers out"
    )


def adapter_on_head(key: str, name: str) -> str:
    """For a language model's head as a target of an adapter."""
    return (
        f"{key}: {name!r} would put an adapter on the head, whose weight TRL's losses read by itself, so that "
        "it would not be trained. Where the embeddings are not tied, adapter.modules_to_save trains it whole"
    )


def beyond_embeddings(key: str, token: str, number: int, rows: int) -> str:
    """For a token whose number is no row of the embeddings."""
    return (
        f"{key} {token!r} is number {number}, and the model has embeddings for {rows} tokens (0 to {rows - 1}). Name "
        "one of those in tokenizer_config.json, or save the model with larger embeddings (resize_token_embeddings)."
    )
