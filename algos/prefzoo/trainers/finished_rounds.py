"""The rounds that a training has finished, from which it goes on when it waited for people, or was killed meanwhile."""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefzoo.interface import CHECKPOINTS, Bench, Policy, is_first_process
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.policy_with_modules import PolicyWithModules
from prefzoo.models.saved_policy import SavedPolicy
from prefzoo.trainers.fitting import current_policy

STATE = "state.json"


class FinishedRounds:
    """Keeps what the last finished round left: the files of the trial, the ledger, the report and the judge's counts.

    Only with a judge that pauses the training (`pauses`); others go on from the trainers' own checkpoints.

    Attributes:
        done: how many rounds are finished.
        policy: the one to go on from.
        state: the plain values that were kept with it.
    """

    def __init__(self, bench: Bench) -> None:
        self.bench, self.kept = bench, bool(getattr(bench.judge, "pauses", False))
        self.folder = bench.out / CHECKPOINTS / "rounds"
        self.done, self.state = 0, dict[str, Any]()
        finished = sorted(self.folder.glob("[0-9]*"), key=lambda path: int(path.name)) if self.kept else []
        self.policy: Policy = self._restored(finished[-1]) if finished else current_policy(bench)

    def save(self, done: int, **state: Any) -> None:
        """Keep that so many rounds are finished, with plain values that the algorithm goes on with."""
        if not (self.kept and is_first_process()):
            return
        bench, partial = self.bench, self.folder / "partial"
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(
            bench.out, partial / "files", ignore=lambda path, _: [CHECKPOINTS] if Path(path) == bench.out else []
        )
        ledger = dataclasses.asdict(bench.ledger)
        ledger["seconds"] += time.perf_counter() - bench.machinery.began
        judge: Any = bench.judge
        content = {"ledger": ledger, "report": bench.report, "judge": judge.state(), "state": state}
        (partial / STATE).write_text(json.dumps(content), encoding="utf-8")
        partial.rename(self.folder / str(done))
        shutil.rmtree(self.folder / str(done - 1), ignore_errors=True)

    def _restored(self, folder: Path) -> Policy:
        bench, judge = self.bench, self.bench.judge
        content: Mapping[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
        shutil.copytree(folder / "files", bench.out, dirs_exist_ok=True)
        for name, value in content["ledger"].items():
            setattr(bench.ledger, name, value)
        bench.report.update(content["report"])
        judge.restore(content["judge"])  # type: ignore[union-attr]
        self.done, self.state = int(folder.name), dict(content["state"])
        policy: Policy = load_policy(bench.out / "policy", run_code=True)
        return policy if isinstance(policy, PolicyWithModules) else SavedPolicy(bench.out / "policy")
