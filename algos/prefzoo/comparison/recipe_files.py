"""Recipes as files: find them, read them, extend one by another, change a key from the command line."""

from __future__ import annotations

import copy
import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from prefzoo.errors import RecipeError, unknown


@dataclass
class Draft:
    """A recipe that is read and not yet checked.

    Attributes:
        content: its keys, after `extends` and `--set`.
        origins: where each dotted key was said: `"mine.yaml:7"`, or `"--set"`.
    """

    content: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses a key given twice, reads `1e-4` as the number that everybody means by it, and `on` as the
    word that it is in `start: {on: chosen}` (only `true` and `false` are truth values, as in YAML 1.2)."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        if twice:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f"the key {twice[0]!r} is given twice in the block that starts at line {line}")
        return super().construct_mapping(node, deep)


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def shipped() -> dict[str, Path]:
    """The recipes that come with the package: name -> file."""
    here = Path(__file__).resolve().parent.parent
    # In the wheel they lie beside the code; in a source checkout, at the root of the repository.
    folder = here / "recipes" if (here / "recipes").is_dir() else here.parent.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(recipe: str, beside: Path | None = None) -> Path:
    """The file of a recipe given by path (relative to `beside` first) or by the name of a shipped one.

    Raises:
        RecipeError: when there is no such recipe.
    """
    places = [beside / recipe] if beside is not None else []
    places += [Path(recipe).expanduser()]
    for place in places:
        for candidate in (place, place.parent / f"{place.name}.yaml"):
            if candidate.is_file() and candidate.suffix in (".yaml", ".yml"):
                return candidate
    known = shipped()
    if recipe in known:
        return known[recipe]
    raise RecipeError(recipe, [f"no such file, and {unknown('recipe', recipe, known)}"])


def read(recipe: str | Mapping[str, Any], sets: Iterable[str] = ()) -> Draft:
    """A recipe after `extends` and `--set key.sub=value`, not yet checked; by path or name, or given as its content.

    Raises:
        RecipeError: for a file that is missing, is not YAML, extends itself, or a `--set` that cannot be read.
    """
    where = recipe if isinstance(recipe, str) else "recipe"
    if isinstance(recipe, str):
        draft = _extended(find(recipe), ())
    else:
        draft = _based(Draft(copy.deepcopy(dict(recipe))), None, ())
    problems = []
    for assignment in sets:
        key, equals, value = assignment.partition("=")
        if not equals or not all(part.strip() for part in key.split(".")):
            problems.append(f"--set {assignment!r}: write key.sub=value")
            continue
        try:
            _assign(draft.content, key.strip().split("."), yaml.load(value, _Loader))
            draft.origins[key.strip()] = "--set"
        except (yaml.YAMLError, TypeError) as error:
            problems.append(f"--set {assignment!r}: {error}")
    if problems:
        raise RecipeError(where, problems)
    return draft


def _extended(path: Path, seen: tuple[Path, ...]) -> Draft:
    if path in seen:
        raise RecipeError(str(path), [f"extends: {' -> '.join(p.name for p in (*seen, path))} goes in a circle"])
    try:
        text = path.read_text(encoding="utf-8")
        content = yaml.load(text, _Loader)
        origins = {key: f"{path.name}:{line}" for key, line in _lines(yaml.compose(text, _Loader), "")}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(str(path), [f"not readable as YAML: {error}"]) from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise RecipeError(str(path), [f"a recipe is a block of keys, not {type(content).__name__}"])
    return _based(Draft(content, origins), path.parent, (*seen, path))


def _lines(node: yaml.Node | None, prefix: str) -> Iterator[tuple[str, int]]:
    """Each dotted key below `node` and the line it stands on."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            yield name, key.start_mark.line + 1
            yield from _lines(value, f"{name}.")


def _based(draft: Draft, beside: Path | None, seen: tuple[Path, ...]) -> Draft:
    name = draft.content.pop("extends", None)
    if name is None:
        return draft
    base = _extended(find(str(name), beside=beside), seen)
    return Draft(merge(base.content, draft.content), {**base.origins, **draft.origins})


def merge(base: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """`base` with `delta` laid over it, block by block; a list or a single value replaces the one below."""
    merged = dict(base)
    for key, value in delta.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _assign(content: dict[str, Any], keys: list[str], value: Any) -> None:
    for key in keys[:-1]:
        inner = content.get(key)
        if inner is None:
            inner = content[key] = {}
        if not isinstance(inner, dict):
            raise TypeError(f"{key!r} holds {inner!r}, which has no keys of its own")
        content = inner
    content[keys[-1]] = value
