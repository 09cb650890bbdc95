"""The same code under `accelerate launch` with two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

SCRIPT = Path(__file__).with_name("two_processes.py")


def launched(name: str, processes: int, out: Path) -> list[dict]:
    out.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # `--cpu` would run one process only.
    launch = ["-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", str(processes)]
    prefix = [*launch, "--main_process_port", str(port)] if processes > 1 else []
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *prefix, str(SCRIPT), name, str(out)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads((out / f"ended-{rank}.json").read_text()) for rank in range(processes)]


@pytest.mark.parametrize("name", ["ppo", "reinforce"])
def test_both_processes_learn_the_same_from_what_both_sampled(name, tmp_path) -> None:
    first, second = launched(name, 2, tmp_path / "two")
    assert first["world"] == second["world"] == 2
    assert first["ended"] == second["ended"]  # policy and critic are in step
    assert any("value" in key for key in first["ended"]) == (name == "ppo")
    assert first["ledger"] == second["ledger"]
    assert first["ledger"]["reward_calls"] == 16  # 16 prompts between the two, not each
    (alone,) = launched(name, 1, tmp_path / "one")
    assert alone["ledger"]["reward_calls"] == 16 and alone["world"] == 1


def test_two_processes_take_the_steps_that_one_takes(tmp_path) -> None:
    """What is not sampled is the same rows, halved: the same gradients, to rounding."""
    launched("dpo", 2, tmp_path / "two")
    launched("dpo", 1, tmp_path / "one")
    one, two = (load_file(tmp_path / each / "policy" / "adapter_model.safetensors") for each in ("one", "two"))
    for key, weight in one.items():
        torch.testing.assert_close(two[key], weight, atol=2e-5, rtol=1e-3)
    losses = [
        [entry["loss"] for entry in json.loads((tmp_path / each / "curves.json").read_text())[0] if "loss" in entry]
        for each in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
