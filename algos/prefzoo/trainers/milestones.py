"""Milestones: policies that a training saves on its way, to be measured too."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from prefzoo.interface import MILESTONES, Bench, Policy
from prefzoo.trainers.charging import Charging
from prefzoo.trainers.divided_weights import whole_model

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

TRAININGS = "trainings"
"""In `Bench.memory`: how many trainings of the policy the trial has begun."""


class Milestones(TrainerCallback):
    """Keeps the bench's number of policies at equal shares of a training's optimizer steps.

    Until the training ends they lie beside its checkpoints, which outlive a kill: those from before the checkpoint that
    it goes on from stay, later ones are kept anew. There they are as deep in the trial's folder as in the end, because
    a saved policy knows its start by a relative path.

    Args:
        bench: where they are kept in the end.
        trainer, charging: of the training.
        folder: of the training's checkpoints, which no other training of the trial has.
        policy: makes a policy of the trainer's model.
    """

    def __init__(
        self, bench: Bench, trainer: Trainer, charging: Charging, folder: Path, policy: Callable[[Any], Policy]
    ) -> None:
        self.bench, self.trainer, self.charging, self.policy = bench, trainer, charging, policy
        self.folder = folder
        self.number = bench.machinery.memory[TRAININGS] = bench.machinery.memory.get(TRAININGS, 0) + 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any
    ) -> None:
        self.steps = shares(state.max_steps, self.bench.machinery.milestones)
        if len(self.steps) < self.bench.machinery.milestones:
            self.bench.report.setdefault("milestones_too_few_steps", []).append(
                {"training": self.number, "steps": state.max_steps, "kept": len(self.steps)}
            )
        if state.is_world_process_zero:
            for i, step in enumerate(self.steps):
                if step > state.global_step:
                    shutil.rmtree(self._folder_of(i), ignore_errors=True)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if state.global_step not in self.steps:
            return
        ledger = self.charging.so_far()
        name = f"step {state.global_step} of {state.max_steps}"
        began = time.perf_counter()
        policy = self.policy(whole_model(self.trainer))
        self.bench.ledger.seconds -= time.perf_counter() - began  # as `keep` does with those of saving
        title = name if self.number == 1 else f"training {self.number}, {name}"
        self.bench.keep(policy, title, ledger, self._folder_of(self.steps.index(state.global_step)))

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        if not state.is_world_process_zero:
            return
        milestones = self.bench.out / MILESTONES
        milestones.mkdir(exist_ok=True)
        before = len(list(milestones.iterdir()))
        for i in range(len(self.steps)):
            self._folder_of(i).rename(milestones / f"{before + i:02d}")

    def _folder_of(self, i: int) -> Path:
        return self.folder.with_name(f"{self.folder.name}-milestone-{i:02d}")


def shares(steps: int, parts: int) -> list[int]:
    """Return the steps after 1, 2, .. of `parts` + 1 equal shares of a training; fewer where it has too few steps."""
    wanted = {round(steps * i / (parts + 1)) for i in range(1, parts + 1)}
    return sorted(step for step in wanted if 0 < step < steps)
