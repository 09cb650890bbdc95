"""Faults around a stage: memory, a need that is gone, a tracker that fails midway, a clock that runs back, keys."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

import prefzoo
from chat_server import ChatServer, Reply, said
from conftest import LABELS, OFFLINE, metrics
from prefzoo.errors import PrefzooError
from prefzoo.run import memory_words
from prefzoo.run.executor import Outcome, Runner
from prefzoo.run.progress_display import Watcher
from prefzoo.run.stage_graph import Stage

pytestmark = pytest.mark.faults


def run(tmp_path: Path, job, needs: dict[str, tuple[str, ...]], watcher=Watcher) -> dict[str, Outcome]:
    stages = {name: Stage(name, "train", tmp_path / name, needs[name], label=name, seed=0) for name in needs}
    with watcher(len(stages), 1, Console(file=io.StringIO())) as watching:
        watching.expect(list(stages.values()))
        return Runner(SimpleNamespace(stages=stages, out=tmp_path), job, 1, watching).run()


def test_a_stage_whose_need_is_gone_is_skipped_and_what_loses_it_midway_says_so(tmp_path) -> None:
    class Deletes(Watcher):
        def ended(self, stage, *how) -> None:
            if stage.name in ("a", "broken"):
                shutil.rmtree(stage.folder, ignore_errors=True)
            super().ended(stage, *how)

    def job(plan, stage, folder, progress) -> None:
        import shutil

        if stage.name == "broken":
            raise ValueError("no good")
        if stage.name == "d":
            shutil.rmtree(plan.stages["c"].folder)
            (plan.stages["c"].folder / "result.json").read_text()

    needs = {"a": (), "b": ("a",), "of b": ("b",), "c": (), "d": ("c",), "broken": (), "of broken": ("c", "broken")}
    found = run(
        tmp_path, job, {name: needs[name] for name in ("a", "b", "of b", "c", "broken", "of broken", "d")}, Deletes
    )
    ended = {"a": "ok", "b": "skipped", "of b": "skipped", "c": "ok", "broken": "failed", "of broken": "skipped"}
    assert {name: outcome.status for name, outcome in found.items()} == {**ended, "d": "failed"}
    assert found["b"].error == f"a: its result, {tmp_path / 'a'}, is gone; compare again, which makes it anew"
    assert found["d"].error == f"c: its result, {tmp_path / 'c'}, is gone; compare again, which makes it anew"
    assert "no good" in found["of broken"].error
    assert not any("FileNotFoundError" in (outcome.error or "") for outcome in found.values())


def test_memory_that_ran_out_is_named(tmp_path) -> None:
    def job(plan, stage, folder, progress) -> None:
        import os
        import resource
        import signal

        import torch

        if stage.name == "killed":  # as the system does
            os.kill(os.getpid(), signal.SIGKILL)
        if stage.name == "python":
            raise MemoryError
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + 2**28, resource.RLIM_INFINITY))
        torch.zeros(2**30)

    found = run(tmp_path, job, {"limited": (), "python": (), "killed": ()})
    assert {outcome.status for outcome in found.values()} == {"failed"}
    assert found["limited"].error.startswith("out of memory: ") and "GiB of addresses here" in found["limited"].error
    assert "can't allocate memory" in found["limited"].error
    assert found["python"].error.startswith("out of memory: MemoryError. ")
    assert found["killed"].error.startswith("the process was ended by SIGKILL (out of memory? ")
    for outcome in found.values():
        assert "training.batch_size" in outcome.error and "--workers" in outcome.error
    assert memory_words.out_of_memory(ValueError("batch_size: 3")) is None


LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from prefzoo.cli import main
main()
"""


def test_a_limit_under_which_nothing_can_be_imported_is_refused_at_once(tmp_path) -> None:
    command = [sys.executable, "-c", LIMITED, "compare", "quickstart", "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode and "Traceback" not in done.stderr
    assert "a process may take 1.0 GiB of addresses here (ulimit -v)" in " ".join(done.stderr.split())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory_words, "_most_addresses", lambda: None)
        memory_words.refuse_too_little()
        patch.setattr(memory_words, "_most_addresses", lambda: memory_words.LEAST_ADDRESSES - 1)
        with pytest.raises(PrefzooError, match="raise the limit"):
            memory_words.refuse_too_little()


