"""A scoring function of the user's own, named as FILE.py:NAME."""

from __future__ import annotations

import ast
import importlib.util
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError, unknown
from prefzoo.types import Prompt


class FunctionReward:
    """A Python function `(prompts, completions) -> scores` from a file, as `FILE.py:NAME`.

    `prompts` are lists of messages, `completions` texts; one number each comes back.
    """

    def __init__(self, path: str, key: str = "reward.path") -> None:
        self.path = path
        self.function = load_function(path, key)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        try:
            returned = self.function(list(prompts), list(completions))
        except (Exception, SystemExit) as error:  # the user's own function may raise anything
            raise PrefzooError(f"{self.path} raised {type(error).__name__}: {error}") from error
        try:
            scores = [float(score) for score in returned]
        except Exception as error:
            raise PrefzooError(
                f"{self.path} returned {str(returned)[:80]!r}, of type {type(returned).__name__}; it must return one "
                f"number for each of {len(completions)} completions"
            ) from error
        if len(scores) != len(completions):
            raise PrefzooError(f"{self.path} returned {len(scores)} scores for {len(completions)} completions")
        if bad := [i for i, score in enumerate(scores) if not math.isfinite(score)]:
            raise PrefzooError(f"{self.path} returned {scores[bad[0]]} for the completion {completions[bad[0]]!r}")
        return scores

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "function", "path": self.path}


def function_problem(path: str) -> str | None:
    """A sentence if `path` does not name a function as `FILE.py:NAME`; None if it does. Runs nothing."""
    file, _, name = path.rpartition(":")
    location = Path(file).expanduser()
    if not file.endswith(".py") or not name:
        return f"{path!r} does not name a function as FILE.py:NAME"
    if not location.is_file():
        return f"{path!r} does not name a function as FILE.py:NAME: there is no file {file!r}"
    try:
        tree = ast.parse(location.read_text(encoding="utf-8"))
    except SyntaxError as error:
        return f"{file} is not Python: {error.msg} in line {error.lineno}"
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    names += [
        t.id for node in tree.body if isinstance(node, ast.Assign) for t in node.targets if isinstance(t, ast.Name)
    ]
    return None if name in names else f"{unknown('function', name, names)} (in {file})"


def load_function(path: str, key: str) -> Callable[..., Any]:
    """The function behind `FILE.py:NAME`.

    Raises:
        PrefzooError: when the file or the name does not exist, naming `key`, the value and the nearest name.
    """
    if problem := function_problem(path):
        raise PrefzooError(f"{key}: {problem}")
    file, _, name = path.rpartition(":")
    location = Path(file).expanduser().resolve()
    spec = importlib.util.spec_from_file_location(f"prefzoo_user_{location.stem}", location)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise PrefzooError(f"{key}: {file} could not be run: {type(error).__name__}: {error}") from error
    function = getattr(module, name)
    if not callable(function):
        raise PrefzooError(f"{key}: {path!r} is no function, but {function!r}")
    return function
