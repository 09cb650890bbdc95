"""What stages are forked from has asked CUDA for nothing, so that they can use a GPU; none is needed to see that."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from prefzoo import machine
from prefzoo.run.executor import Runner
from prefzoo.run.worker import PRELOAD, PRELOAD_CHECKED

VISIBLE = {"CUDA_VISIBLE_DEVICES": "0"}

PRELOADED = """
import os, sys
import torch

asked = []
def asks(name, answer):
    def ask(*_, **__):
        asked.append(name)
        return answer
    return ask

# As a build for CUDA is, on a machine with one GPU.
torch.version.cuda = "12.8"
torch.cuda._is_compiled = lambda: True
torch.cuda._device_count_nvml = lambda: 1
for name, answer in (("_cuda_getDeviceCount", 1), ("_cuda_init", None), ("_cuda_getCurrentRawStream", 0)):
    setattr(torch._C, name, asks(name, answer))
for name, answer in (("_lazy_init", None), ("init", None), ("get_device_capability", (9, 0)), ("current_device", 0),
                     ("get_device_properties", None), ("mem_get_info", (1, 1)), ("is_bf16_supported", True)):
    setattr(torch.cuda, name, asks(name, answer))
import prefzoo.run.preload
assert not asked, asked
assert not any(name.startswith("bitsandbytes") for name in sys.modules)
assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in os.environ
assert {"trl.trainer.dpo_trainer", "peft", "datasets", "prefzoo.trainers.fitting"} <= sys.modules.keys()

if os.fork() == 0:  # a stage, on a machine without
    torch.version.cuda, torch.cuda._is_compiled = None, lambda: False
    from trl.generation import vllm_generation
    assert vllm_generation.bnb.nn.Params4bit.__module__ == "bitsandbytes.nn.modules"  # taken by name before the fork
    from bitsandbytes.optim import AdamW8bit
    assert sys.modules["bitsandbytes"].optim.AdamW8bit is AdamW8bit
    from prefzoo.models.adapters import adapter_config
    from prefzoo.models.loading import load_model
    from prefzoo.settings import Adapter
    from peft import get_peft_model
    adapter = Adapter(type="qlora", r=2)
    model = load_model(sys.argv[1], quantization=adapter.quantization)
    model = get_peft_model(model, adapter_config(adapter, "CAUSAL_LM"))
    kinds = {type(m).__module__ for m in model.modules() if type(m).__name__ == "Linear4bit"}
    assert kinds == {"bitsandbytes.nn.modules", "peft.tuners.lora.bnb"}, kinds
    print("a stage with a quantized base", flush=True)
    os._exit(0)
assert os.wait()[1] == 0
"""


def test_preloading_asks_cuda_for_nothing_and_a_stage_still_finds_bitsandbytes(base) -> None:
    pytest.importorskip("bitsandbytes")
    done = subprocess.run(
        [sys.executable, "-c", PRELOADED, base], capture_output=True, text=True, env={**os.environ, **VISIBLE}
    )
    assert done.returncode == 0, done.stderr
    assert "a stage with a quantized base" in done.stdout


@pytest.mark.parametrize(("visible", "preloaded"), [("0", PRELOAD_CHECKED), ("", PRELOAD)])
def test_stages_are_forked_from_what_has_imported_everything(monkeypatch, visible, preloaded) -> None:
    asked = []
    monkeypatch.setenv(machine.VISIBLE, visible)
    monkeypatch.setattr(
        "multiprocessing.context.ForkServerContext.set_forkserver_preload", lambda _, names: asked.append(names)
    )
    monkeypatch.setattr("prefzoo.run.executor.threads_asked", lambda console: None)
    Runner(None, None, 1, type("Watcher", (), {"console": None})())
    assert asked == [[preloaded]]


ANEW = """
import multiprocessing, sys

def tells(pipe):
    pipe.send(sorted({"torch", "poisoned"} & sys.modules.keys()))

if __name__ == "__main__":
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(sys.argv[1:])
    ours, theirs = context.Pipe()
    context.Process(target=tells, args=(theirs,)).start()
    print(ours.recv())
"""


@pytest.mark.faults
@pytest.mark.parametrize(("available", "imported"), [("True", []), ("False", ["poisoned", "torch"])])
def test_a_server_whose_forks_cannot_use_the_gpu_begins_anew(tmp_path, available, imported) -> None:
    """This build of torch cannot use one: where it says that there is one, its forks fail as after CUDA was asked."""
    for name, source in {
        "poisoned": f"import torch\ntorch.cuda.is_available = lambda: {available}\n",
        "checked": "from prefzoo.run.cuda_unasked import check_forks\ncheck_forks()\n",
        "script": ANEW,
    }.items():
        (tmp_path / f"{name}.py").write_text(source)
    path = os.pathsep.join([str(tmp_path), str(Path(machine.__file__).parents[1])])
    done = subprocess.run(
        [sys.executable, "script.py", "poisoned", "checked"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=120,
        env={**os.environ, **VISIBLE, "PYTHONPATH": path},
    )
    assert done.stdout.strip() == str(imported), done.stderr
