"""Algorithms and kinds of policy from a Python file of the user's: `--plugin FILE`, or `plugins: [FILE]` in a recipe.

The file registers them with `@prefzoo.register("name")` and `prefzoo.register_policy("kind", cls)`. It stands alone or
imports installed packages; what lies beside it is not importable, because a stage's process is sent the text of this
one file and nothing else, so that all processes of a comparison run the same code even when the file is edited
meanwhile.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

from prefzoo import registry
from prefzoo.atomic_files import read_text, text_sha256, usable_path
from prefzoo.errors import PrefzooError

_sources: dict[str, str] = {}


def load_plugins(files: Iterable[str | Path], named_by: str = "--plugin ") -> None:
    """Run plug-in files that this process has not run yet, or not as they are now.

    Args:
        files: relative to the current folder.
        named_by: what the sentence of an error begins with: where the file was named.

    Raises:
        PrefzooError: for a file that does not exist, fails (the sentence names file and line), or registers nothing.
    """
    for file in files:
        try:
            path = usable_path(str(file)).resolve()
        except ValueError as error:
            raise PrefzooError(f"{named_by}{file}: {error}") from None
        if not path.exists():
            raise PrefzooError(f"{named_by}{file}: there is no such file")
        try:
            source = read_text(path)
        except PrefzooError as error:
            raise PrefzooError(f"{named_by}{file}: is not a Python file in UTF-8: {error}") from None
        if _sources.get(str(path)) == source:
            continue
        before, policies = registry.registered(), registry.registered_policies()
        try:
            _run(path, source)
        except (Exception, SystemExit) as error:
            registry.restore(before, policies)
            raise PrefzooError(
                f"{named_by}{file}:{_line(error, path)}: {type(error).__name__}: {_message(error)}"
            ) from error
        now = {**registry.registered(), **registry.registered_policies()}
        if all(({**before, **policies}).get(name) is cls for name, cls in now.items()):
            raise PrefzooError(
                f'{named_by}{file}: registers no algorithm; decorate its class with @prefzoo.register("name")'
            )
        _sources[str(path)] = source


def loaded() -> dict[str, str]:
    """Path and text of each plug-in that this process runs (stage processes are sent these)."""
    return dict(_sources)


def run_again(sources: Mapping[str, str]) -> None:
    """Run plug-ins in a stage's process, as the comparison's process ran them."""
    for path, source in sources.items():
        _run(Path(path), source)


def _run(path: Path, source: str) -> None:
    # The same name in every process, so that what is sent from one to another is found there.
    name = f"prefzoo_plugin_{path.stem}_{text_sha256(str(path))[:8]}"
    module = ModuleType(name)
    module.__file__ = str(path)
    code = compile(source, str(path), "exec")
    sys.modules[name] = module  # dataclasses and pydantic look up annotations there
    try:
        exec(code, vars(module))
    except BaseException:
        del sys.modules[name]
        raise


def _line(error: BaseException, path: Path) -> int:
    """The last line of the plug-in itself that led to the error."""
    if isinstance(error, SyntaxError) and error.filename == str(path):
        return error.lineno or 1
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return (lines[-1] if lines else None) or 1


def _message(error: BaseException) -> str:
    return error.msg if isinstance(error, SyntaxError) else " ".join(str(error).split())
