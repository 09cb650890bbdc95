"""What kinds of policy a folder can hold, and how each is loaded."""

from __future__ import annotations

import importlib
import json
import os
from pathlib import Path
from typing import Any

from prefzoo.interface import Policy

POLICY_FILE = "policy.json"
"""Says what kind of policy a folder holds, and where the start is that it needs."""


KINDS = {
    "adapter": "prefzoo.models.language_model:LanguageModelPolicy",
    "model": "prefzoo.models.language_model:LanguageModelPolicy",
    "best_of_n": "prefzoo.rewards.best_of_n_policy:BestOfNPolicy",
}
"""Kind of policy -> the class whose `load(folder, start, noted)` brings it back."""


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
    module, _, name = KINDS[noted["kind"]].partition(":")
    policy: Policy = getattr(importlib.import_module(module), name).load(folder, start, noted)
    return policy
