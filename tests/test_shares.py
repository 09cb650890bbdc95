"""Each of several stages at a time has cores, and a GPU, of its own."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console
from typer.testing import CliRunner

from prefzoo.cli import app
from prefzoo.machine import cores, gpus
from prefzoo.recipe.check_recipe import load
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run import distributed
from prefzoo.run import resources as module
from prefzoo.run.executor import Runner
from prefzoo.run.progress_display import Watcher
from prefzoo.run.resources import default_workers, shares
from prefzoo.run.stage_graph import Stage

CAN_PIN = pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system holds no process to cores")


@pytest.fixture
def machine(monkeypatch):
    """A machine of six cores, of which this process may use four, and three GPUs, of which it may use two."""
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda pid: {1, 2, 4, 5}, raising=False)
    monkeypatch.setattr(module.os, "sched_setaffinity", lambda pid, cores: None, raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,GPU-8932f937")


@pytest.mark.parametrize(
    ("workers", "cores", "devices"),
    [
        (1, [set()], ["2"]),
        (2, [{1, 2}, {4, 5}], ["2", "GPU-8932f937"]),
        (3, [{1}, {2}, {4, 5}], ["2", "GPU-8932f937", "2"]),
        (4, [{1}, {2}, {4}, {5}], ["2", "GPU-8932f937", "2", "GPU-8932f937"]),
        (5, [{1}, {2}, {4}, {5}, {1}], ["2", "GPU-8932f937", "2", "GPU-8932f937", "2"]),
    ],
)
def test_what_there_is_is_divided(machine, workers: int, cores: list[set[int]], devices: list[str]) -> None:
    found = shares(workers)
    assert [set(share.cores) for share in found] == cores
    assert [share.gpu for share in found] == devices


@pytest.mark.parametrize(("asked", "threads"), [("3", 3), ("4,2", 4), (" 2 , 1", 2), ("", None)])
def test_threads_are_read_as_openmp_writes_them(monkeypatch, asked: str, threads: int | None) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert module.threads_asked(Console(file=(said := io.StringIO()))) == threads
    assert said.getvalue() == ""


@pytest.mark.parametrize("asked", ["auto", "0", "-1", ",2"])
def test_what_is_no_number_of_threads_is_said_once_and_ignored(monkeypatch, asked: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    console = Console(file=(said := io.StringIO()), width=200)
    for _ in range(2):
        runner = Runner(SimpleNamespace(stages={}), print, 1, Watcher(0, 1, console))
        assert runner.threads == module.cores()
    assert said.getvalue() == (
        f"OMP_NUM_THREADS={asked!r} is ignored; allowed: a number above 0, or several with commas between them\n"
    )


def test_one_gpu_and_processes_that_train_together_are_not_divided(machine, monkeypatch) -> None:
    assert [share.gpu for share in shares(2, together=2)] == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [share.gpu for share in shares(2)] == [None, None]
    for none in ("", "-1"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", none)
        assert gpus() == []


@pytest.fixture
def cpu(monkeypatch):
    """Four cores, no GPU and much memory."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setattr(module, "cores", lambda: 4)
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: SimpleNamespace(available=64 * 10**9))


@pytest.mark.parametrize(("visible", "expected"), [("0,1", 2), ("3", 1), ("", 4)])
def test_as_many_trials_at_a_time_as_there_are_gpus_or_cores(cpu, monkeypatch, visible: str, expected: int) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert default_workers(load("quickstart")) == expected
    monkeypatch.setattr(distributed, "processes", lambda: 2)
    assert default_workers(load("quickstart")) == (1 if visible else 2)


@pytest.mark.parametrize(("gigabytes", "expected"), [(8, 4), (2, 2), (0.1, 1)])
def test_no_more_trials_than_memory_is_free_for(cpu, monkeypatch, gigabytes: float, expected: int) -> None:
    free = SimpleNamespace(available=int(gigabytes * 10**9))
    monkeypatch.setattr(module.psutil, "virtual_memory", lambda: free)
    assert default_workers(load("quickstart")) == expected


@pytest.mark.parametrize(
    "large",
    [
        ["model.path={}"],
        ["gold=judge", "judge.type=local", "judge.path={}"],
        ["reward.type=path", "reward.path={}"],
    ],
)
def test_a_large_model_without_a_gpu_has_the_machine_to_itself(cpu, monkeypatch, large: list[str]) -> None:
    bytes_of = {"lab": 10**6, "large": 10**10}
    monkeypatch.setattr(module, "weight_bytes", bytes_of.get)
    recipe = load("quickstart")
    assert default_workers(recipe) == 4
    for key, value in (setting.format("large").split("=") for setting in large):
        recipe = changed(recipe, key, value)
    assert default_workers(recipe) == 1


