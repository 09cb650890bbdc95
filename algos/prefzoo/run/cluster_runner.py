"""Run the stages of a plan as jobs of an engine; the comparison's folder is the only state."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace

from prefzoo.errors import PrefzooError
from prefzoo.run.cluster_settings import Cluster
from prefzoo.run.engines import Engine
from prefzoo.run.executor import Outcome, Runner
from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stage_job import VISIBLE_SECONDS, Attempt, Ended, JobFolder, StageJob

LOOK_SECONDS = 1.0
ASK_SECONDS = 10.0
"""Between two questions to the engine, which has others to serve."""
GRACE_SECONDS = 15.0
"""From when the engine has no job any more until it counts as lost: what it wrote last may still be on its way."""


class ClusterRunner(Runner):
    """Hands stages to an engine, and takes over those that an earlier call has handed to it.

    Args:
        cluster: the settings.
        engine: what runs the jobs.
        minutes: the limit of a stage's job; None is none.
    """

    def __init__(
        self,
        plan: Plan,
        job: Callable[..., None],
        watcher: Watcher,
        more: Callable[[Stage, Outcome], Iterable[Stage]],
        cluster: Cluster,
        engine: Engine,
        minutes: Callable[[Stage], int | None],
    ) -> None:
        super().__init__(plan, job, cluster.max_jobs, watcher, more)
        self.cluster, self.engine, self.minutes = cluster, engine, minutes
        self.given: dict[str, tuple[Stage, Attempt]] = {}
        self.looked: set[str] = set()
        self.tries: Counter[str] = Counter()
        self.gone: dict[str, float] = {}
        self.asked = 0.0

    def run(self) -> dict[str, Outcome]:
        """Run the stages that are not done, and return how each ended. A Ctrl-C cancels the jobs; a kill leaves them.

        Raises:
            PrefzooError: when the engine takes no jobs.
        """
        waiting, settled = self._not_ended(), -1
        self.waiting = waiting
        try:
            while waiting or self.given:
                while settled != len(self.outcomes):  # looking for results asks a file server
                    settled = len(self.outcomes)
                    self._settle(waiting)
                self._adopt([stage for stage in waiting.values() if self._ready(stage)])
                ready = [stage for stage in waiting.values() if self._ready(stage)]
                if free := ready[: max(0, self.workers - len(self.given))]:
                    self._submit(free)
                self._look()
                self.watcher.tick()
                if self.given:
                    time.sleep(LOOK_SECONDS)
        except KeyboardInterrupt:
            self.engine.cancel([attempt for _, attempt in self.given.values()])
            for stage, attempt in self.given.values():
                self._save_end(stage, Ended(attempt.id, "failed", "cancelled by Ctrl-C", lost=True))
            raise
        return self.outcomes

    def _adopt(self, stages: Iterable[Stage]) -> None:
        """Take over the jobs of an earlier call that still wait or run."""
        found = {}
        for stage in stages:
            folder = JobFolder.of(self.plan.out, stage)
            if stage.name not in self.looked and (attempt := folder.attempt) and folder.ended is None:
                found[stage.name] = (stage, attempt)
            self.looked.add(stage.name)
        for name, (stage, attempt) in found.items():
            self.given[name] = (stage, attempt)
            del self.waiting[name]
            self.watcher.started(stage)
        self.asked = 0.0 if found else self.asked

    def _submit(self, stages: list[Stage]) -> None:
        limits = {stage.name: self.minutes(stage) for stage in stages}
        for minutes in dict.fromkeys(limits.values()):
            batch = f"prefzoo-{uuid.uuid4().hex[:12]}"
            jobs: list[StageJob] = []
            for stage in (stage for stage in stages if limits[stage.name] == minutes):
                folder = JobFolder.of(self.plan.out, stage)
                before = folder.attempt
                index = len(jobs)
                lost = before.lost if before is not None and self.tries[stage.name] else ()
                if (ended := folder.ended) is not None and ended.lost:
                    lost = (*lost, str(ended.error))
                attempt = Attempt(f"{batch}-{index}", stage.name, self.cluster.executor, batch, index, lost=lost)
                folder.save("attempt", asdict(attempt))  # first, so that no job is ever unknown here
                jobs.append(StageJob.of(attempt, self.plan, stage, self.job, self.cluster.cpus))
                self.given[stage.name] = (stage, attempt)
                del self.waiting[stage.name]
                self.watcher.started(stage)
            try:
                names = self.engine.submit(jobs, minutes)
            except PrefzooError as error:
                for job in jobs:
                    job.folder.save("ended", asdict(Ended(job.attempt.id, "failed", str(error), lost=True)))
                    del self.given[job.attempt.stage]
                raise
            for job, name in zip(jobs, names, strict=True):
                stage, attempt = self.given[job.attempt.stage]
                self.given[stage.name] = (stage, replace(attempt, job=name))
                job.folder.save("attempt", asdict(self.given[stage.name][1]))

    def _look(self) -> None:
        """Take in what the jobs have written, and ask the engine now and then for those that write nothing."""
        silent = []
        for stage, attempt in list(self.given.values()):
            folder = JobFolder.of(self.plan.out, stage)
            if (ended := folder.ended) is None:
                silent.append((stage, attempt))
                if now := folder.read("progress"):
                    self.watcher.progressed(stage, now["activity"], now["done"], now["total"])
                continue
            if ended.status == "ok" and not stage.done and not self._overdue(stage, VISIBLE_SECONDS):
                continue
            self.gone.pop(stage.name, None)
            del self.given[stage.name]
            if ended.lost:
                self._try_again(stage, str(ended.error))
            elif ended.status == "ok" and not stage.done:
                self._try_again(stage, f"{stage.folder} is not there, though its job ended well")
            else:
                self._end(stage, Outcome(ended.status, ended.error, ended.seconds))
        if not silent or time.monotonic() - self.asked < ASK_SECONDS:
            return
        self.asked = time.monotonic()
        if (alive := self.engine.alive(attempt for _, attempt in silent)) is None:
            return
        for stage, attempt in silent:
            if attempt.id in alive:
                self.gone.pop(stage.name, None)
            elif JobFolder.of(self.plan.out, stage).ended is None and self._overdue(stage, GRACE_SECONDS):
                self._save_end(stage, Ended(attempt.id, "failed", self.engine.lost(attempt), lost=True))

    def _overdue(self, stage: Stage, seconds: float) -> bool:
        """Whether this was asked for the first time so long ago."""
        return time.monotonic() - self.gone.setdefault(stage.name, time.monotonic()) >= seconds

    def _try_again(self, stage: Stage, why: str) -> None:
        self.tries[stage.name] += 1
        tries, most = self.tries[stage.name], self.cluster.retries
        if tries > most:
            self._end(
                stage, Outcome("failed", f"its job was lost {tries} times (retries: {most}), the last time: {why}")
            )
        else:
            self.watcher.lost(stage, f"its job was lost and is submitted again ({tries} of {most}): {why}")
            later = dict(self.waiting)
            self.waiting.clear()
            self.waiting.update({stage.name: stage, **later})  # it was begun before them, and others may need it

    def _save_end(self, stage: Stage, ended: Ended) -> None:
        JobFolder.of(self.plan.out, stage).save("ended", asdict(ended))
