"""What trainers log: curves in a file that grows while they train, and the trackers that a recipe asks for."""

from __future__ import annotations

import functools
import json
import os
import time
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from prefzoo.atomic_files import write_whole
from prefzoo.interface import Bench

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

CURVES = "curves.json"
WRITE_SECONDS = 3.0
"""How old the file may be while training goes on."""


def read_rounds(path: Path) -> list[list[dict[str, Any]]]:
    """Return the logged metrics of each training so far; an algorithm of several rounds has several."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


class Curves(TrainerCallback):
    """Writes what one training logs as the last round of `path`, a complete file at any moment."""

    def __init__(self, path: Path) -> None:
        self.path, self.earlier, self.written = path, read_rounds(path), 0.0

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if time.monotonic() - self.written > WRITE_SECONDS:
            self.write(state)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.write(state)

    def write(self, state: TrainerState) -> None:
        """Replace the file atomically, for those who read it meanwhile."""
        if not state.is_world_process_zero:
            return
        self.written = time.monotonic()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self.path, json.dumps([*self.earlier, losses(state)]))


def losses(state: TrainerState) -> list[dict[str, Any]]:
    """Return the entries of a trainer's log that hold a loss; the last one is that of the whole training."""
    return [entry for entry in state.log_history if "loss" in entry or "train_loss" in entry]


def reporting_arguments(bench: Bench) -> dict[str, Any]:
    """Return the training arguments of the trackers that the recipe names; each round of a trial is a run of its own.

    TensorBoard's callback takes its folder from the environment only, which is this process's alone.
    """
    if not bench.machinery.reporting:
        return {"report_to": "none"}
    done = len(read_rounds(bench.out / CURVES))
    folder, name = bench.out / "tensorboard", bench.machinery.reporting["run_name"]
    if done:
        folder, name = folder / f"round-{done + 1}", f"{name} round {done + 1}"
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(folder)
    return {**bench.machinery.reporting, "run_name": name}


def guard_trackers(trainer: Trainer, bench: Bench) -> None:
    """A tracker that fails is left out for the rest of the training, and the trial's report says so."""
    from transformers.integrations import get_reporting_integration_callbacks

    trackers = tuple(get_reporting_integration_callbacks(trainer.args.report_to))
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, trackers):
            for event in [name for name in dir(callback) if name.startswith("on_")]:
                setattr(callback, event, _guarded(callback, event, bench))


def _guarded(callback: TrainerCallback, event: str, bench: Bench) -> Any:
    call = getattr(callback, event)
    name = type(callback).__name__

    @functools.wraps(call)
    def guarded(*positional: Any, **named: Any) -> None:
        if name in bench.report.get("tracking", {}):
            return
        try:
            call(*positional, **named)
        except Exception as error:
            traceback.print_exc()
            bench.report.setdefault("tracking", {})[name] = f"stopped at {event}: {type(error).__name__}: {error}"

    return guarded
