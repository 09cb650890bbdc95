"""Stages as jobs of a real Slurm: the numbers of one machine, whatever is killed meanwhile (make test-slurm)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_comparison import CODE, Comparison, is_running, process_of
from slurm_node import SlurmNode

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]
SETTINGS = "executor: slurm\ntime: 20\nmax_jobs: 4\npartition: tests\nflags: {comment: a test}\n"


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with SlurmNode(tmp_path_factory.mktemp("node") / "slurm") as node:
        yield node


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    comparison = Comparison(tmp_path_factory.mktemp("local") / "run", os.environ)
    comparison.finish(comparison.start())
    return comparison.numbers()


@pytest.fixture
def comparison(node, tmp_path) -> Comparison:
    (tmp_path / "slurm.yaml").write_text(SETTINGS)
    return Comparison(tmp_path / "run", node.environment, tmp_path / "slurm.yaml")


def test_what_is_killed_and_cancelled_on_slurm_ends_as_on_one_machine(node, comparison, local) -> None:
    process = comparison.start()
    (killed,) = comparison.until(process, lambda status: is_running(status, "train sft"))[:1]
    process_of(comparison, killed).kill()
    cancelled = comparison.until(process, lambda status: [n for n in is_running(status, "train") if n != killed])[0]
    node.run("scancel", comparison.attempts()[cancelled]["job"])
    going_on = comparison.until(
        process, lambda s: [n for n in is_running(s, "evaluate") if n not in (killed, cancelled)]
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = comparison.attempts()
    status = comparison.status()
    comparison.finish(comparison.start())

    assert comparison.numbers() == local
    after = comparison.attempts()
    for name in going_on:
        assert after[name]["id"] == before[name]["id"], "it was taken over, not submitted again"
    assert {name for name, attempt in after.items() if attempt["lost"]} == {killed, cancelled}
    assert "CANCELLED" in after[cancelled]["lost"][0]
    started = [log.read_text().count("Starting with") for log in comparison.out.glob("jobs/slurm/*_log.out")]
    assert sum(started) == len(after) + 2 == 32, "nothing ran twice but what was killed"
    assert any("_" in attempt["job"] for attempt in after.values()), "what is ready together is an array"
    assert status[going_on[0]].where.startswith(os.uname().nodename) and status[going_on[0]].seconds > 0
    assert {each.state for each in comparison.status().values()} == {"done"}
    comparison.check_memory()


def test_ctrl_c_cancels_the_jobs_and_the_same_command_goes_on(node, comparison) -> None:
    process = comparison.start()
    comparison.until(process, lambda status: is_running(status, "start") or is_running(status, "train"))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    node.until(lambda: not node.run("squeue", "--noheader"), "the end of all jobs")
    refused = subprocess.run(
        [sys.executable, "-c", CODE, "status", str(comparison.out), "--log", "train stf seed 0"],
        env=node.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert refused.returncode == 2 and "Did you mean 'train sft seed 0'?" in refused.stderr
    process = comparison.start()
    comparison.until(process, lambda status: is_running(status, "train sft"))
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130


def test_a_partition_that_is_not_there_is_told_and_nothing_stays(comparison) -> None:
    Path(comparison.more[1]).write_text(SETTINGS.replace("partition: tests", "partition: nosuch"))
    assert comparison.start().wait(120) == 2
    text = " ".join(comparison.log.read_text().split())
    assert "sbatch refused the jobs" in text and "invalid partition specified: nosuch" in text
    Path(comparison.more[1]).write_text("executor: local\n")
    process = comparison.start()
    comparison.until(process, lambda status: status["data"].state == "done")  # the folder is not blocked
    process.terminate()
    process.wait()
