"""Ctrl-C: what was found is shown, nothing that is finished is lost, and nobody else's words reach the terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner

import prefzoo
from conftest import SMALL
from prefzoo.cli import app
from prefzoo.conformance.findings import PROMISES, Finding
from prefzoo.results.results_file import load
from prefzoo.run.stage_graph import load_plan
from prefzoo.run.subprocesses import interrupt_blocked

pytestmark = pytest.mark.faults

SLEEPS = """
import os, pathlib, time
from dataclasses import dataclass
import prefzoo

@prefzoo.register("sleeps")
@dataclass(frozen=True)
class Sleeps(prefzoo.Algorithm):
    "Draws a bar and sleeps."

    def train(self, bench):
        from tqdm.auto import tqdm
        for _ in tqdm(range(600)):
            pathlib.Path(os.environ["SLEEPS"]).touch()
            time.sleep(1)
"""

HANGS = """
import os, pathlib, subprocess, time

def score(prompts, completions):
    child = subprocess.Popen(["sleep", "1000"], start_new_session=True)
    pathlib.Path(os.environ["HANGS"]).write_text(f"{os.getpid()} {child.pid}")
    while True:
        try:
            time.sleep(1)
        except BaseException:
            pass
"""


def start(out: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    sets = [part for each in SMALL for part in ("--set", each)]
    code = "from prefzoo.cli import main; main()"
    command = [sys.executable, "-c", code, "compare", "quickstart", *arguments, "--workers", "4", *sets]
    return subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
                            env={**os.environ, **environment}, start_new_session=True)  # fmt: skip


def interrupt(process: subprocess.Popen) -> str:
    """Ctrl-C to the whole group, as a terminal sends it; what the comparison wrote to standard error."""
    os.killpg(process.pid, signal.SIGINT)
    _, written = process.communicate(timeout=120)
    assert process.returncode == 130, written
    assert "interrupted; the same command goes on where it stopped" in written
    for noise in ("Traceback", "leaked", "Warning", "kernels", "bitsandbytes"):
        assert noise not in written, written
    return written


def test_a_reward_function_that_hangs_is_interrupted_and_leaves_no_process(tmp_path) -> None:
    function, seen = tmp_path / "hangs.py", tmp_path / "seen"
    function.write_text(HANGS)
    sets = ["--set", "reward.type=function", "--set", f"reward.path={function}:score"]
    process = start(tmp_path / "run", {"HANGS": str(seen)}, "--algorithms", "ppo", "--seeds", "1", *sets)
    until = time.monotonic() + 400
    while not (seen.exists() and seen.read_text()):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    interrupt(process)
    for pid in map(int, seen.read_text().split()):
        assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_interrupted_comparison_says_so_and_nothing_else_and_goes_on(tmp_path) -> None:
    plugin, seen, out = tmp_path / "sleeps.py", tmp_path / "seen", tmp_path / "run"
    plugin.write_text(SLEEPS)
    more = ["--plugin", str(plugin), "--algorithms", "sleeps,sft", "--seeds", "1"]
    process = start(out, {"SLEEPS": str(seen)}, *more)
    until = time.monotonic() + 400
    while not (seen.exists() and next(out.glob("trials/evaluate-sft-*/sha256.json"), None)):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    time.sleep(1)  # the folder is there before the comparison has heard of it
    assert "train sft seed 0:" in interrupt(process)
    found = load(out)
    assert found.algorithms["sft"].status == "ok" and found.algorithms["sleeps"].status == "skipped"
    times = {path: path.stat().st_mtime_ns for path in out.glob("trials/*sft*") if path.is_dir()}
    again = prefzoo.compare("quickstart", ["sft"], seeds=1, sets=SMALL, out=out)
    assert again.algorithms["sft"] == found.algorithms["sft"]
    assert len(times) == 2 and {path: path.stat().st_mtime_ns for path in times} == times
    assert all((stage.seconds or 0) > 0 for stage in load_plan(out).stages.values())


def test_interrupted_while_the_server_of_stages_still_imports(tmp_path) -> None:
    process = start(tmp_path / "run", {}, "--algorithms", "sft", "--seeds", "1")
    until = time.monotonic() + 60
    while not (tmp_path / "run" / "calls.jsonl").exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.02)
    time.sleep(0.7)
    assert "data:" not in interrupt(process)


def children(process: subprocess.Popen) -> list[psutil.Process]:
    return psutil.Process(process.pid).children(recursive=True)


def test_sigterm_ends_a_comparison_as_ctrl_c_does(tmp_path) -> None:
    plugin, seen, out = tmp_path / "sleeps.py", tmp_path / "seen", tmp_path / "run"
    plugin.write_text(SLEEPS)
    process = start(
        out,
        {"SLEEPS": str(seen)},
        "--plugin",
        str(plugin),
        "--algorithms",
        "sleeps",
        "--seeds",
        "1",
        "--set",
        "start=none",
    )
    until = time.monotonic() + 400
    while not seen.exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.1)
    others = children(process)
    process.terminate()
    _, written = process.communicate(timeout=120)
    assert process.returncode == 130 and "Traceback" not in written
    assert written.count("interrupted; the same command goes on where it stopped") == 1
    assert len(others) > 1 and not psutil.wait_procs(others, timeout=20)[1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_other_commands_are_interrupted_in_one_line(number, tmp_path) -> None:
    plugin, seen = tmp_path / "slow.py", tmp_path / "seen"
    plugin.write_text(f"import pathlib, time\npathlib.Path({str(seen)!r}).touch()\ntime.sleep(600)\n")
    code = "from prefzoo.cli import main; main()"
    command = [sys.executable, "-c", code, "validate", "quickstart", "--plugin", str(plugin)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + 100
    while not seen.exists():
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    assert process.communicate(timeout=60) == ("", "interrupted\n") and process.returncode == 130


@pytest.fixture
def ctrl_c_interrupts() -> Iterator[None]:
    """Ctrl-C as Python has it: what a script starts with `&` ignores it, and so would these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c_interrupts")
