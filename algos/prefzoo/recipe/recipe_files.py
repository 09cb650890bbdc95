"""Recipes as files: find them, read them, extend one by another, change a key from the command line."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import usable_path
from prefzoo.bounded_yaml import DEEPEST, MOST_VALUES, parse, parse_file, value_problem
from prefzoo.errors import RecipeError, unknown
from prefzoo.validation_messages import shown

ENDINGS = (".yaml", ".yml")
LONGEST_CHAIN = 20
"""Recipes that extend one another."""


@dataclass
class Draft:
    """A recipe that is read and not yet checked.

    Attributes:
        content: its keys, after `extends` and `--set`.
        origins: where each dotted key was said: `"mine.yaml:7"`, or `"--set budget.prompts"`; `""` is the whole.
        problems: what is wrong with its writing, a sentence each with its place.
        whole: whether everything that it is made of could be read.
    """

    content: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    whole: bool = True


def shipped() -> dict[str, Path]:
    """The recipes that come with the package: name -> file."""
    here = Path(__file__).resolve().parents[1]
    # In the wheel they lie beside the code; in a source checkout, at the root of the repository.
    folder = here / "recipes" if (here / "recipes").is_dir() else here.parent.parent / "recipes"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def find(recipe: str, by: Path | None = None) -> Path:
    """The file of a recipe given by path (relative to the file that it is extended `by` first) or by the name of a
    shipped one.

    Raises:
        RecipeError: when there is no such recipe.
    """
    known = shipped()
    try:
        places = [usable_path(recipe)]
        places[:0] = [usable_path(str(by.parent / recipe))] if by is not None else []
        for place in places:
            for candidate in (place, place.parent / f"{place.name}.yaml"):
                if candidate.is_file() and candidate.suffix in ENDINGS:
                    return candidate
        if recipe in known:
            return known[recipe]
        if stranger := next((place for place in places if place.suffix in ENDINGS and place.exists()), None):
            what = "a folder" if stranger.is_dir() else "no regular file"
            raise RecipeError(shown(recipe), [f"{stranger} is {what}; a recipe is a file of YAML"])
    except (ValueError, OSError) as error:
        raise RecipeError(shown(recipe), [f"the recipe {error}"]) from None
    around = {file.resolve() for place in places for file in place.parent.glob("*") if file.suffix in ENDINGS}
    around -= {by.resolve()} if by is not None else set()
    folder, ending = recipe[: len(recipe) - len(os.path.basename(recipe))], Path(recipe).suffix in ENDINGS
    names = {*known, *(f"{folder}{file.name if ending else file.stem}" for file in around)}
    raise RecipeError(recipe, [f"no such file, and {unknown('recipe', recipe, names)}"])


def read(recipe: str | Mapping[str, Any], sets: Iterable[str] = ()) -> Draft:
    """A recipe after `extends` and `--set key.sub=value`, not yet checked; by path or name, or given as its content.

    Raises:
        RecipeError: when there is no such recipe.
    """
    draft = _extended(find(recipe), ()) if isinstance(recipe, str) else _based(drafted(recipe), ())
    for assignment in sets:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not all(part.strip() for part in key.split(".")):
            draft.problems.append(f"--set {assignment!r}: write key.sub=value")
            continue
        if problem := value_problem(key):
            draft.problems.append(f"--set {key!r}: {problem}")
            continue
        value = parse(text)
        draft.problems += [f"--set {key}: {problem}" for _, problem in value.problems]
        if value.whole and (problem := _assign(draft, key.split("."), value.content)):
            draft.problems.append(f"--set {key}: {problem}")
    return draft


def _extended(path: Path, seen: tuple[Path, ...]) -> Draft:
    """The recipe in a file, laid over what it extends; `seen` are the files that extend it."""
    parsed = parse_file(path)
    content = {} if parsed.content is None else parsed.content
    if not isinstance(content, dict):
        parsed.problems.append((1, f"a recipe is a block of keys (`key: value`), not {shown(content)}"))
        parsed.whole, content = False, {}
    if isinstance(plugins := content.get("plugins"), list):
        content["plugins"] = [
            str(path.resolve().parent / os.path.expanduser(file)) if isinstance(file, str) else file for file in plugins
        ]
    origins = {"": f"{path.name}:1", **{key: f"{path.name}:{line}" for key, line in parsed.lines.items()}}
    problems = [f"{path.name}:{line}: {problem}" for line, problem in parsed.problems]
    return _based(Draft(content, origins, problems, parsed.whole), (*seen, path))


def _based(draft: Draft, seen: tuple[Path, ...]) -> Draft:
    """`draft` laid over what it extends; `seen` are the files on the way, its own the last."""
    name = draft.content.pop("extends", None)
    if name is None:
        return draft
    problem = None if isinstance(name, str) else f"must be the name or the path of one recipe (got {shown(name)})"
    try:
        path = find(str(name), by=seen[-1] if seen else None)
        if path in seen:
            problem = f"{' -> '.join(p.name for p in (*seen, path))} goes in a circle"
        elif len(seen) > LONGEST_CHAIN:
            problem = f"{path.name} is the end of a chain of more than {LONGEST_CHAIN} recipes"
    except RecipeError as error:
        problem = problem or error.problems[0]
    if problem is not None:
        place = f"{draft.origins['extends']}: " if "extends" in draft.origins else ""
        draft.problems.append(f"{place}extends: {problem}")
        draft.whole = False
        return draft
    base = _extended(path, seen)
    content, origins = merge(base.content, draft.content), {**base.origins, **draft.origins}
    return Draft(content, origins, base.problems + draft.problems, base.whole and draft.whole)


def drafted(content: Mapping[str, Any]) -> Draft:
    """The draft of a recipe that is given as its content.

    Raises:
        RecipeError: when it contains itself, is too deep or too large, or holds a value that is usable nowhere.
    """
    left = MOST_VALUES

    def check(value: Any, path: tuple[str, ...]) -> None:
        nonlocal left
        left -= 1
        reason = value_problem(path[-1]) or value_problem(value) if path else None
        if len(path) > DEEPEST:
            reason = f"more than {DEEPEST} blocks in one another"
        elif left < 0:
            reason = f"the recipe holds more than {MOST_VALUES} values"
        if reason is not None:
            raise RecipeError("recipe", [f"{shown('.'.join(path))}: {reason}"])
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        for key, below in items:
            check(below, (*path, str(key)))

    check(content, ())
    return Draft(plain(content))


def plain(content: Any) -> Any:
    """A copy whose blocks are dictionaries with keys of text, as they are when read from a file."""
    if isinstance(content, Mapping):
        return {str(key): plain(value) for key, value in content.items()}
    return [plain(value) for value in content] if isinstance(content, list) else content


def merge(base: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    """`base` with `delta` laid over it, block by block; a list or a single value replaces the one below."""
    merged = dict(base)
    for key, value in delta.items():
        both = isinstance(merged.get(key), dict) and isinstance(value, dict)
        merged[key] = merge(merged[key], value) if both else value
    return merged


def _assign(draft: Draft, keys: list[str], value: Any) -> str | None:
    """Put `value` there; a sentence where that cannot be."""
    dotted, content = ".".join(keys), draft.content
    if len(keys) > DEEPEST:
        return f"more than {DEEPEST} blocks in one another"
    origin = f"--set {dotted}"
    for depth, key in enumerate(keys[:-1], 1):
        if content.get(key) is None:
            content[key] = {}
            draft.origins[".".join(keys[:depth])] = origin
        content = content[key]
        if not isinstance(content, dict):
            return f"{'.'.join(keys[:depth])!r} holds {shown(content)}, which has no keys of its own"
    for below in [key for key in draft.origins if key.startswith(f"{dotted}.")]:
        del draft.origins[below]
    draft.origins[dotted] = origin
    content[keys[-1]] = value
    return None