WANDB = """
import json
from types import SimpleNamespace

calls = 0

class Run:
    url, summary, config = "", {}, {}
    def __getattr__(self, name):
        def call(*_, **__):
            global calls
            calls += 1
            if calls > 6:
                raise RuntimeError("the run is gone")
        return call

def init(**_):
    return Run()

def setup(*_, **__):
    return SimpleNamespace(settings=SimpleNamespace(mode="offline"))

def __getattr__(name):
    return lambda *_, **__: SimpleNamespace()
"""


def test_a_tracker_that_raises_midway_costs_a_note(tracked, copied, tmp_path, monkeypatch) -> None:
    (tmp_path / "wandb.py").write_text(WANDB)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = prefzoo.compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=copied)
    (note,) = [note for note in found.notes if "Weights & Biases" in note]
    assert "the run is gone" in note
    assert metrics(found) == metrics(tracked[0])


SECRETS = {
    "OPENAI_API_KEY": "sk-proj-never/written+0123456789abcdef",
    "WANDB_API_KEY": "0123456789abcdef" * 2 + "01234567",
    "HF_TOKEN": "hf_neverWrittenNeverWrittenNeverWr",
    "JUDGE_KEY": "judge-never-written-0123456789",
    "HUGGING_FACE_HUB_TOKEN": "hf_alsoNeverWrittenAlsoNeverWritt",
}
UNUSED = """
from dataclasses import dataclass
import prefzoo

@prefzoo.register("unused")
@dataclass(frozen=True)
class Unused(prefzoo.Algorithm):
    "A plugin must bring something."

    def train(self, bench):
        raise NotImplementedError
"""
BACKWARDS = (
    UNUSED
    + """
import time

at, began = time.time(), time.monotonic()
time.time = lambda: at - 100 * (time.monotonic() - began)
"""
)


def test_no_output_holds_a_key_and_no_clock_is_trusted(tmp_path) -> None:
    """A server that sends the key back fails sometimes; meanwhile the clock runs back, by hours."""
    (tmp_path / "clock.py").write_text(BACKWARDS)
    recipe = {
        "extends": "base",
        "plugins": ["clock.py"],
        "start": "none",
        "tracking": {"wandb": {"mode": "offline"}, "report_to": ["tensorboard"]},
        "budget": {"prompts": 12},
        "evaluation": {"prompts": 4},
        "generation": {"max_new_tokens": 32},
        "reward": {"type": "random"},
        "training": {"batch_size": 4},
        "judge": {"type": "openai", "audit_pairs": 4},
        "algorithms": {
            "rlaif": {},
            "broken": {"algorithm": "rejection_sampling", "keep": "threshold", "threshold": 9e9},
        },
    }

    def act(seen, nth):
        if nth == 0 and len(server.seen) % 3 == 0:
            return Reply({"error": {"message": f"you sent {json.dumps(seen.headers)}"}}, 500)
        return Reply(said("A" if len(server.seen) % 2 else "B"))

    with ChatServer(act) as server:
        recipe["judge"]["endpoint"] = {"base_url": server.url, "model": "m", "key_env": "JUDGE_KEY", "retries": 3}
        (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
        code = "from prefzoo.cli import main; main()"
        command = [sys.executable, "-c", code, "compare", "recipe.yaml", "--seeds", "1", "--out", "run"]
        environment = {**os.environ, **SECRETS, "WANDB_MODE": "offline"}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert (tmp_path / "run" / "results.json").is_file(), done.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    states = {label: each["status"] for label, each in results["algorithms"].items()}
    assert states == {"start": "ok", "rlaif": "ok", "broken": "failed"}, done.stderr
    assert {seen.headers["authorization"] for seen in server.seen} == {f"Bearer {SECRETS['JUDGE_KEY']}"}
    ledger = results["algorithms"]["rlaif"]["seeds"]["0"]["ledger"]
    assert ledger["seconds"] > 0 and all(value >= 0 for value in ledger.values())
    files = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert any(file.suffix == ".wandb" for file in files) and any("tfevents" in file.name for file in files)
    for secret in SECRETS.values():
        assert secret not in done.stdout + done.stderr
        for file in files:
            assert secret.encode() not in file.read_bytes(), file
