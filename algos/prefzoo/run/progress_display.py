"""Show a person what runs, how far it is and how long it will take: as bars in a terminal, as one line that changes in
a notebook, line by line elsewhere."""

from __future__ import annotations

import heapq
import importlib
import json
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from prefzoo.run.stage_graph import PREFLIGHT, Stage

SILENT_SECONDS = 30.0
"""Without a terminal, the longest time without a line while something runs."""


class Watcher:
    """Receives what the runner does, and shows it.

    Args:
        total: how many stages there are.
        workers: how many run at a time; for the estimate of the time left.
        console: where to write.
        clock: returns seconds, from any moment on.
    """

    def __init__(self, total: int, workers: int, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.workers, self.console, self.clock = total, workers, console, clock
        self.ended_stages = 0
        self.took: dict[str, dict[str | None, list[float]]] = defaultdict(lambda: defaultdict(list))
        self.left: dict[str, Stage] = {}
        self.began: dict[str, float] = {}
        self.activities: dict[str, str] = {}
        self.tasks: dict[str, TaskID] = {}
        self.printed = clock()
        self.notebook = _NotebookLine() if console.is_jupyter else None
        self.bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", style="dim"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )

    def __enter__(self) -> Watcher:
        self.bars.start()
        self.overall = self.bars.add_task("comparison", total=self.total, note="")
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def expect(self, stages: list[Stage]) -> None:
        """The stages that are still to be run, in that order; there may be more of them than was thought."""
        self.left = {stage.name: stage for stage in stages}
        self.total = max(self.total, self.ended_stages + len(stages))
        if self.tasks or self.ended_stages:
            self.bars.update(self.overall, total=self.total)

    def say(self, line: str) -> None:
        """Print a line about what ended."""
        self._print(line)
        self.printed = self.clock()

    def started(self, stage: Stage) -> None:
        """A stage began."""
        self.began[stage.name] = self.clock()
        self.activities[stage.name] = ""
        self.tasks[stage.name] = self.bars.add_task(f"  {stage.name}", total=None, note="starting")

    def progressed(self, stage: Stage, activity: str, done: int, total: int) -> None:
        """A stage is `done` of `total` through an activity."""
        self.activities[stage.name] = f"{activity} {done}/{total}"
        self.bars.update(self.tasks[stage.name], completed=done, total=total, note=activity)

    def lost(self, stage: Stage, why: str) -> None:
        """A stage that ran will begin anew."""
        for table in (self.began, self.activities):
            table.pop(stage.name, None)
        self.bars.remove_task(self.tasks.pop(stage.name))
        self.say(f"{stage.name}: {why}")

    def ended(self, stage: Stage, status: str, error: str | None, seconds: float, reused: bool) -> None:
        """A stage ended: `ok`, `failed`, `skipped` or `waiting`; `reused` when its result was there already."""
        self.ended_stages += 1
        for table in (self.left, self.began, self.activities):
            table.pop(stage.name, None)
        if stage.name in self.tasks:
            self.bars.remove_task(self.tasks.pop(stage.name))
        spent = stage.seconds if reused else seconds
        if status == "ok" and spent is not None:
            self.took[stage.kind][stage.label].append(spent)
        self.bars.update(self.overall, completed=self.ended_stages, note=self.time_left())
        if status == "failed":
            self._print(f"{stage.name}: FAILED: {error}", style="red")
        elif status == "waiting" and stage.kind in ("train", "label"):
            self._print(f"{stage.name}: PAUSED: {error}", style="yellow")
        elif self.notebook:
            self._show_running()
        elif status == "ok" and not self.console.is_terminal:
            self._print(f"{stage.name}: {'already there' if reused else f'{seconds:.1f} s'}{self._and_left()}")
        if stage.kind == "data" and status == "ok" and (stage.folder / PREFLIGHT).is_file():
            for note in json.loads((stage.folder / PREFLIGHT).read_text(encoding="utf-8")).get("notes", []):
                self._print(note)
        self.printed = self.clock()

    def tick(self) -> None:
        """Bring the estimate up to date; called every second or so. Without a terminal, print a line now and then."""
        if self.console.is_terminal:
            self.bars.update(self.overall, note=self.time_left())
        elif self.notebook:
            self._show_running()
        elif self.clock() - self.printed > SILENT_SECONDS:
            self.printed = self.clock()
            self._print(self._running())

    def time_left(self) -> str:
        """`about 1:20 left`; `at least 0:40 left` while there is a stage that is like none that has ended; empty when
        nothing has ended yet."""
        usual = {name: self._usual(stage) for name, stage in self.left.items()}
        running = {name: max(0.0, (usual[name] or 0.0) - (self.clock() - at)) for name, at in self.began.items()}
        seconds = round(seconds_left(self.left, {n: s or 0.0 for n, s in usual.items()}, running, self.workers))
        known = None not in usual.values()
        if not self.left or (seconds == 0 and not known):
            return ""
        return f"{'about' if known else 'at least'} {seconds // 60}:{seconds % 60:02d} left"

    def _running(self) -> str:
        running = "; ".join(f"{name}: {doing}" if doing else name for name, doing in self.activities.items())
        return f"running {running}{self._and_left()}"

    def _show_running(self) -> None:
        assert self.notebook is not None
        now = self._running() if self.activities else "done"
        self.notebook.show(f"[{self.ended_stages}/{self.total}] {now}")

    def _print(self, line: str, style: str | None = None) -> None:
        place = f"[{self.ended_stages}/{self.total}]"
        self.console.print(f"{place} {line}", style=style, markup=False, highlight=False)

    def _usual(self, stage: Stage) -> float | None:
        """The mean of the stages of its kind and label that have ended; None while there is none. What training takes
        differs with the algorithm; the other kinds may go by any of their kind."""
        of_kind = self.took[stage.kind]
        alike = [stage.label] if stage.kind in ("train", "tune") or stage.label in of_kind else list(of_kind)
        times = [seconds for label in alike for seconds in of_kind.get(label, ())]
        return sum(times) / len(times) if times else None

    def _and_left(self) -> str:
        left = self.time_left()
        return f" ({left})" if left else ""


class _NotebookLine:
    """A line of a cell's output that is written over again and again, so that a long run does not fill the notebook."""

    def __init__(self) -> None:
        self.handle: Any = None
        self.last = ""

    def show(self, text: str) -> None:
        """Write `text` in the place of what stood there."""
        if self.handle is None:
            display = importlib.import_module("IPython.display").display
            self.handle = display({"text/plain": text}, raw=True, display_id=True)
        elif text != self.last:
            self.handle.update({"text/plain": text}, raw=True)
        self.last = text


def seconds_left(
    left: Mapping[str, Stage], usual: Mapping[str, float], running: Mapping[str, float], workers: int
) -> float:
    """Seconds until all that is left has run, in the order in which the runner will run it.

    Args:
        left: the stages.
        usual: seconds that each takes.
        running: seconds that each of those that run has still to go.
        workers: how many run at a time.
    """
    now = 0.0
    busy = [(seconds, name) for name, seconds in running.items()]
    heapq.heapify(busy)
    unfinished = set(left)
    waiting = [stage for name, stage in left.items() if name not in running]
    while True:
        for stage in [s for s in waiting if unfinished.isdisjoint((*s.needs, *s.after))][: workers - len(busy)]:
            waiting.remove(stage)
            heapq.heappush(busy, (now + usual[stage.name], stage.name))
        if not busy:
            return now
        now, name = heapq.heappop(busy)
        unfinished.discard(name)
