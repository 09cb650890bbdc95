"""What each key of a recipe means, from where that is written once: the comments of `recipes/base.yaml` for the keys of
a recipe, the docstrings of algorithms for their hyper-parameters."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, TypeAdapter

from prefzoo.interface import Algorithm
from prefzoo.recipe.recipe_files import shipped

BOUNDS = {
    "exclusiveMinimum": "above {:g}",
    "minimum": "at least {:g}",
    "exclusiveMaximum": "below {:g}",
    "maximum": "at most {:g}",
    "minLength": "{:g} letters or more",
}
TYPES = {
    "number": "a number",
    "integer": "a whole number",
    "boolean": "true or false",
    "string": "text",
    "object": "a block",
    "null": "null",
}


class HyperParameter(NamedTuple):
    """One setting of an algorithm.

    Attributes:
        allowed: its type and range, in words.
        source: where the default is from; empty where the docstring does not say.
    """

    name: str
    default: str
    allowed: str
    meaning: str
    source: str


def hyper_parameters(cls: type[Algorithm]) -> list[HyperParameter]:
    """The settings of an algorithm; `trainer`, the last, where there is a trainer behind it."""
    documented = attributes(cls)
    try:
        schemas = TypeAdapter(cls).json_schema()["properties"]
    except Exception:  # an annotation of somebody's own that has no schema
        schemas = {}
    found = []
    own = [field for field in dataclasses.fields(cls) if field.name != "trainer" or cls.config is not None]
    for field in sorted(own, key=lambda field: field.name == "trainer"):
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
        meaning, _, source = documented.get(field.name, "").partition(" Default: ")
        found.append(
            HyperParameter(
                field.name,
                "must be given" if default is dataclasses.MISSING else shown(default),
                _trainer(cls) if field.name == "trainer" else allowed(schemas.get(field.name, {})),
                meaning,
                source.rstrip("."),
            )
        )
    return found


def _trainer(cls: type[Algorithm]) -> str:
    return f"fields of {str(cls.config).rpartition(':')[2]} that the comparison does not set itself"


def shown(value: Any) -> str:
    """A default as a recipe writes it."""
    if isinstance(value, BaseModel):
        return f"{{{', '.join(f'{name}: {shown(each)}' for name, each in value)}}}"
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return str(value) if not isinstance(value, (frozenset, set)) else ", ".join(sorted(map(str, value)))


def allowed(schema: Mapping[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if options := schema.get("anyOf"):
        one, *others = dict.fromkeys(map(allowed, options))
        return " or ".join([one, *(other.replace(f"a list of: {one}", "a list of these") for other in others)])
    if "enum" in schema:
        return " | ".join(map(str, schema["enum"]))
    if "$ref" in schema:
        return TYPES["object"]
    if "const" in schema:
        return str(schema["const"])
    if schema.get("type") == "array":
        return f"a list of: {allowed(schema.get('items', {}))}"
    bounds = [text.format(schema[key]) for key, text in BOUNDS.items() if key in schema]
    return " ".join([TYPES.get(str(schema.get("type")), "a value"), ", ".join(bounds)]).rstrip()


def attributes(cls: type) -> dict[str, str]:
    """Attribute -> what the docstrings of a class and of those that it inherits from say of it."""
    found: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        text = inspect.cleandoc(vars(owner).get("__doc__") or "")
        _, _, section = text.partition("Attributes:\n")
        for names, meaning in re.findall(r"^ {4}([\w, ]+): (.*(?:\n {8}.*)*)", section, re.MULTILINE):
            found |= dict.fromkeys(re.split(r", *", names), " ".join(meaning.split()))
    return found


def about(cls: type) -> str:
    """A docstring up to its list of attributes."""
    return inspect.cleandoc(cls.__doc__ or "").partition("Attributes:\n")[0].strip()


@lru_cache
def recipe_keys() -> dict[str, str]:
    """Dotted key of a recipe -> its comment in `base.yaml`."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    key = column = None
    for line in shipped()["base"].read_text(encoding="utf-8").splitlines():
        match = re.match(r"( *)(\w+):([^#]*)(#.*)?$", line)
        if match:
            indent = len(match[1])
            path = [(depth, name) for depth, name in path if depth < indent]
            path.append((indent, match[2]))
            key, column = ".".join(name for _, name in path), match.start(4)
            if match[4]:
                found[key] = match[4].lstrip("# ")
        elif key in found and re.match(r" +#", line) and line.index("#") == column:
            found[key] += f" {line.strip('# ')}"
        else:
            key = None
    return found


def describe_keys(schema: dict[str, Any], model: type[BaseModel], key: str = "") -> None:
    """Add descriptions to the properties of a recipe's JSON schema, those of blocks within blocks too.

    Args:
        schema: that of the whole recipe; it is changed.
        model: whose properties; a block that stands at several places is described by the first.
        key: of that block in a recipe, such as `reward`; empty for the recipe itself.
    """
    properties = schema["$defs"][model.__name__]["properties"] if key else schema["properties"]
    documented = attributes(model)
    for name, field in model.model_fields.items():
        dotted = f"{key}.{name}" if key else name
        blocks = [each for each in _classes(field.annotation) if issubclass(each, BaseModel)]
        described = recipe_keys().get(dotted) or documented.get(name) or " ".join(map(about, blocks))
        if described and "description" not in properties[name]:
            properties[name]["description"] = " ".join(described.split())
            for block in blocks:
                # the items of a list have the keys of the block that it is in
                describe_keys(schema, block, dotted if get_origin(field.annotation) is not list else key)


def _classes(annotation: Any) -> list[type]:
    """The classes that an annotation is made of."""
    if inspect.isclass(annotation) and not get_args(annotation):
        return [annotation]
    return [each for part in get_args(annotation) for each in _classes(part)]
