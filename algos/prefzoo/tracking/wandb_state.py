"""What a folder remembers of its W&B runs."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from typing import Any

STATE = "tracking.json"


def read_state(out: Path) -> dict[str, Any]:
    """What is remembered of this comparison's runs: its id, what each run holds already, and what went wrong.

    A file that is missing or damaged is started anew.
    """
    try:
        state = json.loads((out / STATE).read_text(encoding="utf-8"))
        return {"comparison": state["comparison"], "runs": dict(state["runs"]), "problems": list(state["problems"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {"comparison": secrets.token_hex(4), "runs": {}, "problems": []}


def write_state(out: Path, state: dict[str, Any]) -> None:
    """Write it whole or not at all."""
    partial = out / f"{STATE}.partial"
    partial.write_text(json.dumps(state, indent=1), encoding="utf-8")
    os.replace(partial, out / STATE)
