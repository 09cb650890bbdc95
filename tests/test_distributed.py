"""The same code under `accelerate launch` with two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import prefzoo
from conftest import SMALL
from prefzoo.commands import stage_runner
from prefzoo.errors import PrefzooError
from prefzoo.models.policy_kinds import load_policy
from prefzoo.run import distributed
from prefzoo.settings import Generation, Shaping
from prefzoo.trainers import online

pytestmark = pytest.mark.faults

SCRIPT = Path(__file__).with_name("two_processes.py")
CONFIGS = Path(__file__).parents[1] / "recipes" / "accelerate"
SHARED = "(Shard(dim=0),) over 2"


def port() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return str(free.getsockname()[1])


def launched(command: list[str], processes: int, config: str = "ddp", fails: bool = False) -> str:
    """Run a Python command as so many processes, and return what they print; what the launcher leaves behind is
    removed."""
    # `--cpu` would run one process only.
    file = str(CONFIGS / f"{config}.yaml")
    launch = ["-m", "accelerate.commands.launch", "--config_file", file, "--num_processes", str(processes)]
    prefix = [*launch, "--main_process_port", port()] if processes > 1 else []
    with tempfile.TemporaryDirectory(prefix="two-") as scratch:  # with a short path: sockets lie in it
        environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1", "TMPDIR": scratch}
        done = subprocess.run([sys.executable, *prefix, *command], env=environment, capture_output=True, text=True)
    assert (done.returncode != 0) == fails, done.stdout[-2000:] + done.stderr[-3000:]
    return done.stdout + done.stderr


def trained(name: str, processes: int, out: Path, config: str = "ddp", adapter: str = "lora") -> list[dict]:
    out.mkdir(exist_ok=True)
    launched([str(SCRIPT), name, str(out), adapter], processes, config)
    return [json.loads((out / f"ended-{rank}.json").read_text()) for rank in range(processes)]


def assert_normalized_together(first: dict, second: dict, count: int) -> None:
    """What each makes of its scores is what one process makes of both's, the first's before the second's."""
    memory: dict = {}
    for (scores, shaped), (others, theirs) in zip(first["shapings"], second["shapings"], strict=True):
        assert len(scores) == len(others) == 4 and scores != others
        assert online.shaped(scores + others, Shaping(normalize=True), memory) == shaped + theirs
    kept = list(memory["scores"])  # number, mean, sum of squares
    assert first["memory"]["scores"] == second["memory"]["scores"] == kept and kept[0] == count


@pytest.mark.processes
def test_both_processes_learn_the_same_from_what_both_sampled(tmp_path) -> None:
    steps = {"ppo": "step 4 of 8", "reinforce": "step 1 of 2", "reinforce_plus_plus": "step 1 of 2"}
    first, second = trained(",".join(steps), 2, tmp_path)
    assert first["world"] == second["world"] == 2
    assert first["ended"] == second["ended"]  # policies and critic are in step
    assert {key.split()[0] for key in first["ended"] if " " in key} == set(steps)
    assert any("value" in key for key in first["ended"])
    assert first["charged"] == second["charged"]
    assert_normalized_together(first, second, 16 * len(steps))
    # The first process writes, for both.
    for i, (name, folder) in enumerate(zip(steps, sorted((tmp_path / "milestones").iterdir()), strict=True)):
        charged = first["charged"][name]
        assert charged["reward_calls"] == charged["prompts"] == 16, "between the two, not each"
        milestone = json.loads((folder / "milestone.json").read_text())
        assert milestone["name"].endswith(steps[name]) and (folder / "policy" / "adapter_model.safetensors").is_file()
        assert milestone["ledger"]["reward_calls"] == milestone["ledger"]["prompts"] == 16 * i + 8


@pytest.mark.processes
def test_two_processes_take_the_steps_that_one_takes(tmp_path) -> None:
    """What is not sampled is the same rows, halved: the same gradients, to rounding."""
    names = ["dpo", "rpo", "bco", "bradley_terry", "regression"]
    losses = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        trained(",".join(names), processes, out)
        curves = json.loads((out / "curves.json").read_text())
        losses[processes] = [entry["loss"] for curve in curves for entry in curve if "loss" in entry]
    for name in names:
        assert_close(*(tmp_path / each / f"trained-{name}" / "adapter_model.safetensors" for each in "12"))
    assert losses[1] == pytest.approx(losses[2], abs=1e-4) and len(losses[1]) > len(names)


def assert_close(one: Path, two: Path) -> None:
    """The same weights in two files, to rounding."""
    weights, others = load_file(one), load_file(two)
    assert weights.keys() == others.keys()
    for key, weight in weights.items():
        torch.testing.assert_close(others[key], weight, atol=2e-5, rtol=1e-3)


def assert_same_policies(one: Path, two: Path, count: int) -> None:
    """The policies of two folders, those on the way included, are the same to rounding, and those of the second are
    read and answer. The last policy and the last reward are in two folders."""
    files = sorted(file.relative_to(one) for file in one.glob("**/*model.safetensors"))
    assert len(files) == count
    for file in files:
        assert_close(one / file, two / file)
        if (two / file).with_name("policy.json").is_file():
            policy = load_policy((two / file).parent)
            ((reply,),) = policy.sample([[{"role": "user", "content": "Hello"}]], Generation(max_new_tokens=4), 0)
            assert reply.token_ids


