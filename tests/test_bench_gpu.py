"""The benchmark for GPUs: silent without one, and its way through on the CPU with a tiny shape."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

SPEED = Path(__file__).parents[1] / "benchmarks" / "speed"


@pytest.fixture
def gpu(monkeypatch):
    before = {*sys.modules}
    for folder in (SPEED.parent, SPEED):
        monkeypatch.syspath_prepend(str(folder))
    yield __import__("gpu")
    for name in {"gpu", "pairs", "models", "measuring", "clock"} - before:
        sys.modules.pop(name, None)


@pytest.fixture
def in_this_process(gpu, monkeypatch):
    """Scripts run here: a process for each would import torch and TRL again."""
    import pairs

    def measured(command, out):
        out.mkdir(parents=True)
        began = time.perf_counter()
        with monkeypatch.context() as patch:
            patch.setattr(sys, "argv", command[1:])
            patch.setattr(sys, "path", [*sys.path])
            runpy.run_path(command[1], run_name="__main__")
        return {"seconds": time.perf_counter() - began, "peak_bytes": 1}

    for module in (pairs, gpu):
        monkeypatch.setattr(module, "measured", measured)


def test_without_a_gpu_it_says_so_and_writes_nothing(tmp_path) -> None:
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, str(SPEED / "gpu.py"), "--out", str(out)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert "no GPU" in done.stdout and "nothing was measured" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_shapes_are_those_that_are_named(gpu) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    for name, weights in (("0.5b", 494_032_768), ("7b", 7_615_616_512)):  # of Qwen2.5, biases and all
        with torch.device("meta"):
            model = LlamaForCausalLM(LlamaConfig(**gpu.SHAPES[name].model))
        assert sum(p.numel() for p in model.parameters()) == pytest.approx(weights, rel=1e-4)


TINY = {
    "vocab_size": 32_000,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "tie_word_embeddings": True,
}


def test_a_rollout_of_four_steps_is_one_and_the_passes_of_a_reference_are_no_steps(gpu) -> None:
    """Two epochs of two minibatches; by hand: sampling takes 10 s before each rollout, a step 1 s, a processor twice
    that. From the end of the first rollout to that of the third are 8 steps, in which 4 batches are learned from."""
    import pairs

    seconds = [10, 11, 12, 13, 24, 25, 26, 27, 38, 39, 40, 41]
    found = pairs.speed([(t, 2 * t) for t in seconds], minibatches=2, epochs=2)
    assert found == pytest.approx(
        {"steps_per_second": 8 / 28, "steps_per_cpu_second": 8 / 56, "batches_per_second": 4 / 28}
    )
    # Four steps of 3 s each, after 5 passes of 1 s: 3 steps in 9 s, and in three quarters of 5 s.
    passes, steps = [(t, t) for t in (7, 8, 9, 10, 11)], [(t, t) for t in (20, 23, 26, 29)]
    assert pairs.speed(steps, passes)["batches_per_second"] == pytest.approx(3 / (9 + 0.75 * 5))
    for times, reference, epochs in (([(1, 1)] * 4, [], 4), ([(1, 1), (2, 2)], [(0, 0)], 1)):
        with pytest.raises(SystemExit, match="too few to tell"):
            pairs.speed(times, reference, epochs=epochs)


def test_what_a_training_counts_is_what_it_learned_from(gpu, in_this_process, tmp_path) -> None:
    """PPO draws a rollout for each 4 of its steps; DPO passes the reference over its pairs before the first."""
    import pairs

    shape = gpu.Shape(TINY, dtype="float32", batch=4, words=3, steps=4, online_steps=3, generations=2)
    given = gpu.prepared(shape, gpu.Shape(TINY), tmp_path / "tiny")
    given["training"] = {}
    for task, steps, batches in (("ppo", 12, 3), ("dpo", 4, 4)):
        run = pairs.trial("prefzoo", task, given, tmp_path / "tiny", task)
        found = json.loads((tmp_path / "tiny" / task / "found.json").read_text())
        assert len(found["times"]) == steps and len(found["reference"]) == (4 if task == "dpo" else 0)
        ends = found["times"][steps // batches - 1 :: steps // batches]
        spent = ends[-1][0] - ends[0][0]
        if task == "dpo":
            spent += 4 / 3 * (found["reference"][3][0] - found["reference"][0][0]) * 3 / 4
        assert run["batches_per_second"] == pytest.approx((batches - 1) / spent)
        assert gpu.batch_tokens(shape, task) == 4 * {"ppo": 1, "dpo": 2}[task] * (3 + 3)


@pytest.mark.slow
def test_all_parts_are_measured_until_the_time_is_up(gpu, in_this_process, tmp_path) -> None:
    """On a CPU no step is recorded; the ways to sample differ in that alone."""
    tiny = gpu.Shape(TINY, dtype="float32", batch=2, words=3, steps=3, online_steps=3, generations=2)
    how = ["--repeats", "2", "--rows", "2", "--shapes", "0.5b,7b", "--tasks", "ppo,grpo"]
    out = tmp_path / "gpu.json"
    clock = iter([0, 1, 2, 3, 4, 5, *[100] * 9])
    found = gpu.bench(
        gpu.parsed([*how, "--minutes", "0.5", "--out", str(out)]),
        "none",
        {"0.5b": tiny, "7b": tiny},
        lambda: next(clock),
    )
    assert json.loads(out.read_text()) == json.loads(json.dumps(found))
    rates = found["sampling"]["rows"]["2"]
    assert list(rates) == ["transformers", "launched", "replayed"]
    assert all(len(way["tokens_per_second"]) == 2 and way["tokens_per_second"][0] > 0 for way in rates.values())
    assert [way["steps"] for way in rates.values()] == [[], [], []]
    assert list(found["shapes"]["0.5b"]) == ["ppo", "grpo"] and found["shapes"]["7b"] == {}
    assert len(found["shapes"]["0.5b"]["ppo"]["runs"]["prefzoo"]) == 2
    assert found["left_out"] == ["7b ppo", "7b grpo", "quickstart"] and found["quickstart"] is None
    assert "Not begun in time: 7b ppo, 7b grpo, quickstart." in gpu.table(found)


def test_a_part_that_fails_is_listed_and_the_others_are_measured(gpu, tmp_path, monkeypatch) -> None:
    def part(script, settings, folder):
        if script == "gpu_sampling.py":
            raise SystemExit("python gpu_sampling.py failed: no memory")
        return {"seconds": 60.0, "to_begin": {"median": 0.5, "longest": 2.0}}

    monkeypatch.setattr(gpu, "part", part)
    asked = gpu.parsed(["--shapes", "0.5b", "--tasks", "sft", "--out", str(tmp_path / "gpu.json")])
    monkeypatch.setattr(gpu, "compare", lambda *_: {"medians": {"prefzoo": {"tokens_per_second": 5.0}}})
    said = gpu.table(gpu.bench(asked, "none", {"0.5b": gpu.Shape(TINY, dtype="float32", batch=1, words=2, steps=1)}))
    assert "Failed: sampling: python gpu_sampling.py failed: no memory" in said
    assert (
        "quickstart: 60 s; a stage begins after 0.50 s (median; at most 2.00)." in said
        and "| 0.5b | sft | 5.0 |" in said
    )


def test_quickstart_is_timed_by_kinds_of_stages(gpu, small_run, tmp_path, monkeypatch) -> None:
    """Each stage took half a second before its own work began, and one of them two."""
    import gpu_stages

    from prefzoo.run.stage_graph import load_plan

    out = tmp_path / "run"
    shutil.copytree(small_run[1], out, symlinks=True)
    stages = load_plan(out).stages
    taken = {name: (stage.seconds or 0) + (2.0 if name == "reward" else 0.5) for name, stage in stages.items()}
    (out / "outcomes.json").write_text(json.dumps({name: {"seconds": seconds} for name, seconds in taken.items()}))
    asked: dict = {}
    monkeypatch.setattr(gpu_stages, "compare", lambda *_, **how: asked.update(how))
    found = gpu_stages.main({"out": str(tmp_path)})
    assert asked == {"sets": ["tracking.wandb.mode=disabled"], "out": out}
    assert found["to_begin"] == pytest.approx({"median": 0.5, "longest": 2.0})
    kinds = found["seconds_of_kinds"]
    assert sum(kinds.values()) == pytest.approx(sum(taken.values())) and kinds["data"] == pytest.approx(taken["data"])


def test_how_busy_a_gpu_is_is_the_mean_of_what_its_driver_says(gpu) -> None:
    said = "import time\nfor p in (90, 10, 'N/A', 30): print(p, flush=True); time.sleep(0.3)"
    with gpu.GpuUse((sys.executable, "-c", said)) as use:
        began = time.perf_counter()
        while len(use.readings) < 3 and time.perf_counter() < began + 30:
            time.sleep(0.02)
    times = [when for when, _ in use.readings]
    assert use.busy(times[0], times[-1]) == {"gpu_busy": pytest.approx(130 / 3)}
    assert use.busy(times[1], times[-1]) == {"gpu_busy": 20.0} and use.busy(0.0, 1e-9) == {}
    with gpu.GpuUse(("no-such-driver",)) as none:
        assert none.busy(0.0, time.perf_counter()) == {}


@pytest.mark.slow
def test_a_tiny_shape_in_nf4_on_the_cpu(gpu, in_this_process, tmp_path) -> None:
    pytest.importorskip("bitsandbytes")
    from transformers import AutoTokenizer

    shape = gpu.Shape(
        TINY, quantized=True, checkpointing=True, batch=2, words=6, steps=3, online_steps=3, generations=2
    )
    given = gpu.prepared(shape, gpu.Shape(TINY), tmp_path / "tiny")
    found = {task: gpu.compare(shape, given, task, 1, tmp_path / "tiny") for task in ("dpo", "grpo", "ppo")}
    for task in ("dpo", "grpo"):
        each = found[task]
        assert each["medians"].keys() == {"prefzoo", "trl"} and each["ratios"]["tokens_per_second"] > 0
        for side in each["medians"].values():
            # A step: 2 rows, each of 2 sequences of 6 + 6 words.
            assert side["tokens_per_second"] == pytest.approx(48 * side["steps_per_second"])
    assert found["ppo"]["medians"].keys() == {"prefzoo"} and "ratios" not in found["ppo"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "tiny" / "start")
    row = json.loads((tmp_path / "tiny" / "offline.json").read_text())["preferences"][0]
    for words in (row["prompt"], row["chosen"], row["rejected"]):
        assert len(set(tokenizer(words[0]["content"])["input_ids"])) == 6, "each word is a token of its own"
    adapters = {path.parent.name for path in (tmp_path / "tiny").rglob("adapter_config.json")}
    assert adapters == {"policy", "saved"}
    content = json.loads(json.dumps({"shapes": {"tiny": found}, "left_out": [], "failed": {}}))
    rows = gpu.table(content).splitlines()
    assert len(rows) == 5 and rows[-1].startswith("| tiny | ppo | ") and rows[-1].endswith(" |  |  |  |  |  |  |  |")
