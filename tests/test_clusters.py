"""Stages as jobs: settings, translation into an engine's terms, adoption, retries, locks between hosts, status. Real
engines are in tests/cluster."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from prefzoo.atomic_files import partial_folder
from prefzoo.cli import app
from prefzoo.commands import run_status
from prefzoo.commands.run_folder import locked_folder
from prefzoo.commands.run_status import log_lines, status
from prefzoo.commands.stage_runner import time_limit
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.judges.answer_cache import ON_HOST
from prefzoo.recipe.check_recipe import load
from prefzoo.results.cost_record import Estimate
from prefzoo.run import cluster_runner, host_lock, stage_job
from prefzoo.run.cluster_runner import ClusterRunner
from prefzoo.run.cluster_settings import Ray, Slurm, read_cluster
from prefzoo.run.engines import SlurmEngine
from prefzoo.run.executor import Outcome
from prefzoo.run.host_lock import Held, HostLock, holder_file
from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import Plan, Stage, make_plan
from prefzoo.run.stage_job import Attempt, Ended, JobFolder, StageJob, unended

MISTAKES = """executor: slurm
partiton: gpu
time: 0
gpus: -1
max_jobs: many
address: auto
flags: {output: mine, qos: high}
"""


@pytest.fixture
def programs(tmp_path, monkeypatch) -> Path:
    """Slurm's commands: sbatch keeps its scripts and numbers them from 70, squeue tells what is in `told`."""
    folder = tmp_path / "programs"
    folder.mkdir()
    scripts = {
        "srun": "",
        "sbatch": f'cp "$1" {folder}/script-$(ls {folder} | wc -l)\necho Submitted batch job 70',
        "squeue": f"cat {folder}/told",
        "scancel": f'echo "$@" > {folder}/cancelled',
    }
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{text}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def problems(file: Path) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        read_cluster(file)
    return caught.value.problems


def test_every_mistake_in_the_settings_is_told_at_once(tmp_path, programs, monkeypatch) -> None:
    file = tmp_path / "on.yaml"
    file.write_text(MISTAKES)
    told = {problem.split(": ")[1]: problem for problem in problems(file)}
    assert told.keys() == {"partiton", "time", "gpus", "max_jobs", "address", "flags"}
    assert told["partiton"].startswith("on.yaml:2: partiton: unknown key 'partiton'. Did you mean 'partition'?")
    assert told["time"] == "on.yaml:3: time: 0: must be at least 1 minute, or plan"
    assert told["gpus"] == "on.yaml:4: gpus: must be at least 0 (got -1)"
    assert told["address"] == "on.yaml:6: address: belongs to executor: ray"
    assert "output: set by prefzoo or by a key of this file" in told["flags"] and "qos" not in told["flags"][:60]
    file.write_text("executor: slrum\ncpus: 2\ncpu: 3\n")
    assert "Did you mean 'slurm'?" in problems(file)[0] and "Did you mean 'cpus'?" in problems(file)[1]
    file.write_text("executor: slurm\n")
    assert problems(file) == ["time: is missing"]
    file.write_text("executor: local\nretries: 1\n")
    assert problems(file) == ["on.yaml:2: retries: has no meaning with executor: local; --workers says how many"]
    file.write_text("executor: slurm\ntime: plan\n")
    assert read_cluster(file) == Slurm(time="plan")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch on this machine" in problems(file)[0]
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "ray needs ray: pip install 'prefzoo[ray]'" in problems("ray")[0]
    assert "no such file" in problems(tmp_path / "nosuch")[0]
    assert read_cluster("local") is None
    for arguments, words in (
        (["--on", "slrum"], "Did you mean 'slurm'?"),
        (["--on", "local", "--workers", "0"], "neither a number from 1"),
    ):
        done = CliRunner().invoke(app, ["compare", "quickstart", "--out", str(tmp_path / "run"), *arguments])
        assert done.exit_code != 0 and words in f"{done.exception} {done.output}"
    assert not (tmp_path / "run").exists()


@pytest.fixture
def as_a_job(monkeypatch) -> Iterator[None]:
    """Undoes what a job does to its own process."""
    for name in ("OMP_NUM_THREADS", ON_HOST):
        monkeypatch.setenv(name, os.environ.get(name, "1"))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def plan_of(out: Path, needs: dict[str, tuple[str, ...]]) -> Plan:
    stages = {
        name: Stage(name, "train", out / "trials" / f"{name}-key", needs[name], label=name, seed=0) for name in needs
    }
    return Plan(SimpleNamespace(), out, stages, {})  # type: ignore[arg-type]


