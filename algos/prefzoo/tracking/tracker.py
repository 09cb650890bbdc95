"""Keep Weights & Biases up to date while a comparison runs, from a process that nothing waits for without a limit.

The process (`wandb_process`) reads what the stages leave on disk, so that an outage, a hang or a broken wandb changes
no result (docs/decisions/0005).
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import tempfile
from typing import Any

from prefzoo.registry import settings_of
from prefzoo.run.stage_graph import Plan
from prefzoo.run.subprocesses import interrupt_blocked, main_hidden
from prefzoo.tracking.wandb_process import read_state, track, write_state

INIT_SECONDS = 20.0
"""How long a server may take to answer before runs are kept offline instead."""
FINISH_SECONDS = 60.0
"""How long one run's last uploads may take; artifacts get longer."""
MARGIN_SECONDS = 15.0
STOP_SECONDS = 5.0


class Tracker:
    """A context in which `plan` is tracked, if its recipe says so.

    Attributes:
        location: after `finish`, a line that says where it was logged; empty where nothing was.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan, self.location = plan, ""
        self.process: Any = None

    def __enter__(self) -> Tracker:
        mode = self.plan.recipe.tracking.wandb.mode
        if mode != "disabled" and not (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled"):
            context = multiprocessing.get_context("spawn")
            self.connection, child_connection = context.Pipe()
            settings = {label: settings_of(self.plan.recipe.algorithm(label)) for label in self.plan.recipe.algorithms}
            self.scratch = tempfile.mkdtemp(prefix="prefzoo-wandb-")  # short: a socket of wandb's lies in it
            arguments = (
                self.plan.out.resolve(),
                settings,
                child_connection,
                INIT_SECONDS,
                FINISH_SECONDS,
                self.scratch,
            )
            self.process = context.Process(target=track, args=arguments, name="tracking", daemon=True)
            with interrupt_blocked(), main_hidden():
                self.process.start()
            child_connection.close()
        return self

    def finish(self) -> None:
        """Wait until everything is logged. What went wrong is saved in the state; nothing is raised."""
        problems = []
        if self.process is not None:
            with contextlib.suppress(OSError):  # it may have ended already; its messages are still to be read
                self.connection.send("finish")
            try:
                problems = self._receive()
            except (EOFError, OSError):
                self.process.join(STOP_SECONDS)
                problems = [f"Weights & Biases: its process ended with exit code {self.process.exitcode}."]
        state = read_state(self.plan.out)
        if problems[:1] != state["problems"]:
            with contextlib.suppress(OSError):  # the stages report a full disk
                write_state(self.plan.out, {**state, "problems": problems[:1]})  # later ones follow from the first

    def _receive(self) -> list[str]:
        """Read messages until the process is done or silent for too long; return the problems that it reports."""
        problems = []
        patience = INIT_SECONDS + FINISH_SECONDS
        while self.connection.poll(patience + MARGIN_SECONDS):
            kind, content = self.connection.recv()
            if kind == "problem":
                problems.append(content)
            elif kind == "location":
                self.location = content
            elif kind == "busy":
                patience = content
            else:
                return problems
        return [*problems, f"Weights & Biases: no answer for {patience + MARGIN_SECONDS:.0f} seconds; given up."]

    def __exit__(self, *error: object) -> None:
        if self.process is not None:
            self.connection.close()  # the process sees that and ends by itself
            self.process.join(STOP_SECONDS)
            if self.process.is_alive():
                self.process.kill()
                self.process.join(STOP_SECONDS)
            shutil.rmtree(self.scratch, ignore_errors=True)