def test_what_is_started_under_a_block_never_hears_of_ctrl_c_and_the_caller_does() -> None:
    code = "import signal; print(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))"
    asked = []
    with pytest.raises(KeyboardInterrupt), interrupt_blocked():
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        asked.append(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout)
    assert asked == ["True\n"]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, ())


@pytest.mark.parametrize(
    ("statuses", "says"), [(["kept", "kept"], "so far"), (["broken"], "broken: trains"), ([], "so far")]
)
def test_an_interrupted_check_shows_what_it_found(monkeypatch, statuses, says) -> None:
    def check(name, seed, console, sets=()):
        yield from (Finding(promise, status, "seen") for promise, status in zip(PROMISES, statuses, strict=False))
        raise KeyboardInterrupt

    monkeypatch.setattr("prefzoo.conformance.show.check", check)
    shown = CliRunner().invoke(app, ["check", "dpo"], env={"COLUMNS": "200"})
    assert shown.exit_code == 130
    assert says in shown.output and "keeps its promises" not in shown.output
    assert f"interrupted after {len(statuses)} of {len(PROMISES)} promises" in shown.output
    lines = shown.output.splitlines()
    for i, words in enumerate(PROMISES.values()):
        line = next(line for line in lines if line.strip().startswith(words))
        assert (statuses[i] if i < len(statuses) else "untried") in line


def test_a_temporary_folder_with_a_long_name_holds_no_sockets(tmp_path) -> None:
    """A socket's path has about 100 letters at most; some clusters' TMPDIR has more."""
    (folder := tmp_path / ("long" * 25)).mkdir()
    code = "from multiprocessing import forkserver\nfrom prefzoo.run.subprocesses import shorten_socket_paths\n{}"
    for begin, fits in (("", False), ("shorten_socket_paths()\n", True)):
        run = [sys.executable, "-c", code.format(f"{begin}forkserver.ensure_running()")]
        done = subprocess.run(run, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True)
        assert (done.returncode == 0) is fits and ("AF_UNIX path too long" in done.stderr) is not fits
