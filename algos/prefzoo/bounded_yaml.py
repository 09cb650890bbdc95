"""YAML that a person wrote: what is wrong with it is told with its line; reading it takes little time and memory."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from prefzoo.atomic_files import read_text
from prefzoo.errors import PrefzooError

MOST_BYTES = 1_000_000
MOST_VALUES = 6_000
"""Keys, values and blocks of one file, those that an alias repeats counted again."""
DEEPEST = 40
"""Blocks in one another."""
LARGEST = 2**63 - 1
"""Whole numbers above this fit no seed and no count."""
TAGS = tuple(f"tag:yaml.org,2002:{name}" for name in ("map", "seq", "str", "int", "float", "bool", "null", "merge"))


@dataclass
class Parsed:
    """Content of YAML, the line of each dotted key, what is wrong by line, and whether it could be read."""

    content: Any = None
    lines: dict[str, int] = field(default_factory=dict)
    problems: list[tuple[int, str]] = field(default_factory=list)
    whole: bool = True


class _Loader(yaml.SafeLoader):
    """Safe YAML that reads `1e-4` as the number that everybody means by it, `on` as the word that it is in
    `start: {on: chosen}` (only `true` and `false` are truth values, as in YAML 1.2), and a date as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = self.size = 0
        self.sizes: dict[int, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event, before = self.peek_event(), self.size
        alias = isinstance(event, yaml.AliasEvent)
        self.depth += 1
        self.size += 1
        if self.depth > DEEPEST:
            raise _problem(f"more than {DEEPEST} blocks in one another", event)
        node = super().compose_node(parent, index)
        self.depth -= 1
        if alias and id(node) not in self.sizes:
            raise _problem("a block that contains itself", event)
        self.size += self.sizes.get(id(node), 0) if alias else 0
        if self.size > MOST_VALUES:
            raise _problem(f"more than {MOST_VALUES} keys and values, those that aliases repeat counted again", event)
        if not alias:
            self.sizes[id(node)] = self.size - before
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        if node.tag not in TAGS:
            raise _problem(f"the tag {node.tag.replace('tag:yaml.org,2002:', '!!')!r} has no meaning here", node)
        try:
            value = super().construct_object(node, deep)
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError):
            raise _problem(f"{_short(node.value)} is no {node.tag.rpartition(':')[2]}", node) from None
        if problem := value_problem(value):
            raise _problem(problem, node)
        return value


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag in TAGS and tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:bool", re.compile("^(true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def value_problem(value: Any) -> str | None:
    """What makes a single value unusable wherever it stands; None for most."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f"a whole number beyond {LARGEST}"
    if isinstance(value, str) and (bad := re.search("[\0\ud800-\udfff]", value)):
        return f"a text with the character {bad[0]!r} in it"
    return None


def parse(text: str) -> Parsed:
    """Read YAML. Nothing is raised: what is wrong is in the result."""
    parsed = Parsed()
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        _note_lines(node, "", parsed)
        parsed.content = loader.construct_document(node) if node is not None else None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        parsed.problems.append((line, f"not readable as YAML: the character {chr(int(error.character))!r} is in it"))
    except yaml.YAMLError as error:
        parsed.problems.append(_unreadable(error))
    else:
        return parsed
    finally:
        if loader is not None:
            loader.dispose()
    parsed.whole = False
    return parsed


def parse_file(path: Path) -> Parsed:
    """Read a file of YAML; nothing is raised."""
    try:
        return parse(read_text(path, MOST_BYTES))
    except PrefzooError as error:
        reason = str(error).removeprefix(f"{path} ").removeprefix(f"{path}: ")
        return Parsed(problems=[(1, f"not readable as YAML: {reason}")], whole=False)


def _problem(text: str, where: Any) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=text, problem_mark=where.start_mark)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


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


def _note_lines(node: yaml.Node | None, prefix: str, parsed: Parsed) -> None:
    """Note the line of each dotted key below `node`, and each that is there twice. Whatever a key looks like, it is
    text: a label may be called 1."""
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _note_lines(item, f"{prefix}{i}.", parsed)
    if not isinstance(node, yaml.MappingNode):
        return
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
        _note_lines(value, f"{name}.", parsed)
