"""Jinja templates that a person wrote, filled in within bounds: a hostile one neither hangs nor fills the memory."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateRuntimeError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_ROUNDS = 100_000
"""How often the loops of a template may go round in one filling in, all together."""
CPU_SECONDS = 1
MEMORY_BYTES = 2**30
MOST_LETTERS = 200_000
EXAMPLE = "What do you say? " * 60
"""A text as long as people write, so that loops over its letters are tried too."""

_rounds = threading.local()


def _counted(values: Iterable[Any]) -> Iterator[Any]:
    for value in values:
        _rounds.left = getattr(_rounds, "left", MOST_ROUNDS) - 1
        if _rounds.left < 0:
            raise TemplateRuntimeError(f"its loops go round more than {MOST_ROUNDS} times")
        yield value


class _CountLoops(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.For:
        self.generic_visit(node)
        node.iter = nodes.Filter(node.iter, "_counted", [], [], None, None, lineno=node.lineno)
        return node


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """A sandbox whose templates may not use what is undefined, nor loop for ever; one class for all of our requests."""

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined)
        self.filters["_counted"] = _counted

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        parsed: nodes.Template = _CountLoops().visit(super()._parse(source, name, filename))
        return parsed


@functools.cache
def _compiled(text: str) -> Template:
    """Compiled once: that takes far longer than filling in."""
    return ENVIRONMENT.from_string(text)


ENVIRONMENT = BoundedEnvironment()


def fill_in(text: str, **values: Any) -> str:
    """A template filled in.

    Raises:
        jinja2.TemplateError: where it cannot be, or its loops do not end.
    """
    _rounds.left = MOST_ROUNDS
    return _compiled(text).render(**values)


_PROBE = f"""
import json, re, resource, sys
from jinja2.sandbox import ImmutableSandboxedEnvironment
text, values = json.load(sys.stdin)
used = resource.getrusage(resource.RUSAGE_SELF)
resource.setrlimit(resource.RLIMIT_AS, ({MEMORY_BYTES}, {MEMORY_BYTES}))
seconds = int(used.ru_utime + used.ru_stime) + 1 + {CPU_SECONDS}
resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
options = {{"trim_blocks": True, "lstrip_blocks": True, "extensions": ["jinja2.ext.loopcontrols"]}}
environment = ImmutableSandboxedEnvironment(**options)
text = re.sub(r"{{%-?\\s*(end)?generation\\s*-?%}}", "", text)
try:
    environment.from_string(text).render(**values)
except (MemoryError, OverflowError, RecursionError, SyntaxError) as error:
    print(type(error).__name__, str(error)[:200], sep=": ")
except Exception:
    pass
"""


@functools.cache
def _probed(text: str, values: str) -> str | None:
    bound = f"takes more than {CPU_SECONDS} s or {MEMORY_BYTES // 2**20} MiB to fill in, even with one short example"
    try:
        probe = subprocess.run(
            [sys.executable, "-c", _PROBE],
            input=f"[{json.dumps(text)}, {values}]",
            cwd=sys.prefix,
            capture_output=True,
            text=True,
            timeout=60 * CPU_SECONDS,
        )
    except subprocess.TimeoutExpired:
        return bound
    if probe.returncode < 0 or "MemoryError" in probe.stdout + probe.stderr:
        return bound
    return f"cannot be filled in: {' '.join(probe.stdout.split())}" if probe.stdout.strip() else None


def template_problem(text: str, **values: Any) -> str | None:
    """What makes a template unusable whatever it says: that it does not end, or fills the memory; None for others.

    It is tried in a process of its own, for even reading such a template may never end. What it says is not looked at.

    Args:
        values: an example, of what JSON can hold.
    """
    if len(text) > MOST_LETTERS:
        return f"is too long: {len(text)} letters, and at most {MOST_LETTERS} are read"
    return _probed(text, json.dumps(values))


def chat_template_problem(text: str) -> str | None:
    """The same for a model's chat template."""
    roles = ["user", "assistant"] * 3
    messages = [{"role": role, "content": EXAMPLE} for role in [*roles, "user"]]
    return template_problem(text, messages=messages, add_generation_prompt=True, bos_token="<s>", eos_token="</s>")
