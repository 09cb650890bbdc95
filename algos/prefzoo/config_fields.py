"""The fields of a trainer's config class, read from its source: a recipe is checked without importing any trainer.

Importing TRL takes seconds; a recipe is checked in a fraction of one.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import re
import typing
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from prefzoo.errors import unknown


class _Names(dict[str, Any]):
    """What annotations may mention; a class that only an import would bring stands for any value."""

    def __missing__(self, name: str) -> Any:
        return getattr(typing, name, Any)


ENUMERATIONS = ("transformers.trainer_utils", "transformers.training_args")
"""Where the words for optimizers, schedules and strategies are written."""

_KNOWN = {"bool": bool, "int": int, "float": float, "str": str, "list": list, "dict": dict, "Literal": Literal}


def trainer_problems(config: str, settings: dict[str, Any], prefix: str) -> list[str]:
    """Every setting that the config class `"module:Class"` does not have, or whose value is not of its type."""
    fields = config_fields(config)
    problems = []
    for key, value in settings.items():
        if key not in fields:
            problems.append(f"{prefix}{key}: {unknown('key', key, fields)}")
            continue
        options = _options(fields[key])
        if options and isinstance(value, str) and value not in options:
            problems.append(f"{prefix}{key}: {unknown('value', value, options)}")
            continue
        meant = meaning(fields[key])
        try:
            # Strict, because the trainer will be given the value as it was written.
            TypeAdapter(meant, config=ConfigDict(strict=True, arbitrary_types_allowed=True)).validate_python(value)
        except ValidationError:
            problems.append(f"{prefix}{key}: must be {fields[key]} (got {value!r})")
    return problems


@lru_cache
def config_fields(config: str) -> dict[str, str]:
    """Field name -> its annotation as written, of a config class `"module:Class"` and of those it inherits from."""
    module, _, name = config.partition(":")
    return _fields_in_source(module, name)


def meaning(annotation: str) -> Any:
    """The type behind an annotation; `Any` for what only its own module could build."""
    try:
        return eval(annotation, {"__builtins__": {}}, _Names(_KNOWN))
    except TypeError:
        return Any


@lru_cache
def _options(annotation: str) -> list[str]:
    """The words that a field annotated with one of transformers' enumerations may hold; empty for other fields."""
    names = set(re.findall(r"\w+", annotation))
    found = []
    for module in ENUMERATIONS:
        for node in _source(module).body:
            if isinstance(node, ast.ClassDef) and node.name in names:
                values = [each.value for each in node.body if isinstance(each, ast.Assign)]
                found += [v.value for v in values if isinstance(v, ast.Constant) and isinstance(v.value, str)]
    return found


def _fields_in_source(module: str, name: str) -> dict[str, str]:
    tree = _source(module)
    found = next((node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name), None)
    if found is None:  # a package's own name for a class that is written elsewhere
        cls = getattr(importlib.import_module(module), name)
        return {f.name: f.type if isinstance(f.type, str) else "Any" for f in dataclasses.fields(cls)}
    own = {
        node.target.id: ast.unparse(node.annotation)
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    origins = {
        alias.asname or alias.name: (node.module or "", node.level, alias.name)
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    inherited: dict[str, str] = {}
    for base in found.bases:
        if not (isinstance(base, ast.Name) and base.id in origins):
            continue
        source, level, original = origins[base.id]
        if level:
            source = ".".join([*module.split(".")[:-level], source])
        elif source == "transformers":
            source = "transformers.training_args"
        inherited |= _fields_in_source(source, original)
    return {**inherited, **own}


@lru_cache
def _source(module: str) -> ast.Module:
    # find_spec imports the parent package: for `trl.trainer.x` that is trl itself, hence the walk by hand.
    package, *rest = module.split(".")
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"{package} is not installed")
    path = Path(spec.origin).parent.joinpath(*rest)
    path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8"))
