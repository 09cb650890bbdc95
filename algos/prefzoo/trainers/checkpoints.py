"""Checkpoints, from which a killed training goes on to the same numbers.

transformers' Trainer keeps the optimizer, the schedule, the random states and the place in the data. What it does not
keep, or not for several adapters on one model, is kept here: all trained weights, the rollout that is being learned
from, running averages, the ledger.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import transformers.trainer
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from prefzoo.atomic_files import text_sha256
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS, Bench
from prefzoo.trainers.divided_weights import divide_on_cpus, keep_precision, set_trained_weights, trained_weights

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

CHECKPOINT_INTERVAL_SECONDS = 60.0
"""How much work a kill may cost: the next optimizer step after this time is followed by a checkpoint. Where writing one
takes c seconds, c above 1, it is c times as long, so that large models do not spend their time on writing."""

WEIGHTS, EXTRA_STATE_FILE, COMPLETE_MARKER = "trained.safetensors", "rest-{}.pt", "whole"
TRAINER_STATE_ATTRIBUTES = (
    "_tr_loss",
    "_total_loss_scalar",
    "_globalstep_last_logged",
    "_initial_global_step",
    "_total_train_tokens",
    "_step",
    "_buffered_inputs",
    "_current_train_step_time",
    "average",
    "kl_coefficient",
    "pairs_ahead",
    "reference_weights",
    "target_heads",
    "target_heads_step",
)
"""Attributes of trainers that a training depends on; a trainer has some of them."""


class Resumable:
    """Mixed into a trainer class: its checkpoints hold the weights that are trained, of every adapter and head."""

    epochs_done = 0

    def create_accelerator_and_postprocess(self: Any) -> None:
        divide_on_cpus()
        super().create_accelerator_and_postprocess()  # type: ignore[misc]
        keep_precision(self)

    def save_model(self: Any, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write what is trained; the frozen base is where it was."""
        assert output_dir is not None
        weights = trained_weights(self)
        if self.args.should_save:
            Path(output_dir).mkdir(parents=True, exist_ok=True)
            save_file(weights, Path(output_dir) / WEIGHTS)

    def _save_optimizer_and_scheduler(self: Any, output_dir: str) -> None:
        """transformers would write divided weights a second time."""
        with mock.patch.object(transformers.trainer, "save_fsdp_model", lambda *args, **more: None):
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]

    def create_model_card(self, *args: Any, **more: Any) -> None:
        """A checkpoint is not a release."""

    def _load_from_checkpoint(self: Any, folder: str, model: Any = None) -> None:
        set_trained_weights(self.accelerator.unwrap_model(model or self.model), load_file(Path(folder) / WEIGHTS))
        state = json.loads((Path(folder) / "trainer_state.json").read_text(encoding="utf-8"))
        self.epochs_done = int(state["epoch"])

    def _get_train_sampler(self: Any, *args: Any, **more: Any) -> Any:
        """TRL's sampler draws each epoch's order from a generator of its own, which must be as far as it was."""
        sampler = super()._get_train_sampler(*args, **more)  # type: ignore[misc]
        for _ in range(self.epochs_done):
            deque(sampler, maxlen=0)
        return sampler


def resumable(trainer_class: Any) -> Any:
    """Return `trainer_class` with `Resumable` mixed in, under its own name."""
    return type(trainer_class.__name__, (Resumable, trainer_class), {})


class Checkpoints(TrainerCallback):
    """Saves a training every `CHECKPOINT_INTERVAL_SECONDS`, and restores what transformers' Trainer does not.

    Args:
        bench: whose folder they are in and whose ledger is kept.
        trainer: built by a class that `resumable` returned.
    """

    def __init__(self, bench: Bench, trainer: Trainer) -> None:
        self.bench, self.trainer = bench, trainer
        self.began = self.saved = self.step_ended = time.monotonic()
        self.cost, self.already = 0.0, bench.ledger.seconds
        self.folder = bench.out / CHECKPOINTS / _key(trainer)
        trainer.args.output_dir = str(self.folder)
        self.resumed = self.latest()
        self.step = int(self.resumed.name.rpartition("-")[2]) if self.resumed else 0

    def train(self) -> None:
        """Train, from the latest checkpoint where there is one.

        Raises:
            PrefzooError: when that checkpoint cannot be used; the next call begins anew.
        """
        try:
            self.trainer.train(resume_from_checkpoint=str(self.resumed) if self.resumed else None)
        except Exception as error:
            if self.resumed is None or self.trainer.state.global_step > self.step:
                raise
            shutil.rmtree(self.folder, ignore_errors=True)
            raise PrefzooError(
                f"the checkpoint {self.resumed} could not be used ({error}); run again to begin anew"
            ) from error

    def latest(self) -> Path | None:
        """Return the newest checkpoint that was written to its end."""
        complete = [p for p in self.folder.glob("checkpoint-*") if (p / COMPLETE_MARKER).exists()]
        return max(complete, key=lambda p: int(p.name.rpartition("-")[2]), default=None)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        if self.resumed is None:
            return
        extra_state = torch.load(self.resumed / EXTRA_STATE_FILE.format(args.process_index), weights_only=True)
        for name, value in extra_state["trainer"].items():
            setattr(self.trainer, name, value)
        for mode, metrics in extra_state["metrics"].items():
            self.trainer._metrics[mode].update(metrics)
        # What was done before the training is done or read anew, in this process's own time.
        seconds = self.already + extra_state["ledger"].pop("seconds")
        for name, value in {**extra_state["ledger"], "seconds": seconds}.items():
            setattr(self.bench.ledger, name, value)
        self.bench.machinery.memory.update(extra_state["memory"])
        self.bench.report["resumed_at_step"] = state.global_step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.step_ended = time.monotonic()
        if (
            self.step_ended - self.saved >= CHECKPOINT_INTERVAL_SECONDS * max(1.0, self.cost)
            and state.global_step < state.max_steps
        ):
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.saved = time.monotonic()
        folder = self.folder / f"checkpoint-{state.global_step}"
        ledger = dataclasses.asdict(self.bench.ledger)
        ledger["seconds"] += self.saved - self.began - self.already
        metrics = getattr(self.trainer, "_metrics", {})
        extra_state = {
            "trainer": {
                name: getattr(self.trainer, name) for name in TRAINER_STATE_ATTRIBUTES if hasattr(self.trainer, name)
            },
            "metrics": {mode: dict(values) for mode, values in metrics.items()},
            "ledger": ledger,
            "memory": self.bench.machinery.memory,
        }
        torch.save(extra_state, folder / EXTRA_STATE_FILE.format(args.process_index))
        self.trainer.accelerator.wait_for_everyone()
        if args.should_save:
            (folder / COMPLETE_MARKER).touch()
        self.cost = time.monotonic() - self.step_ended

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if args.should_save:
            shutil.rmtree(self.folder, ignore_errors=True)


def _key(trainer: Trainer) -> str:
    """Return a hash that tells the trainings of one trial apart, so that none takes another's checkpoint."""
    rows = trainer.train_dataset
    some = [len(rows), *(rows[i] for i in (0, len(rows) // 2, len(rows) - 1))]
    content = json.dumps([trainer.args.to_dict(), some], sort_keys=True, default=str)
    return text_sha256(content)[:10]