def job_of(plan: Plan, name: str, number: int = 0, job=None) -> StageJob:
    attempt = Attempt(f"b-{number}", name, "slurm", "b", number)
    return StageJob.of(attempt, plan, plan.stages[name], job, 2)


def test_jobs_become_one_array_of_sbatch_and_squeue_is_understood(tmp_path, programs) -> None:
    settings = Slurm(time=30, partition="gpu", account="mine", gpus=2, cpus=8, memory=1.5, max_jobs=5, requeue=False,
                     flags={"qos": "high", "exclusive": True})  # fmt: skip
    plan = plan_of(tmp_path / "run", {"a": (), "b": ()})
    engine = SlurmEngine(settings, plan.out)
    jobs = [job_of(plan, "a", 0), job_of(plan, "b", 1)]
    assert engine.submit(jobs, 30) == ["70_0", "70_1"]
    (script,) = programs.glob("script-*")
    lines = {line.removeprefix("#SBATCH --") for line in script.read_text().splitlines() if line.startswith("#SBATCH")}
    assert lines >= {"partition=gpu", "account=mine", "gpus-per-node=2", "cpus-per-task=8", "mem=1536M", "time=30",
                     "array=0-1%2", "job-name=b", "no-requeue", "qos=high", "exclusive"}  # fmt: skip
    attempts = [job.attempt for job in jobs] + [Attempt("c-0", "c", "slurm", "c"), Attempt("d-0", "d", "slurm", "d")]
    (programs / "told").write_text(
        "b|70_0|PENDING|Priority|\nb|70_1|RUNNING|None|node7\nc|71|CANCELLED|None|node8\nother|72|RUNNING|None|node9\n"
    )
    assert engine.alive(attempts) == {"b-0": "PENDING Priority", "b-1": "RUNNING node7"}
    assert engine.lost(attempts[2]) == "Slurm says CANCELLED node8 of job c"
    assert engine.lost(attempts[3]) == "Slurm says nothing of it any more of job d"
    engine.cancel(attempts[:2])
    assert (programs / "cancelled").read_text().split() == ["--name=b"]
    (programs / "squeue").write_text("#!/bin/sh\nexit 1\n")
    assert engine.alive(attempts) is None, "not a word about the jobs"
    (programs / "sbatch").write_text("#!/bin/sh\necho no such account >&2\nexit 1\n")
    with pytest.raises(PrefzooError, match=r"sbatch refused the jobs: .*no such account"):
        engine.submit(jobs[:1], 30)


class Played:
    """An engine that plays what `ends` says of each try at a stage: a word of `Outcome`, `runs`, `lost`, `vanishes`, or
    `unseen` for a result that the file server never shows."""

    def __init__(self, plan: Plan, ends: dict[str, list[str]]) -> None:
        self.plan, self.ends, self.tries, self.most, self.cancelled = plan, ends, list[str](), 0, list[str]()
        self.known: dict[str, str] = {}

    def submit(self, jobs: Sequence[StageJob], minutes: int | None) -> list[str]:
        for job in jobs:
            self.tries.append(job.attempt.stage)
            self.known[job.attempt.id] = job.attempt.stage
        self.most = max(self.most, len(self.known))
        return [f"job {job.attempt.id}" for job in jobs]

    def alive(self, attempts: Iterable[Attempt]) -> dict[str, str]:
        attempts = list(attempts)
        for attempt in attempts:
            if attempt.id in self.known:
                self.play(attempt)
        return {attempt.id: "RUNNING" for attempt in attempts if attempt.id in self.known}

    def play(self, attempt: Attempt) -> None:
        stage, ends = self.plan.stages[attempt.stage], self.ends.get(attempt.stage, [])
        end = ends.pop(0) if ends else "ok"
        if end == "runs":
            return
        del self.known[attempt.id]
        if end == "ok":
            stage.folder.mkdir(parents=True)
        if end != "vanishes":
            word = {"lost": "failed", "unseen": "ok"}.get(end, end)
            ended = Ended(attempt.id, word, None if end == "ok" else f"{end} it is", 1.5, lost=end == "lost")  # type: ignore[arg-type]
            JobFolder.of(self.plan.out, stage).save("ended", asdict(ended))

    def lost(self, attempt: Attempt) -> str:
        return "the node is gone"

    def cancel(self, attempts: Iterable[Attempt]) -> None:
        self.cancelled += [attempt.stage for attempt in attempts]


