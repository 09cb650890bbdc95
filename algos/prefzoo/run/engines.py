"""Slurm and Ray: submit the jobs of stages, ask what became of them, cancel them; they schedule and place."""

from __future__ import annotations

import contextlib
import logging
import os
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from prefzoo.errors import PrefzooError
from prefzoo.run.cluster_settings import Cluster, Ray, Slurm
from prefzoo.run.stage_job import JOBS, Attempt, StageJob

ENDED_STATES = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED",
                "REVOKED", "TIMEOUT"}  # fmt: skip
"""Of a job of Slurm that will not run any more."""
NAMESPACE = "prefzoo"
SLURM = "slurm"
"""Folder with what submitit writes."""


class Engine(Protocol):
    """What runs jobs."""

    def submit(self, jobs: Sequence[StageJob], minutes: int | None) -> list[str]:
        """Submit jobs of one batch and return what the engine calls them; `minutes` is the limit of each."""

    def alive(self, attempts: Iterable[Attempt]) -> dict[str, str] | None:
        """The ids of those that wait or run, with the engine's word for it; None where it does not answer now."""

    def lost(self, attempt: Attempt) -> str:
        """Why one is no longer alive that has not said how it ended."""

    def cancel(self, attempts: Iterable[Attempt]) -> None:
        """Cancel jobs."""


def engine_of(cluster: Cluster, out: Path) -> Engine:
    """The engine that settings name, for a comparison's folder."""
    return RayEngine(cluster) if isinstance(cluster, Ray) else SlurmEngine(cluster, out)  # type: ignore[arg-type]


class SlurmEngine:
    """Submits by submitit, and asks `squeue`, which knows a job for some minutes after its end without an accounting
    database."""

    def __init__(self, settings: Slurm, out: Path) -> None:
        self.settings, self.folder = settings, out.resolve() / JOBS / SLURM
        self.states: dict[str, str] = {}

    def submit(self, jobs: Sequence[StageJob], minutes: int | None) -> list[str]:
        from submitit import SlurmExecutor
        from submitit.core.utils import FailedJobError, FailedSubmissionError

        settings = self.settings
        asked: dict[str, Any] = {
            "job_name": jobs[0].attempt.batch,
            "time": minutes,
            "cpus_per_task": settings.cpus,
            "array_parallelism": settings.max_jobs,
            "stderr_to_stdout": True,
            "additional_parameters": {**settings.flags, "requeue" if settings.requeue else "no-requeue": True},
            "partition": settings.partition,
            "account": settings.account,
            "gpus_per_node": settings.gpus or None,
            "mem": f"{round(settings.memory * 1024)}M" if settings.memory else None,
        }
        executor = SlurmExecutor(self.folder, max_num_timeout=settings.retries if settings.requeue else 0)
        executor.update_parameters(wckey=None, **{key: value for key, value in asked.items() if value is not None})
        try:
            with _outside_a_job(), executor.batch():
                submitted = [executor.submit(job) for job in jobs]
            return [job.job_id for job in submitted]
        except (FailedJobError, FailedSubmissionError) as error:
            raise PrefzooError(f"sbatch refused the jobs: {' '.join(str(error).split())}") from error

    def alive(self, attempts: Iterable[Attempt]) -> dict[str, str] | None:
        attempts = list(attempts)
        places = {(attempt.batch, attempt.index): attempt.id for attempt in attempts}
        rows = squeue({attempt.batch for attempt in attempts})
        if rows is None:
            return None
        self.states = {places[at]: state for at, state in rows.items() if at in places}
        return {id: state for id, state in self.states.items() if state.split()[0] not in ENDED_STATES}

    def lost(self, attempt: Attempt) -> str:
        told = self.states.get(attempt.id, "nothing of it any more")
        log = f" ({log_of(self.folder, attempt.job)})" if attempt.job else ""
        return f"Slurm says {told} of job {attempt.job or attempt.batch}{log}"

    def cancel(self, attempts: Iterable[Attempt]) -> None:
        names = ",".join({attempt.batch for attempt in attempts})
        subprocess.run(["scancel", f"--name={names}"], check=False, capture_output=True)


