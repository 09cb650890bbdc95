"""What tells whether a stage made earlier still answers to its inputs: hashes of files, code, judges and versions."""

from __future__ import annotations

import hashlib
import inspect
import json
import platform
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.version import __version__

LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "accelerate", "numpy")
HASHED_BYTES = 100_000_000
"""Model folders below this are known by their content, larger ones by their files' names, sizes and times."""


def versions() -> dict[str, str]:
    """Versions of this package and of the libraries that decide what it computes."""
    return {"prefzoo": __version__, **{name: version(name) for name in LIBRARIES}}


def ran_with() -> dict[str, str]:
    """`versions`, with those of what decides nothing but is asked for when a run is to be repeated."""
    return {"python": platform.python_version(), **versions(), "wandb": version("wandb")}


def digest(content: Any) -> str:
    """A hash of plain values, in which the order of keys does not count."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def fingerprint(path: str | None) -> Any:
    """What tells that a file or model folder is no longer the same; None for hub ids, which have revisions."""
    if path is None:
        return None
    if path == "lab":
        from prefzoo.lab import MODEL_DIR

        path = str(MODEL_DIR)
    place = Path(path.rpartition(":")[0] if ".py:" in path else path).expanduser()
    if place.is_file():
        return hashlib.sha256(place.read_bytes()).hexdigest()
    if not place.is_dir():
        return None
    files = [f for f in sorted(place.rglob("*")) if f.is_file()]
    if sum(f.stat().st_size for f in files) < HASHED_BYTES:
        return [[str(f.relative_to(place)), hashlib.sha256(f.read_bytes()).hexdigest()] for f in files]
    return [[str(f.relative_to(place)), f.stat().st_size, f.stat().st_mtime_ns] for f in files]


def judge_fingerprint(judge: JudgeSettings) -> dict[str, Any]:
    """All that a judge's answers depend on; not how fast and how patiently a server is asked."""
    files = [fingerprint(path) for path in (judge.path, judge.prompt, judge.grading_prompt)]
    asking = {"key_env", "concurrency", "timeout", "retries", "price_in", "price_out"}
    return {**judge.model_dump(mode="json", exclude={"audit_pairs": True, "endpoint": asking}), "files": files}


def class_fingerprint(cls: type) -> str | None:
    """The file and package version of a class that is not ours: a version alone says nothing of its last edit."""
    try:
        file = inspect.getsourcefile(cls)
    except TypeError:  # typed at a prompt or in a script that travelled by value
        file = None
    if file is None or not Path(file).is_file():
        return None
    package = cls.__module__.partition(".")[0]
    installed = [version(name) for name in packages_distributions().get(package, [])]
    return f"{hashlib.sha256(Path(file).read_bytes()).hexdigest()} {installed}"