@pytest.fixture
def at_once(monkeypatch) -> None:
    for name in ("LOOK_SECONDS", "ASK_SECONDS", "GRACE_SECONDS", "VISIBLE_SECONDS"):
        monkeypatch.setattr(cluster_runner, name, 0.01 if name == "LOOK_SECONDS" else 0.0)


def runner_of(plan: Plan, engine, **settings) -> tuple[ClusterRunner, io.StringIO]:
    said = io.StringIO()
    watcher = Watcher(len(plan.stages), 2, Console(file=said, width=300)).__enter__()
    watcher.expect(list(plan.stages.values()))
    cluster = Ray(**settings)
    return ClusterRunner(plan, print, watcher, lambda stage, outcome: (), cluster, engine, lambda stage: None), said


def test_what_is_lost_is_tried_again_so_often_and_what_fails_is_not(tmp_path, at_once) -> None:
    plan = plan_of(tmp_path, {"a": (), "b": ("a",), "c": (), "d": ("c",), "e": (), "of e": ("e",)})
    engine = Played(plan, {"a": ["lost", "vanishes", "ok"], "b": ["unseen", "ok"], "c": ["failed"], "e": ["lost"] * 5})
    runner, said = runner_of(plan, engine, max_jobs=2, retries=2)
    found = runner.run()
    assert {name: outcome.status for name, outcome in found.items()} == {
        "a": "ok", "b": "ok", "c": "failed", "d": "skipped", "e": "failed", "of e": "skipped"}  # fmt: skip
    assert [engine.tries.count(name) for name in plan.stages] == [3, 2, 1, 0, 3, 0]
    assert engine.most == 2, "max_jobs"
    assert found["a"].seconds == 1.5 and found["c"].error == "failed it is"
    assert found["e"].error == "its job was lost 3 times (retries: 2), the last time: lost it is"
    assert "a: its job was lost and is submitted again (2 of 2): the node is gone" in said.getvalue()
    assert "b-key is not there, though its job ended well" in said.getvalue()
    attempt = JobFolder.of(tmp_path, plan.stages["a"]).attempt
    assert attempt and attempt.lost == ("lost it is", "the node is gone"), "the run keeps the reasons"


def test_what_is_lost_comes_before_what_was_never_begun(tmp_path, at_once) -> None:
    """On a busy cluster it would wait for all others, and what needs it longer still."""
    plan = plan_of(tmp_path, {name: () for name in "abcd"} | {"of a": ("a",)})
    engine = Played(plan, {"a": ["lost"], "b": ["runs", "runs"]})
    runner, _ = runner_of(plan, engine, max_jobs=2)
    assert {outcome.status for outcome in runner.run().values()} == {"ok"}
    assert engine.tries[:3] == ["a", "b", "a"] and sorted(engine.tries) == ["a", "a", "b", "c", "d", "of a"]


def test_jobs_of_a_call_that_was_killed_are_taken_over_and_those_that_ended_meanwhile_count(tmp_path, at_once) -> None:
    plan = plan_of(tmp_path, {name: () for name in ("runs", "queued", "ended", "gone", "new")})
    engine = Played(plan, {"runs": ["runs", "runs", "ok"], "ended": ["failed"]})
    for name in ("runs", "queued", "ended", "gone"):
        attempt = Attempt(f"old-{name}", name, "ray", "old")
        JobFolder.of(tmp_path, plan.stages[name]).save("attempt", asdict(attempt))
        if name != "gone":
            engine.known[attempt.id] = name
        if name == "ended":
            engine.play(attempt)
    plan.stages["ended"].folder.mkdir(parents=True)
    assert {attempt.stage for attempt in unended(tmp_path)} == {"runs", "queued", "gone"}
    runner, _ = runner_of(plan, engine, max_jobs=1)
    found = runner.run()
    assert all(outcome.status == "ok" for outcome in found.values())
    assert engine.tries == ["gone", "new"] or engine.tries == ["new", "gone"]
    with pytest.raises(PrefzooError, match=r"x: given to slurm .* call with --on as then"):
        JobFolder(tmp_path / "jobs" / "x-key").save("attempt", asdict(Attempt("i", "x", "slurm", "i")))
        locked_folder("r", tmp_path, Ray()).__enter__()
    with pytest.raises(PrefzooError, match=r"x: given to slurm"):
        locked_folder("r", tmp_path).__enter__()
    with locked_folder("r", tmp_path, Slurm(time=1)):
        pass