def changed(recipe: Recipe, key: str, value: str) -> Recipe:
    """The recipe with one key set, unchecked: what `large` names is nowhere."""
    first, *rest = key.split(".")
    inner = changed(getattr(recipe, first), ".".join(rest), value) if rest else value
    return recipe.model_copy(update={first: inner})


@pytest.mark.parametrize(
    ("says", "expected"), [("max 100000", 4), ("200000 100000", 2), ("150000 100000", 2), ("50000 100000", 1), ("", 4)]
)
def test_a_quota_of_time_counts_as_fewer_cores(machine, monkeypatch, tmp_path, says: str, expected: int) -> None:
    quota = tmp_path / "cpu.max"
    quota.write_text(says)
    monkeypatch.setattr("prefzoo.machine.QUOTA", quota)
    assert cores() == expected
    monkeypatch.setattr("prefzoo.machine.QUOTA", tmp_path / "none")
    assert cores() == 4


@CAN_PIN
def test_stages_are_held_to_their_shares(tmp_path, monkeypatch) -> None:
    mine = os.sched_getaffinity(0)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")

    def job(plan, stage, folder, progress) -> None:
        import torch

        found = {
            "cores": sorted(os.sched_getaffinity(0)),
            "gpu": os.environ["CUDA_VISIBLE_DEVICES"],
            "threads": torch.get_num_threads(),
        }
        (folder / "found.json").write_text(json.dumps(found))

    stages = {name: Stage(name, "train", tmp_path / name, (), label=name, seed=0) for name in ("a", "b", "c", "d")}
    with Watcher(len(stages), 2, Console(file=io.StringIO())) as watcher:
        watcher.expect(list(stages.values()))
        outcomes = Runner(SimpleNamespace(stages=stages, out=tmp_path), job, 2, watcher).run()
    assert {outcome.status for outcome in outcomes.values()} == {"ok"}, outcomes
    found = [json.loads((tmp_path / name / "found.json").read_text()) for name in stages]
    parts = {tuple(each["cores"]) for each in found}
    assert {core for part in parts for core in part} == mine
    if len(mine) > 1:
        assert len(parts) == 2 and sum(map(len, parts)) == len(mine)
    assert {each["gpu"] for each in found} == {"0", "1"}
    assert all(each["threads"] <= max(1, len(each["cores"])) for each in found)
    assert os.sched_getaffinity(0) == mine


@pytest.mark.parametrize("said", ["auto", "3"])
def test_how_many_at_a_time_can_be_left_to_the_program(monkeypatch, tmp_path, said: str) -> None:
    asked = []
    monkeypatch.setattr("prefzoo.commands.comparison.compare", lambda *args, **more: asked.append(more) or 1 / 0)
    CliRunner().invoke(app, ["compare", "quickstart", "--workers", said, "--out", str(tmp_path)])
    assert [more["workers"] for more in asked] == [None if said == "auto" else 3]


@pytest.mark.parametrize("said", ["many", "0", "-1", "1.5"])
def test_another_word_is_refused(said: str) -> None:
    shown = CliRunner().invoke(app, ["compare", "quickstart", "--workers", said], env={"COLUMNS": "200"})
    assert shown.exit_code == 2
    assert f"'{said}' is neither a number from 1 nor 'auto'" in shown.output


FORKED = """
import io, os, sys
from pathlib import Path
from types import SimpleNamespace
from rich.console import Console
from prefzoo.run.stage_graph import Stage
from prefzoo.run.executor import Runner
from prefzoo.run.progress_display import Watcher

def job(plan, stage, folder, progress):
    import torch
    server = Path(f"/proc/{os.getppid()}/maps").read_text()
    (folder / "found").write_text(f"{'libtorch' in server} {'trl' in sys.modules}")

if __name__ == "__main__":
    stages = {"a": Stage("a", "train", Path(sys.argv[1]) / "a", (), label="a", seed=0)}
    with Watcher(1, 1, Console(file=io.StringIO())) as watcher:
        watcher.expect(list(stages.values()))
        print(Runner(SimpleNamespace(stages=stages, out=Path(sys.argv[1])), job, 1, watcher).run())
    print((Path(sys.argv[1]) / "a" / "found").read_text())
"""


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not show what a process has loaded")
@pytest.mark.parametrize("visible", ["", "0"])
def test_stages_are_forked_from_what_has_imported_everything(tmp_path, visible: str) -> None:
    """Also where there may be a GPU; see `test_preload`."""
    script = tmp_path / "forked.py"
    script.write_text(FORKED)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": visible}
    command = [sys.executable, str(script), str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.stdout.splitlines()[-1:] == ["True True"], done.stdout + done.stderr