@pytest.mark.processes
def test_with_divided_weights_two_processes_take_the_steps_that_one_takes(tmp_path) -> None:
    names = "sft,dpo,simpo,kto,bradley_terry"
    first, second = trained(names, 2, tmp_path / "two", "fsdp")
    # 94 weights with LoRA, at a milestone and at the end of each of four; a reward has two heads more, the frozen one
    # and the one that is trained, and no milestone.
    assert first["shards"] == second["shards"] == {f"model: {SHARED}": 4 * 2 * 94 + 96}
    assert first["ledger"] == second["ledger"]
    trained(names, 1, tmp_path / "one")
    assert_same_policies(tmp_path / "one", tmp_path / "two", 5 + 4 + 2)


def compared(labels: str, out: Path) -> list[str]:
    """The command of a small comparison."""
    sets = [*SMALL, "budget.prompts=16", "training.batch_size=8", "start.algorithm=sft", f"algorithms={labels}"]
    words = [word for each in sets for word in ("--set", each)]
    program = str(Path(sys.executable).with_name("prefzoo"))
    return [program, "compare", "quickstart", "--seeds", "1", "--out", str(out), *words]


def test_a_comparison_with_divided_weights_refuses_what_does_not_say_that_it_can(tmp_path) -> None:
    example = Path(__file__).parents[1] / "docs" / "examples" / "kto_like.py"
    command = compared("{ppo: {value_model: reward}, own: {algorithm: kto_like}}", tmp_path / "run")
    said = launched([*command, "--plugin", str(example)], 2, "fsdp", fails=True)
    assert "algorithms.own: FSDP" in said and "algorithms.ppo" not in said
    assert not (tmp_path / "run").exists()


def test_losses_on_pairs_and_on_single_replies_and_online_end_alike_in_both(tmp_path) -> None:
    names = ["simpo", "dpop", "aot", "kto", "bco", "ilql", "online_dpo", "xpo"]
    first, second = trained(",".join(names), 2, tmp_path / "two")
    assert first["world"] == second["world"] == 2
    assert first["ended"] == second["ended"] and len(first["ended"]) > len(names)
    assert first["ledger"] == second["ledger"] and first["ledger"]["prompts"] == 16 * len(names)
    (bad, count), (good, other) = first["memory"]["bco_rewards"]
    assert first["memory"] == second["memory"] and count == other == 16 and good > bad


@pytest.mark.processes
def test_what_samples_ends_alike_in_both(tmp_path) -> None:
    names = ["a2c", "grpo", "rloo", "iterative_dpo", "distill", "best_of_n_distillation", "sac?rounds=2"]
    first, second = trained(",".join(names), 2, tmp_path / "two")
    assert first["ended"] == second["ended"]
    assert {key.split()[0] for key in first["ended"] if " " in key} == set(names)
    assert first["ledger"] == second["ledger"]
    # twice 16 for distill (what rejection sampling draws from, and what is distilled on) and for
    # best_of_n_distillation (what F is drawn from, and what it is learned on)
    assert first["ledger"]["prompts"] == (len(names) + 2) * 16


@pytest.mark.processes
def test_a_comparison_that_was_launched_twice_runs_once_and_trains_with_both(tmp_path) -> None:
    sets = [*SMALL, "budget.prompts=32", "training.batch_size=8", "algorithms={dpo: {}, ppo: {}}"]
    command = ["compare", "quickstart", "--seeds", "1", *(word for each in sets for word in ("--set", each))]
    program = str(Path(sys.executable).with_name("prefzoo"))
    both, one = tmp_path / "both", tmp_path / "one"
    for processes, out in ((2, both), (1, one)):
        launched([program, *command, "--out", str(out)], processes)
    together, alone = (json.loads((out / "results.json").read_text()) for out in (both, one))
    for label in ("dpo", "ppo"):
        ours, theirs = (each["algorithms"][label]["seeds"]["0"] for each in (together, alone))
        assert ours["ledger"]["reward_calls"] == theirs["ledger"]["reward_calls"]
        assert list(both.glob(f"trials/train-{label}-*.1.log")) and not list(one.glob("trials/*.1.log"))
    ours, theirs = (each["algorithms"]["dpo"]["seeds"]["0"] for each in (together, alone))
    assert ours["ledger"]["forward_tokens"] == theirs["ledger"]["forward_tokens"] > 0, "half of the reference each"
    for out in (both, one):
        (kept,) = out.glob("kept/references-*.json")
        assert json.loads(kept.read_text())["found"]["tokens"] == ours["training"]["forward_tokens"]
    assert "reused" not in ours["details"], "one process reads what both computed"
    # What is not sampled is the same, to rounding; what is sampled is drawn by two.
    assert together["algorithms"]["dpo"]["summary"]["kl"]["mean"] == pytest.approx(
        alone["algorithms"]["dpo"]["summary"]["kl"]["mean"], rel=0.05
    )
    started = [each["algorithms"]["start"]["seeds"]["0"]["metrics"] for each in (together, alone)]
    assert started[0] == started[1]


def half_dying(plan, stage, folder, progress) -> None:
    from prefzoo.run.stages.run_stage import run_stage

    if stage.kind == "train":
        if os.environ["RANK"] == "1":
            raise MemoryError("no room")
        time.sleep(60)  # for the other, as collectives do
    run_stage(plan, stage, folder, progress)


@pytest.mark.processes
def test_a_process_that_dies_ends_those_that_train_with_it(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(stage_runner, "run_stage", half_dying)
    found = prefzoo.compare("quickstart", ["dpo"], seeds=1, sets=SMALL, out=tmp_path)
    assert found.algorithms["dpo"].status == "failed"
    assert "processes that train together" in str(found.algorithms["dpo"].error)
    (log,) = tmp_path.glob("trials/*.1.log")
    assert "no room" in log.read_text()


def test_several_machines_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(PrefzooError, match="several machines"):
        distributed.processes()
