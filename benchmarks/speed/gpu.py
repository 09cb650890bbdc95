"""On a GPU: ways to sample, the recipe `quickstart`, and our trainings beside raw TRL's at sizes that people train.

    make bench-gpu [MINUTES=10]
    python benchmarks/speed/gpu.py [--shapes 0.5b,7b] [--repeats 3] [--minutes 10] [--out gpu.json]

Models with random weights, so that nothing is downloaded: Llamas of the shape of Qwen2.5-0.5B, with LoRA in bfloat16,
and of Qwen2.5-7B, with QLoRA in NF4 and gradient checkpointing. They lack Qwen's biases, fewer than one weight in
17,000; for a model of Qwen's own type transformers loads Qwen's tokenizer, whatever lies beside it. Sides, rows, steps
and alternation are those of `pairs.py`; PPO, A2C and REINFORCE are ours alone, because TRL has none. The reward of
online trainings has the shape of 0.5B on both sides.

Tokens a second are those of prompts and replies that are taken up (every generated reply once, however often it is
passed or learned from), by the time between the first and the last step, or the ends of the first and the last rollout;
a reference's passes before the training count. Replies of random weights practically never end before the
length limit. `peak_gpu_bytes` is the most that tensors held, loading included; `gpu_busy` the percentage of those
seconds in which a kernel ran, by the driver. With `--minutes` nothing is begun after that time, what tells most comes
first, and what was left out is listed. Without a GPU nothing is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from gpu_use import GpuUse
from measuring import machine, measured, medians, ratios, write
from models import random_model, random_texts
from pairs import SIDES, trial, write_rows

OURS_ALONE = ("ppo", "a2c", "reinforce")
TASKS = ("grpo", "ppo", "dpo", "sft", "reward", "rloo", "a2c", "reinforce")
"""What tells most first."""
REPLIES = {"sft": 1, "reward": 2, "dpo": 2, "ppo": 1, "a2c": 1, "reinforce": 1}
"""Of a row; of GRPO and RLOO as many as are generated."""
SAMPLED_TOKENS = 64
"""Of each reply, where ways to sample are timed: some take a tenth of a second for each."""
TOLERANCE = 0.05
"""Of mean losses: in bfloat16, and with sampling, no two runs on a GPU are the same."""


@dataclass(frozen=True)
class Shape:
    """What is trained, and on how much.

    Attributes:
        model: of a Llama configuration, what is not its default.
        quantized: QLoRA in NF4; else LoRA.
        dtype: of the weights and of autocast.
        checkpointing: of gradients.
        batch: rows a step; online, prompts with `generations` replies each.
        words: tokens of a prompt and of a reply.
        steps, online_steps: of a training.
    """

    model: dict[str, Any]
    quantized: bool = False
    dtype: str = "bfloat16"
    checkpointing: bool = False
    batch: int = 8
    words: int = 128
    steps: int = 12
    online_steps: int = 4
    generations: int = 4


SMALL: dict[str, Any] = {
    "vocab_size": 151_936,
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "tie_word_embeddings": True,
}
LARGE: dict[str, Any] = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "intermediate_size": 18_944,
    "num_hidden_layers": 28,
    "num_attention_heads": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
}
SHAPES = {"0.5b": Shape(SMALL), "7b": Shape(LARGE, quantized=True, checkpointing=True)}


def prepared(shape: Shape, reward: Shape, folder: Path) -> dict[str, Any]:
    """Settings for both sides; the models and the rows are in `folder`."""
    import torch
    from transformers import LlamaConfig

    device = "cuda" if torch.cuda.is_available() else "cpu"
    folder.mkdir()
    found = {}
    for name, each, dtype in (("start", shape, shape.dtype), ("reward", reward, "float32")):
        config = LlamaConfig(**each.model)
        found[name] = random_model(folder / name, config, name == "reward", dtype, device)
    given = {
        **found,
        "batch": shape.batch,
        "steps": shape.steps,
        "online_steps": shape.online_steps,
        "response": shape.words,
        "generations": shape.generations,
        "learning_rate": 1e-4,
        "seed": 0,
        "dtype": shape.dtype,
        "quantized": shape.quantized,
        "training": {"bf16": shape.dtype == "bfloat16", "gradient_checkpointing": shape.checkpointing},
    }
    texts = (random_texts(shape.batch * max(shape.steps, shape.online_steps), shape.words, seed) for seed in range(3))
    write_rows(zip(*texts, strict=True), given, folder)
    return given


def batch_tokens(shape: Shape, task: str) -> int:
    """Tokens of prompts and replies of a batch; a prompt stands before each of its replies."""
    return shape.batch * REPLIES.get(task, shape.generations) * 2 * shape.words


def compare(
    shape: Shape,
    given: dict[str, Any],
    task: str,
    repeats: int,
    folder: Path,
    out_of_time: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """The runs of a training, at least one, their medians, and the ratios of these where both sides have it.

    Raises:
        SystemExit: when a run fails, or the losses of the two sides say that they did other work.
    """
    sides = [side for side in SIDES if side == "prefzoo" or task not in OURS_ALONE]
    runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
    for turn in range(repeats):
        if turn and out_of_time():
            break
        for side in sides if turn % 2 == 0 else sides[::-1]:
            runs[side].append(watched(side, task, shape, given, folder, f"{task}-{side}-{turn}"))
        print(f"{task}: {turn + 1} of {repeats}", file=sys.stderr)
    middle = {side: medians(each) for side, each in runs.items()}
    if len(sides) == 1:
        return {"medians": middle, "runs": runs}
    losses = [each["loss"] for each in middle.values()]
    if max(losses) - min(losses) > TOLERANCE:
        raise SystemExit(f"{task}: the losses differ ({losses}); the two sides did other work")
    return {"medians": middle, "runs": runs, "ratios": ratios(middle["prefzoo"], middle["trl"])}


def watched(side: str, task: str, shape: Shape, given: dict[str, Any], folder: Path, name: str) -> dict[str, float]:
    """A training, its tokens a second, and how busy the GPU was from its first step to its last."""
    with GpuUse() as use:
        run = trial(side, task, given, folder, name)
    times = json.loads((folder / name / "found.json").read_text())["times"]
    tokens = run["batches_per_second"] * batch_tokens(shape, task)
    return {**run, "tokens_per_second": tokens, **use.busy(times[0][0], times[-1][0])}


def part(script: str, settings: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What a script of this folder finds, in a process of its own."""
    name = Path(script).stem
    write(folder / f"{name}.json", {**settings, "out": str(folder / name)})
    measured([sys.executable, str(Path(__file__).with_name(script)), str(folder / f"{name}.json")], folder / name)
    found: dict[str, Any] = json.loads((folder / name / "found.json").read_text())
    return found


