"""The estimate of what a comparison will take, as it is kept in its folder."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import read_json, write_whole
from prefzoo.errors import PrefzooError

ESTIMATE_FILE = "estimate.json"


@dataclass(frozen=True)
class Estimate:
    """An estimate for the machine that was probed.

    Attributes:
        recipe: of the comparison, resolved.
        workers: stages at a time.
        labels: for each label, the start's included, a ledger as `results.json` will hold one for a seed.
        shared: the same for each stage that is run once.
        failed: what failed in the probe, and why; nothing is known of it.
        left: how many stages of each label, and of the shared ones, are still to be run.
        wall_seconds: until all that is left has run.
        disk_bytes: what it will leave in the comparison's folder.
        probe: `prompts` and `evaluation_prompts` of each probe, and the `seconds` of all.
    """

    recipe: dict[str, Any]
    workers: int
    labels: dict[str, dict[str, float]] = field(default_factory=dict)
    shared: dict[str, dict[str, float]] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: dict[str, int] = field(default_factory=dict)
    wall_seconds: float = 0.0
    disk_bytes: float = 0.0
    probe: dict[str, Any] = field(default_factory=dict)

    def save(self, out: Path) -> None:
        """Write `estimate.json`, for the report to say later how far it was off."""
        write_whole(out / ESTIMATE_FILE, json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, out: Path) -> Estimate | None:
        """Read what `save` wrote; None where nothing was estimated, or the file is damaged: it can be made again."""
        try:
            return cls(**read_json(out / ESTIMATE_FILE))
        except (PrefzooError, TypeError):
            return None
