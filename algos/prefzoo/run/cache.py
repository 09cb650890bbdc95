"""Keys of stages: hashes of all that a result depends on, by which a stage made earlier is known to be still valid.

A key is made of a stage's settings, the files that they name, the versions of libraries, and this package's source.
"""

from __future__ import annotations

import functools
import hashlib
import inspect
import json
import platform
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import add_file, file_sha256, text_sha256
from prefzoo.feedback.stored_records import is_store, read_store
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.lab import MODELS
from prefzoo.version import __version__

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")
HASHED_BYTES = 100_000_000
"""Model folders below this are known by their content, larger ones by their files' names, sizes and times."""
PACKAGE = Path(__file__).parents[1]
SOURCE_SUFFIXES = (".py", ".jinja")
"""Code and the judges' prompts. Constitutions, models and recipes have hashes of their own."""
NOT_IN_KEYS = ("report", "results", "tracking", "commands", "conformance", "cli")
"""Subpackages that no stage runs: they start stages, or read what stages left."""


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide what it computes."""
    return {"prefzoo": __version__, **{name: version(name) for name in LIBRARIES}}


def ran_with() -> dict[str, str]:
    """`versions`, with those of what decides nothing but is asked for when a run is to be repeated."""
    return {"python": platform.python_version(), **versions(), "wandb": version("wandb")}


@functools.cache
def source_hash(package: Path = PACKAGE) -> str:
    """A hash of the source that can change what a stage computes; computed once in a process.

    It is the same for a checkout and for the wheel that is built of it.
    """
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*")):
        place = file.relative_to(package)
        if file.suffix in SOURCE_SUFFIXES and place.parts[0] not in NOT_IN_KEYS:
            digest.update(place.as_posix().encode())
            add_file(digest, file)
    return digest.hexdigest()


def result_key(content: Any) -> str:
    """The key of what is computed from plain values, in which the order of keys does not count."""
    computed_by = {"versions": versions(), "source": source_hash()}
    return text_sha256(json.dumps([content, computed_by], sort_keys=True, default=str))


def fingerprint(path: str | None) -> Any:
    """What tells that a file or model folder is no longer the same; None for hub ids, which have revisions."""
    if path is None:
        return None
    path = str(MODELS.get(path, path))
    place = Path(path.rpartition(":")[0] if ".py:" in path else path).expanduser()
    if place.is_file():
        return file_sha256(place)
    if not place.is_dir():
        return None
    files = [file for file in sorted(place.rglob("*")) if file.is_file()]
    if sum(file.stat().st_size for file in files) < HASHED_BYTES:
        return [[str(file.relative_to(place)), file_sha256(file)] for file in files]
    return [[str(file.relative_to(place)), file.stat().st_size, file.stat().st_mtime_ns] for file in files]


def rows_fingerprint(kind: str, path: str) -> Any:
    """What tells that a source of rows is no longer the same. Of a store of feedback that is what people said, whatever
    else is written to it."""
    return read_store(path, kind).sha256 if is_store(path) else fingerprint(path)


def judge_fingerprint(judge: JudgeSettings) -> dict[str, Any]:
    """All that a judge's answers depend on; not how fast and how patiently a server is asked."""
    files = [fingerprint(path) for path in (judge.path, judge.prompt, judge.grading_prompt)]
    asking = {"key_env", "concurrency", "timeout", "retries", "price_in", "price_out"}
    return {**judge.model_dump(mode="json", exclude={"audit_pairs": True, "endpoint": asking}), "files": files}


def class_fingerprint(cls: type) -> str | None:
    """The file and package version of a class that is not ours; None for one typed at a prompt."""
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:  # typed at a prompt or in a script that travelled by value
        file = None
    if file is None or not Path(file).is_file():
        return None
    package = cls.__module__.partition(".")[0]
    installed = [version(name) for name in packages_distributions().get(package, [])]
    return f"{file_sha256(Path(file))} {installed}"
