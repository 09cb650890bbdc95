"""The one place that talks to wandb: which mode, within which time, and offline where online fails."""

from __future__ import annotations

import functools
import os
import shlex
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefzoo.recipe.recipe_schema import Wandb

ARTIFACT_BYTES_A_SECOND = 1e6
"""The slowest connection for which the upload of an artifact is waited."""


class Door:
    """Opens and ends runs.

    Args:
        settings: the recipe's block.
        out: the comparison's folder; runs lie in `wandb/` below it.
        group: of all runs of the comparison.
        say: `say("problem", sentence)` is called once when a server cannot be used; `say("busy", seconds)` before
            what may take long.
        init, finish: seconds that a server may take to open a run, and to take its last uploads.
    """

    def __init__(
        self, settings: Wandb, out: Path, group: str, say: Callable[..., None], init: float, finish: float
    ) -> None:
        self.settings, self.out, self.group, self.say = settings, out, group, say
        self.init, self.finish_within = init, finish
        self.runs: dict[str, Any] = {}
        self.bytes = 0
        self.place: str | None = None
        self.offline_runs = 0
        self.lost = False

    @functools.cached_property
    def wandb(self) -> Any:
        """The package, which takes a second to import."""
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # its own telemetry
        import wandb

        return wandb

    @functools.cached_property
    def mode(self) -> str:
        """`online`, `offline` or `disabled`; `auto` is settled by wandb's settings and stored credentials, without
        the network."""
        chosen = self.settings.mode
        if chosen == "auto":
            said = self.wandb.setup().settings.mode
            chosen = said if said in ("disabled", "offline") else "offline"
            if said == "online" and self.wandb.login(prompt=False, verify=False):
                chosen = "online"
        return chosen

    @property
    def live(self) -> bool:
        """Whether somebody can watch curves grow."""
        return self.settings.mode in ("auto", "online") and self.mode == "online"

    def open(self, run_id: str, name: str, job_type: str, config: Mapping[str, Any]) -> Any:
        """A run that is open, new or gone on with; kept offline when a server that should take it does not."""
        if run_id in self.runs:
            return self.runs[run_id]
        if self.mode == "online":
            self.say("busy", self.init)
            try:
                self.runs[run_id] = self._open("online", run_id, name, job_type, config)
                self.place = self.runs[run_id].url
                return self.runs[run_id]
            except Exception as error:
                self._go_offline(error)
        self.offline_runs += self.mode == "offline"
        self.runs[run_id] = self._open(self.mode, run_id, name, job_type, config)
        return self.runs[run_id]

    def _open(self, mode: str, run_id: str, name: str, job_type: str, config: Mapping[str, Any]) -> Any:
        settings = self.wandb.Settings(
            silent=True,
            console="off",
            save_code=False,
            disable_git=True,
            x_disable_meta=True,  # the command line and the machine's user are nobody's business
            x_disable_machine_info=True,
            x_disable_stats=True,
            x_save_requirements=False,
            init_timeout=self.init,
            finish_timeout=self._patience,
            finish_timeout_raises=True,
        )
        return self.wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            group=self.group,
            id=run_id,
            name=name,
            job_type=job_type,
            config=dict(config),
            mode=mode,
            dir=str(self.out),
            resume="allow",
            reinit="create_new",
            settings=settings,
        )

    def artifact(self, run: Any, name: str, folder: Path) -> None:
        """Add a folder to a run, by reference to the files on disk, which never change."""
        self.bytes = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file())
        artifact = self.wandb.Artifact(f"{name}-{self.group}", type="model")
        artifact.add_dir(str(folder), policy="immutable")
        run.log_artifact(artifact)

    def finish(self, run_id: str, exit_code: int) -> None:
        """End a run, if it is open; what a server did not take in time stays on disk."""
        if run_id not in self.runs:
            return
        self.say("busy", self._patience)
        try:
            self.runs.pop(run_id).finish(exit_code=exit_code)
        except TimeoutError as error:
            self._go_offline(error)

    @property
    def _patience(self) -> float:
        return self.finish_within + self.bytes / ARTIFACT_BYTES_A_SECOND

    def _go_offline(self, error: Exception) -> None:
        """Leave the server alone from here on; runs that are open end, and are gone on with offline."""
        traceback.print_exc()
        self.mode, self.lost = "offline", True
        self.runs.clear()
        self.say("busy", self._patience)
        self.wandb.teardown(exit_code=1)
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        folder = shlex.quote(str(self.out / "wandb"))
        kept = f"What it did not take is kept in {folder}; upload it with: wandb sync --include-online {folder}/*run-*"
        self.say("problem", f"Weights & Biases could not be reached ({reason}). {kept}")

    def where(self) -> str:
        """One line about where the runs are."""
        if self.mode == "online" and self.place:
            return f"Weights & Biases: {self.place.partition('/runs/')[0]}/groups/{self.group}"
        folder = shlex.quote(str(self.out / "wandb"))
        some = f"--include-online {folder}/*run-*" if self.lost else f"{folder}/offline-run-*"
        command = f"wandb sync {some}"
        return f"Weights & Biases: {self.offline_runs} runs kept offline; upload them with: {command}"
