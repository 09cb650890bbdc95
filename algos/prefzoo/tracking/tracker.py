"""Keep Weights & Biases up to date while a comparison runs, from a process of its own.

That process reads what the stages leave on disk and nothing else, so that a tracker that is slow, down, broken or
missing can neither hold up a trial nor change what it computes, and finished stages can be logged later.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from prefzoo.run.stage_graph import Plan
from prefzoo.run.subprocesses import interrupt_blocked, main_hidden
from prefzoo.tracking.wandb_state import read_state, write_state

INIT_SECONDS = 20.0
"""How long a server may take to answer before runs are kept offline instead."""
FINISH_SECONDS = 60.0
"""How long one run's last uploads may take; artifacts get longer."""
MARGIN_SECONDS = 15.0
STOP_SECONDS = 5.0


class Tracker:
    """The comparison's end of the tracking process; a context that ends it.

    Args:
        plan: what is run; its recipe says whether and how it is tracked.
        console: where the one line goes that says where the runs are.
    """

    def __init__(self, plan: Plan, console: Console) -> None:
        self.plan, self.console = plan, console
        self.process: Any = None

    def __enter__(self) -> Tracker:
        if not disabled(self.plan):
            context = multiprocessing.get_context("spawn")
            self.connection, theirs = context.Pipe()
            settings = {label: asdict(self.plan.recipe.algorithm(label)) for label in self.plan.recipe.algorithms}
            arguments = (self.plan.out.resolve(), settings, theirs, INIT_SECONDS, FINISH_SECONDS)
            self.process = context.Process(target=_work, args=arguments, name="tracking", daemon=True)
            with interrupt_blocked(), main_hidden():
                self.process.start()
            theirs.close()
        return self

    def finish(self) -> None:
        """Have everything logged that is not logged yet, from the results on disk, and wait for it.

        What went wrong is kept for `problems`; nothing is raised.
        """
        found: list[str] = []
        if self.process is not None:
            with contextlib.suppress(OSError):  # it may have ended already; what it said before is still to be read
                self.connection.send("finish")
            try:
                self._listen(found)
            except (EOFError, OSError):
                self.process.join(STOP_SECONDS)
                found.append(f"Weights & Biases: its process ended with exit code {self.process.exitcode}.")
        with contextlib.suppress(OSError):  # a full disk has been told of by the stages
            note_problems(self.plan.out, found)

    def _listen(self, found: list[str]) -> None:
        patience = INIT_SECONDS + FINISH_SECONDS
        while self.connection.poll(patience + MARGIN_SECONDS):
            what, content = self.connection.recv()
            if what == "problem":
                found.append(content)
            elif what == "said":
                self.console.print(content, markup=False, highlight=False, soft_wrap=True)
            elif what == "busy":
                patience = content
            else:
                return
        found.append(f"Weights & Biases: no answer for {patience + MARGIN_SECONDS:.0f} seconds; given up.")

    def __exit__(self, *error: object) -> None:
        if self.process is not None:
            self.connection.close()  # it sees that, and ends by itself
            self.process.join(STOP_SECONDS)
            if self.process.is_alive():
                self.process.kill()


def disabled(plan: Plan) -> bool:
    """Whether nothing is to be tracked, as far as the recipe and the environment say."""
    mode = plan.recipe.tracking.wandb.mode
    return mode == "disabled" or (mode == "auto" and os.environ.get("WANDB_MODE") == "disabled")


def problems(out: Path) -> list[str]:
    """What a reader of the results must know about the last tracking of this comparison."""
    return read_state(out)["problems"]


def note_problems(out: Path, found: list[str]) -> None:
    """Keep the first of them: the others follow from it, and are in the log."""
    state = read_state(out)
    if found[:1] != state["problems"]:
        write_state(out, {**state, "problems": found[:1]})


def _work(*arguments: Any) -> None:
    from prefzoo.tracking.wandb_process import work

    work(*arguments)
