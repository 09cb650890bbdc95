"""Shows a person what runs, how far it is and how long it will take; line by line when nobody is at a terminal."""

from __future__ import annotations

import time
from collections import defaultdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from prefzoo.comparison.plan import Stage


class Watcher:
    """Is told what the runner does, and tells the person.

    Args:
        total: how many stages there are.
        workers: how many run at a time; for the estimate of the time left.
        console: where to write.
    """

    def __init__(self, total: int, workers: int, console: Console) -> None:
        self.total, self.workers, self.console = total, workers, console
        self.ended_stages = 0
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.left: dict[str, int] = defaultdict(int)
        self.tasks: dict[str, TaskID] = {}
        self.said = time.monotonic()
        self.began = time.monotonic()
        self.doing: dict[str, str] = {}
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
        """What is still to be run."""
        for stage in stages:
            self.left[self._sort(stage)] += 1

    def started(self, stage: Stage) -> None:
        """A stage began."""
        self.doing[stage.name] = ""
        self.tasks[stage.name] = self.bars.add_task(f"  {stage.name}", total=None, note="starting")

    def progressed(self, stage: Stage, what: str, done: int, total: int) -> None:
        """A stage is `done` of `total` through `what`."""
        self.doing[stage.name] = f"{what} {done}/{total}"
        self.bars.update(self.tasks[stage.name], completed=done, total=total, note=what)

    def ended(self, stage: Stage, status: str, error: str | None, seconds: float, reused: bool) -> None:
        """A stage ended: `ok`, `failed` or `skipped`; `reused` when its result was there already."""
        self.ended_stages += 1
        self.doing.pop(stage.name, None)
        if stage.name in self.tasks:
            self.bars.remove_task(self.tasks.pop(stage.name))
        if not reused and status != "skipped":
            self.seconds[self._sort(stage)].append(seconds)
        self.left[self._sort(stage)] = max(0, self.left[self._sort(stage)] - 1)
        self.bars.update(self.overall, completed=self.ended_stages, note=self.time_left())
        place = f"[{self.ended_stages}/{self.total}]"
        if status == "failed":
            self.console.print(f"{place} {stage.name}: FAILED: {error}", style="red", markup=False, highlight=False)
        elif status == "ok" and not self.console.is_terminal:
            how = "already there" if reused else f"{seconds:.1f} s"
            self.console.print(f"{place} {stage.name}: {how}{self._and_left()}", markup=False, highlight=False)
        self.said = time.monotonic()

    def tick(self) -> None:
        """Called every second or so: without a terminal, says every half minute that it is alive."""
        if not self.console.is_terminal and time.monotonic() - self.said > 30:
            self.said = time.monotonic()
            busy = "; ".join(f"{name}: {what}" if what else name for name, what in self.doing.items())
            self.console.print(f"[{self.ended_stages}/{self.total}] running {busy}", markup=False, highlight=False)

    def time_left(self) -> str:
        """An estimate from the stages of each sort that have ended; empty while there is nothing to go by."""
        known = {sort: sum(times) / len(times) for sort, times in self.seconds.items() if times}
        if not known:
            return ""
        usual = sum(known.values()) / len(known)
        work = sum(count * known.get(sort, usual) for sort, count in self.left.items())
        minutes, seconds = divmod(int(work / self.workers), 60)
        return f"about {minutes}:{seconds:02d} left" if self.ended_stages < self.total else ""

    def _and_left(self) -> str:
        left = self.time_left()
        return f" ({left})" if left else ""

    def _sort(self, stage: Stage) -> str:
        return f"{stage.kind} {stage.label}"