def test_ctrl_c_cancels_and_a_kill_leaves(tmp_path, at_once) -> None:
    plan = plan_of(tmp_path, {"a": (), "b": ("a",)})
    for error, cancelled in ((KeyboardInterrupt, ["a"]), (SystemExit, [])):
        engine = Played(plan, {"a": ["runs"] * 100})
        runner, _ = runner_of(plan, engine)
        runner.watcher.tick = lambda error=error: (_ for _ in ()).throw(error)
        with pytest.raises(error):
            runner.run()
        assert engine.cancelled == cancelled
        assert [attempt.stage for attempt in unended(tmp_path)] == ([] if cancelled else ["a"])


def test_a_job_whose_place_another_has_taken_does_nothing_and_one_among_other_versions_says_so(
    tmp_path, as_a_job, monkeypatch
) -> None:
    monkeypatch.setattr(stage_job, "VISIBLE_SECONDS", 0.0)
    plan = plan_of(tmp_path, {"a": (), "b": ("a",)})
    job = job_of(plan, "a")
    job.folder.save("attempt", asdict(replace(job.attempt, id="newer")))
    job()
    assert not (job.folder.path / "ended.json").exists() and not partial_folder(plan.stages["a"].folder).exists()
    job.folder.save("attempt", asdict(job.attempt))
    elsewhere = replace(job, made_with=({**job.made_with[0], "torch": "1.0"}, job.made_with[1]))
    elsewhere()
    ended = job.folder.ended
    assert ended and not ended.lost and "has other versions than where compare ran: torch 1.0 and here" in ended.error
    plan.stages["a"].folder.mkdir(parents=True)
    job = job_of(plan, "b")
    plan.stages["a"].folder.rmdir()
    job.folder.save("attempt", asdict(job.attempt))
    job()
    assert job.folder.ended and job.folder.ended.lost and "does not see the results of a" in job.folder.ended.error


@pytest.mark.faults
def test_a_job_runs_its_stage_as_locally_and_a_process_that_was_killed_is_lost(tmp_path, as_a_job) -> None:
    def work(plan, stage, folder, progress) -> None:
        import os
        import signal

        progress("counting", 3, 7)
        if stage.name == "a":
            raise ValueError("no good")
        if stage.name == "b":
            os.kill(os.getpid(), signal.SIGKILL)
        from prefzoo.judges.answer_cache import AnswerCache

        (folder / "result").write_text(AnswerCache(folder).path.name)

    plan = plan_of(tmp_path, {name: () for name in ("a", "b", "c")})
    ended = {}
    for name in plan.stages:
        job = job_of(plan, name, job=work)
        job.folder.save("attempt", asdict(job.attempt))
        job()
        ended[name] = job.folder.ended
        assert job.folder.read("progress") == {"activity": "counting", "done": 3, "total": 7}
        assert not holder_file(job.folder.path / "lock").exists()
    assert ended["a"].status == "failed" and not ended["a"].lost and "no good" in ended["a"].error
    assert ended["b"].status == "failed" and ended["b"].lost and "SIGKILL" in ended["b"].error
    assert ended["c"].status == "ok" and plan.stages["c"].done
    assert (plan.stages["c"].folder / "result").read_text() == f"answers-{os.uname().nodename}.sqlite"
    assert "no good" in plan.stages["a"].folder.with_name("a-key.log").read_text()