def log_of(folder: Path, job: str) -> Path:
    """What a job of Slurm prints, beside the log of its stage."""
    return folder / f"{job}_0_log.out"


@contextlib.contextmanager
def _outside_a_job() -> Iterator[None]:
    """Have sbatch see nothing of the job that this process may be."""
    if "SLURM_JOB_ID" not in os.environ:
        yield
        return
    from submitit.helpers import clean_env

    where = {name: os.environ[name] for name in ("SLURM_CONF",) if name in os.environ}
    with clean_env():
        os.environ.update(where)
        yield


def squeue(batches: Iterable[str]) -> dict[tuple[str, int], str] | None:
    """What Slurm says of the jobs of these names: `(name, index in it)` -> state, reason, hosts; None where it does not
    answer."""
    asked = ["squeue", "--noheader", "--array", "--states=all", "--format=%j|%i|%T|%r|%N"]
    try:
        told = subprocess.run([*asked, f"--name={','.join(batches)}"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if told.returncode:
        return None
    rows: dict[tuple[str, int], str] = {}
    for line in told.stdout.splitlines():
        name, job, state, *more = line.split("|")
        index = job.partition("_")[2]
        rows[name, int(index) if index.isdecimal() else 0] = " ".join(
            [state, *(m for m in more if m not in ("", "None"))]
        )
    return rows


class RayEngine:
    """Detached actors, which outlive the call that began them and are found by name."""

    def __init__(self, settings: Ray) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing here reports to anybody on its own
        import ray

        self.ray, self.settings = ray, settings
        self.actors: dict[str, Any] = {}
        if not ray.is_initialized():
            try:
                ray.init(settings.address, namespace=NAMESPACE, log_to_driver=False, logging_level=logging.ERROR)
            except (ConnectionError, RuntimeError, ValueError) as error:
                words = " ".join(str(error).split())
                raise PrefzooError(f"Ray at {settings.address or 'this machine'} does not answer: {words}") from error

    def submit(self, jobs: Sequence[StageJob], minutes: int | None) -> list[str]:
        settings = self.settings
        asked: dict[str, Any] = {"num_cpus": settings.cpus, "num_gpus": settings.gpus, "resources": settings.resources}
        if settings.memory:
            asked["memory"] = round(settings.memory * 2**30)
        actor = self.ray.remote(_StageActor)
        for job in jobs:
            options = {"name": job.attempt.id, "namespace": NAMESPACE, "lifetime": "detached", "max_restarts": 0}
            self.actors[job.attempt.id] = actor.options(**options, **asked).remote(job, dict(os.environ))
        return [job.attempt.id for job in jobs]

    def alive(self, attempts: Iterable[Attempt]) -> dict[str, str] | None:
        try:
            named = {*self.ray.util.list_named_actors()}
        except self.ray.exceptions.RayError:
            return None
        return {attempt.id: "with Ray" for attempt in attempts if attempt.id in named}

    def lost(self, attempt: Attempt) -> str:
        actor = self.actors.pop(attempt.id, None)
        try:
            self.ray.get(actor.sign.remote(), timeout=5) if actor is not None else None
        except self.ray.exceptions.RayError as error:
            return " ".join(str(error).split())[:400]
        return "Ray has no actor of its name any more"

    def cancel(self, attempts: Iterable[Attempt]) -> None:
        for attempt in attempts:
            with contextlib.suppress(ValueError, self.ray.exceptions.RayError):
                self.ray.kill(self.ray.get_actor(attempt.id, NAMESPACE))


class _StageActor:
    """Begins its job when it is made, so that a controller that is killed meanwhile leaves no actor without work."""

    def __init__(self, job: StageJob, environment: Mapping[str, str]) -> None:
        import threading

        for key, value in environment.items():
            os.environ.setdefault(key, value)
        threading.Thread(target=self._work, args=(job,), daemon=True).start()

    def _work(self, job: StageJob) -> None:
        try:
            job()
        finally:  # free the place; nobody may be there to do it
            import ray

            with contextlib.suppress(ValueError, ray.exceptions.RayError):
                ray.kill(ray.get_actor(job.attempt.id, NAMESPACE))
                time.sleep(60)
            os._exit(0)

    def sign(self) -> None:
        """Answer while it lives."""
