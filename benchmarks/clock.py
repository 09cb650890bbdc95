"""A clock for trainers. Imports nothing of this project, so that it serves another environment's Python too."""

from __future__ import annotations

import time

from transformers import TrainerCallback


class Clock(TrainerCallback):
    """When each update was done, by the clock and by the processor, and the mean score of its replies.

    Args:
        score: what that is called in the trainer's log; None keeps no scores.
    """

    def __init__(self, score: str | None = None) -> None:
        self.score = score
        self.times: list[tuple[float, float]] = []
        self.scores: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        self.times.append((time.perf_counter(), time.process_time()))

    def on_log(self, args: object, state: object, control: object, logs: dict[str, float], **_: object) -> None:
        if self.score is not None and self.score in logs:
            self.scores.append(logs[self.score])