HOLDS = """
import sys, time, pathlib
from prefzoo.run import host_lock
host_lock.BEAT_SECONDS = 0.1
with host_lock.HostLock(pathlib.Path(sys.argv[1])).held(patient=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_lock_holds_on_one_host_and_between_hosts(tmp_path, monkeypatch) -> None:
    path, sign = tmp_path / "lock", holder_file(tmp_path / "lock")
    monkeypatch.setattr(host_lock, "BEAT_SECONDS", 0.1)
    monkeypatch.setattr(host_lock, "EXPIRES_SECONDS", 0.6)

    def take() -> float:
        began = time.monotonic()
        with HostLock(path).held(patient=False):
            return time.monotonic() - began

    holding = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, text=True)
    assert holding.stdout and holding.stdout.readline() == "held\n"
    with pytest.raises(Held, match=f"process {holding.pid} on "):
        take()
    holding.kill()
    holding.wait()
    assert sign.exists() and take() < 0.5, "on one host it ends with its process"
    assert not sign.exists()

    other = {"id": "x", "kernel": "another", "host": "far", "pid": 3}
    sign.write_text(json.dumps(other))
    assert take() > 0.6, "on another host it is dead when it has been silent for so long"
    sign.write_text(json.dumps(other))
    beats = threading.Event()
    beating = threading.Thread(target=lambda: [os.utime(sign) for _ in iter(lambda: beats.wait(0.05), True)])
    beating.start()
    with pytest.raises(Held, match="process 3 on far"):
        take()
    beats.set()
    beating.join()
    monkeypatch.setattr("filelock.FileLock.acquire", lambda *args, **more: (_ for _ in ()).throw(NotImplementedError))
    sign.write_text(json.dumps({**other, "kernel": host_lock.kernel()}))
    assert take() > 0.6, "without locks of the system the file alone decides"


def test_a_holder_who_was_followed_ends_at_once(tmp_path) -> None:
    path = tmp_path / "lock"
    holding = subprocess.Popen([sys.executable, "-c", HOLDS, str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert holding.stdout and holding.stdout.readline()
    other = tmp_path / "other"
    other.write_text(json.dumps({"id": "x"}))
    other.replace(holder_file(path))
    assert holding.wait(20) == host_lock.LOST
    assert b"another process has taken this over" in holding.stderr.read()
    assert json.loads(holder_file(path).read_text()) == {"id": "x"}


def test_status_says_what_runs_where_what_waits_and_what_failed(tmp_path, programs, monkeypatch) -> None:
    now = time.time()
    monkeypatch.setattr(run_status, "time", SimpleNamespace(time=lambda: now))
    plan = make_plan(load("quickstart", ["seeds=1"], ["sft", "dpo"]), tmp_path)
    plan.save()
    (programs / "told").write_text("b|70|PENDING|Priority|\n")
    stages = plan.stages
    stages["data"].folder.mkdir(parents=True)
    (stages["data"].folder / "seconds.txt").write_text("61.0")
    folders = {name: JobFolder.of(tmp_path, stages[name]) for name in ("start", "reward", "train sft seed 0")}
    for name, folder in folders.items():
        attempt = Attempt(f"{name}-id", name, "slurm", "b", 0, "70", now - 90)
        folder.save("attempt", asdict(attempt))
    sign = holder_file(folders["start"].path / "lock")
    sign.write_text(json.dumps({"attempt": "start-id", "host": "node7", "since": now - 125}))
    folders["start"].save("progress", {"activity": "training", "done": 3, "total": 9})
    folders["reward"].save("ended", asdict(Ended("reward-id", "failed", "no good")))
    found = {each.stage: each for each in status(tmp_path)}
    assert (found["data"].state, found["data"].seconds) == ("done", 61.0)
    running = found["start"]
    assert (running.state, running.where, running.what) == ("running", "node7 (slurm 70)", "training 3/9")
    assert running.seconds == pytest.approx(125)
    assert (found["reward"].state, found["reward"].what) == ("failed", "no good")
    queued = found["train sft seed 0"]
    assert (queued.state, queued.what) == ("queued", "PENDING Priority") and queued.seconds == pytest.approx(90)
    assert found["train dpo seed 0"].state == "waiting" and found["train dpo seed 0"].what == "for start"
    os.utime(sign, (0, now - 300))
    assert {each.stage: each for each in status(tmp_path)}["start"].what.startswith("no sign for 300 s")
    shown = CliRunner().invoke(app, ["status", str(tmp_path)]).output
    assert "1 done, 1 running, 1 failed, 1 queued" in shown and "2:05" in shown
    with pytest.raises(PrefzooError, match=r"unknown stage 'strat'. Did you mean 'start'"):
        list(log_lines(tmp_path, "strat"))
    log = stages["start"].folder.with_name(f"{stages['start'].folder.name}.log")
    log.write_text("\n".join(map(str, range(100))))
    assert list(log_lines(tmp_path, "start")) == [str(log), *map(str, range(60, 100))]


def test_limits_of_jobs_come_from_the_estimate(tmp_path) -> None:
    stage = Stage("train dpo seed 0", "train", tmp_path, label="dpo", seed=0)
    assert time_limit(Slurm(time=7), tmp_path)(stage) == 7
    assert time_limit(Ray(), tmp_path)(stage) is None
    with pytest.raises(PrefzooError, match="time: plan needs an estimate"):
        time_limit(Slurm(time="plan"), tmp_path)
    Estimate({}, 1, {"dpo": {"seconds": 600.0}}, {"start, made once": {"seconds": 1200.0}}).save(tmp_path)
    minutes = time_limit(Slurm(time="plan"), tmp_path)
    assert minutes(stage) == 10 + 30
    assert minutes(replace(stage, label=None, kind="start")) == 10 + 60
    assert Outcome("ok").error is None
