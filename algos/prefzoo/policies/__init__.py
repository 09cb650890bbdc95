"""Base models, adapters, sampling, log-probabilities, saving and loading."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from prefzoo.interface import Policy

POLICY_FILE = "policy.json"
"""Says what kind of policy a folder holds, and where the start is that it needs."""


def write_policy_file(folder: Path, kind: str, start: str, **more: Any) -> None:
    """Write `policy.json`; a start on this disk is noted relative to `folder`, so that a run can be moved whole."""
    local = Path(start).is_dir()
    noted = os.path.relpath(Path(start).resolve(), folder.resolve()) if local else start
    content = {"kind": kind, "start": noted, "start_is_relative": local, **more}
    (folder / POLICY_FILE).write_text(json.dumps(content, indent=1), encoding="utf-8")


def load_policy(folder: Path | str) -> Policy:
    """Bring back a policy that `save` wrote.

    Raises:
        FileNotFoundError: when `folder` holds no policy.
    """
    folder = Path(folder)
    noted = json.loads((folder / POLICY_FILE).read_text(encoding="utf-8"))
    start = str((folder / noted["start"]).resolve()) if noted["start_is_relative"] else noted["start"]
    if noted["kind"] == "best_of_n":
        from prefzoo.policies.best_of_n import BestOfNPolicy

        return BestOfNPolicy.load(folder, start, noted)
    from prefzoo.policies.language_model import LanguageModelPolicy

    return LanguageModelPolicy.load(folder, start, noted)
