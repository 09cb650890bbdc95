"""What pydantic finds wrong, in the words of recipes: key, value, what is allowed, the nearest right spelling."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from pydantic import ValidationError

from prefzoo.errors import unknown

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
