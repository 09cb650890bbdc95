"""Open and end W&B runs within bounded times, and keep them offline where no server answers."""

from __future__ import annotations

import functools
import os
import shlex
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefzoo.recipe.recipe_schema import Wandb

ARTIFACT_BYTES_PER_SECOND = 1e6
"""The slowest connection for which the upload of an artifact is waited."""


@dataclass
class WandbClient:
    """The only user of the wandb package.

    Attributes:
        settings: the recipe's block.
        out: the comparison's folder; runs are kept in `wandb/` below it.
        group: of all runs of the comparison.
        send: `send("problem", sentence)` is called once when a server cannot be used; `send("busy", seconds)` before
            each call that may take that long.
        init_seconds: how long a server may take to open a run.
        finish_seconds: how long it may take for the last uploads of a run.
    """

    settings: Wandb
    out: Path
    group: str
    send: Callable[..., None]
    init_seconds: float
    finish_seconds: float
    runs: dict[str, Any] = field(default_factory=dict)
    url: str = ""
    offline_runs: int = 0
    artifact_bytes: int = 0
    lost_server: bool = False

    @functools.cached_property
    def wandb(self) -> Any:
        """The package, which takes a second to import."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own telemetry
        import wandb

        return wandb

    @functools.cached_property
    def mode(self) -> str:
        """`online`, `offline` or `disabled`; for `auto` by wandb's settings and stored credentials, without network."""
        if self.settings.mode != "auto":
            return self.settings.mode
        mode: str = self.wandb.setup().settings.mode
        known = mode in ("disabled", "offline") or (mode == "online" and self.wandb.login(prompt=False, verify=False))
        return mode if known else "offline"

    def open(self, run_id: str, **description: Any) -> Any:
        """Return the run of this id: open already, new, or resumed; an offline one where the server does not answer.
        The description is its `name`, `job_type` and `config`."""
        if run_id not in self.runs and self.mode == "online":
            self.send("busy", self.init_seconds)
            try:
                self.runs[run_id] = self._init(run_id, description)
                self.url = self.runs[run_id].url or ""
            except Exception as error:
                self._go_offline(error)
        if run_id not in self.runs:
            self.offline_runs += 1
            self.runs[run_id] = self._init(run_id, description)
        return self.runs[run_id]

    def _init(self, run_id: str, description: dict[str, Any]) -> Any:
        # the command line, the machine and the user's name stay private
        private: dict[str, Any] = {"x_disable_meta": True, "x_disable_machine_info": True, "x_disable_stats": True}
        private |= {"x_save_requirements": False, "save_code": False, "disable_git": True, "console": "off"}
        limits = {"init_timeout": self.init_seconds, "finish_timeout": self.patience, "finish_timeout_raises": True}
        settings = self.wandb.Settings(silent=True, **private, **limits)
        where = {"project": self.settings.project, "entity": self.settings.entity, "dir": str(self.out)}
        identity = {"id": run_id, "group": self.group, "resume": "allow", "reinit": "create_new", **description}
        return self.wandb.init(mode=self.mode, settings=settings, **where, **identity)

    @property
    def patience(self) -> float:
        """Seconds for the last uploads of a run, the last artifact's included."""
        return self.finish_seconds + self.artifact_bytes / ARTIFACT_BYTES_PER_SECOND

    def log_artifact(self, run_id: str, name: str, folder: Path) -> None:
        """Add a folder to an open run by reference to its files, which never change."""
        self.artifact_bytes = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        artifact = self.wandb.Artifact(f"{name}-{self.group}", type="model")
        artifact.add_dir(str(folder), policy="immutable")
        self.runs[run_id].log_artifact(artifact)

    def finish(self, run_id: str, exit_code: int) -> None:
        """End a run if it is open. What the server does not take in time stays on disk."""
        if run_id in self.runs:
            self.send("busy", self.patience)
            try:
                self.runs.pop(run_id).finish(exit_code=exit_code)
            except TimeoutError as error:
                self._go_offline(error)

    def _go_offline(self, error: Exception) -> None:
        """Leave the server alone: open runs end, and later ones are kept offline."""
        traceback.print_exc()
        self.mode, self.lost_server = "offline", True
        self.runs.clear()
        self.send("busy", self.patience)
        self.wandb.teardown(exit_code=1)
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        folder = shlex.quote(str(self.out / "wandb"))
        local_copy = f"What it did not take is kept in {folder}; upload it with: {self._sync_command()}"
        self.send("problem", f"Weights & Biases could not be reached ({reason}). {local_copy}")

    def _sync_command(self) -> str:
        folder = shlex.quote(str(self.out / "wandb"))
        return (
            f"wandb sync --include-online {folder}/*run-*" if self.lost_server else f"wandb sync {folder}/offline-run-*"
        )

    def location(self) -> str:
        """Return a line that says where the runs are, and how to upload them where they are offline."""
        if self.mode == "online" and self.url:
            return f"Weights & Biases: {self.url.partition('/runs/')[0]}/groups/{self.group}"
        return f"Weights & Biases: {self.offline_runs} runs kept offline; upload them with: {self._sync_command()}"
