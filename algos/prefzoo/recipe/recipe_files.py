"""Recipes as files: find them, read them, extend one by another, change a key from the command line."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from prefzoo.errors import RecipeError, unknown
from prefzoo.validation_messages import shown

ENDINGS = (".yaml", ".yml")


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


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as the number that everybody means by it, and `on` as the word that it is in
    `start: {on: chosen}` (only `true` and `false` are truth values, as in YAML 1.2)."""


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
    places = [by.parent / recipe] if by is not None else []
    places += [Path(recipe).expanduser()]
    for place in places:
        for candidate in (place, place.parent / f"{place.name}.yaml"):
            if candidate.is_file() and candidate.suffix in ENDINGS:
                return candidate
    known = shipped()
    if recipe in known:
        return known[recipe]
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
    draft = _extended(find(recipe), ()) if isinstance(recipe, str) else _based(Draft(plain(recipe)), ())
    for assignment in sets:
        key, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not all(part.strip() for part in key.split(".")):
            draft.problems.append(f"--set {assignment!r}: write key.sub=value")
            continue
        value = _parsed(text)
        draft.problems += [f"--set {key}: {problem}" for _, problem in value.problems]
        if value.whole and (problem := _assign(draft, key.split("."), value.content)):
            draft.problems.append(f"--set {key}: {problem}")
    return draft


@dataclass
class _Parsed:
    """Content of YAML, the line of each dotted key, what is wrong by line, and whether it could be read."""

    content: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    whole: bool = True


def _parsed(text: str) -> _Parsed:
    parsed = _Parsed()
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _note_lines(node, "", parsed)
        parsed.content = loader.construct_document(node) if node is not None else None
    except yaml.YAMLError as error:
        parsed.whole = False
        parsed.problems.append(_unreadable(error))
    finally:
        if loader is not None:
            loader.dispose()
    return parsed


def _unreadable(error: yaml.YAMLError) -> tuple[int, str]:
    """The line and the reason."""
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return 1, f"not readable as YAML: {' '.join(str(error).split())}"
    reason, line = str(error.problem), error.problem_mark.line + 1
    if str(error.context).startswith("expected"):
        reason = f"{error.context} {reason}"
    elif "\\t" in reason:
        reason += " (YAML is indented by spaces, not tabs)"
    elif "<block" in reason or "not allowed here" in reason:
        reason += " (is the line indented like its neighbours, and a text with ': ' in it quoted?)"
    elif error.context_mark is not None and error.context_mark.line + 1 < line:
        reason += f" (to close what was opened in line {error.context_mark.line + 1})"
    return line, f"not readable as YAML: {reason}"


def _note_lines(node: yaml.Node | None, prefix: str, parsed: _Parsed, around: tuple[yaml.Node, ...] = ()) -> None:
    """Note the line of each dotted key below `node`, and each that is there twice. Whatever a key looks like, it is
    text: a label may be called 1."""
    if not isinstance(node, yaml.MappingNode):
        return
    if node in around:
        raise yaml.MarkedYAMLError(problem="a block that contains itself", problem_mark=node.start_mark)
    first: dict[str, int] = {}
    for key, value in node.value:
        if not isinstance(key, yaml.ScalarNode) or key.tag.endswith(":merge"):
            continue
        key.tag = "tag:yaml.org,2002:str"
        line, name = key.start_mark.line + 1, f"{prefix}{key.value}"
        if key.value in first:
            parsed.problems.append((line, f"{name}: is given twice, first in line {first[key.value]}"))
        first.setdefault(key.value, line)
        parsed.lines[name] = line
        _note_lines(value, f"{name}.", parsed, (*around, node))


def _extended(path: Path, seen: tuple[Path, ...]) -> Draft:
    """The recipe in a file, laid over what it extends; `seen` are the files that extend it."""
    try:
        parsed = _parsed(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        parsed = _Parsed(problems=[(1, f"not readable as YAML: {error}")], whole=False)
    content = {} if parsed.content is None else parsed.content
    if not isinstance(content, dict):
        parsed.problems.append((1, f"a recipe is a block of keys (`key: value`), not {shown(content)}"))
        parsed.whole, content = False, {}
    if isinstance(plugins := content.get("plugins"), list):
        content["plugins"] = [
            str(path.resolve().parent / Path(file).expanduser()) if isinstance(file, str) else file for file in plugins
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