def table(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = []
    if sampling := found.get("sampling"):
        ways = list(next(iter(sampling["rows"].values())))
        lines = [f"| tokens a second (GPU busy) | {' | '.join(ways)} |", f"| --- |{' ---: |' * len(ways)}"]
        for rows, each in sampling["rows"].items():
            lines.append(f"| {rows} rows | {' | '.join(_rate(each[way]) for way in ways)} |")
        steps = {rows: "; ".join(each["replayed"]["steps"]) for rows, each in sampling["rows"].items()}
        lines += ["", f"Steps of `replayed`: {steps}.", ""]
    if stages := found.get("quickstart"):
        begin = stages["to_begin"]
        lines += [
            f"quickstart: {stages['seconds']:.0f} s; a stage begins after {begin['median']:.2f} s (median; at most "
            f"{begin['longest']:.2f}).",
            "",
        ]
    lines += [
        "| model | training | prefzoo tokens a second | TRL | ratio | GPU busy % | TRL | peak GiB | TRL | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, each in found["shapes"].items():
        for task, row in each.items():
            cells = [name, task]
            for key, unit in (("tokens_per_second", 1), ("gpu_busy", 1), ("peak_gpu_bytes", 2**30)):
                for side in SIDES:
                    value = row["medians"].get(side, {}).get(key)
                    cells.append("" if value is None else f"{value / unit:.1f}")
                if key != "gpu_busy":
                    ratio = row.get("ratios", {}).get(key)
                    cells.append("" if ratio is None else f"{ratio:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    if found["left_out"]:
        lines += ["", f"Not begun in time: {', '.join(found['left_out'])}."]
    lines += [f"Failed: {what}: {why}" for what, why in found["failed"].items()]
    return "\n".join(lines)


def _rate(way: dict[str, Any]) -> str:
    busy = f" ({way['gpu_busy']:.0f}%)" if "gpu_busy" in way else ""
    return f"{statistics.median(way['tokens_per_second']):,.0f}{busy}"


def parsed(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What was asked for; `arguments` are the command line's when left out."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--rows", type=int, nargs="*", default=[8, 128, 512], help="rows that are sampled side by side")
    parser.add_argument("--vllm", help="an interpreter that has vllm")
    parser.add_argument("--minutes", type=float, help="begin nothing later than this")
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    return parser.parse_args(arguments)


def main() -> None:
    asked = parsed()
    import torch

    if not torch.cuda.is_available():
        print("This machine has no GPU that torch can use: nothing was measured.")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    print(table(bench(asked, torch.cuda.get_device_name())), asked.out, sep="\n")


def bench(
    asked: argparse.Namespace,
    gpu: str,
    shapes: Mapping[str, Shape] = SHAPES,
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Everything that is begun in time, what tells most first; it is written after each part."""
    begun = clock()
    found: dict[str, Any] = {"gpu": gpu, "machine": machine(), "repeats": asked.repeats}
    found |= {"settings": {name: asdict(shape) for name, shape in shapes.items()}, "shapes": {}}
    found |= {"left_out": [], "failed": {}}

    def out_of_time() -> bool:
        return asked.minutes is not None and clock() - begun > 60 * asked.minutes

    with tempfile.TemporaryDirectory() as name:
        folder, small = Path(name), shapes["0.5b"]
        given = {"0.5b": prepared(small, small, folder / "0.5b")}
        some = {"start": given["0.5b"]["start"], "dtype": small.dtype, "words": small.words, "vllm": asked.vllm}
        sampling = {**some, "rows": asked.rows, "tokens": SAMPLED_TOKENS, "repeats": asked.repeats}

        def begin(what: str, work: Callable[[], Any]) -> Any:
            """What `work` finds; None where there is no time for it, or it fails, which is listed."""
            if out_of_time():
                found["left_out"].append(what)
                return None
            try:
                return work()
            except SystemExit as failure:
                found["failed"][what] = str(failure)
                return None

        def training(shape: str, task: str) -> dict[str, Any]:
            if shape not in given:
                given[shape] = prepared(shapes[shape], small, folder / shape)
            return compare(shapes[shape], given[shape], task, asked.repeats, folder / shape, out_of_time)

        found["sampling"] = begin("sampling", lambda: part("gpu_sampling.py", sampling, folder))
        write(asked.out, found)
        for shape in asked.shapes.split(","):
            tasks = found["shapes"][shape] = {}
            for task in asked.tasks.split(","):
                if (each := begin(f"{shape} {task}", partial(training, shape, task))) is not None:
                    tasks[task] = each
                write(asked.out, found)
        found["quickstart"] = begin("quickstart", lambda: part("gpu_stages.py", {}, folder))
        write(asked.out, found)
    return found


if __name__ == "__main__":
    main()
