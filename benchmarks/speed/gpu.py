"""Our trainings on a GPU beside raw TRL's, at sizes that people train: peak memory, and tokens a second.

    python benchmarks/speed/gpu.py [--shapes 0.5b,7b] [--repeats 3] [--out gpu.json]       # or: make bench-gpu

Models with random weights, so that nothing is downloaded: Llamas of the shape of Qwen2.5-0.5B, with LoRA in bfloat16,
and of Qwen2.5-7B, with QLoRA in NF4 and gradient checkpointing. They lack Qwen's biases, fewer than one weight in
17,000; for a model of Qwen's own type transformers loads Qwen's tokenizer, whatever lies beside it. Sides, rows, steps
and alternation are those of `pairs.py`; PPO, A2C and REINFORCE are ours alone, because TRL has none. The reward of
online trainings has the shape of 0.5B on both sides.

Tokens a second are those of prompts and replies that are taken up (every generated reply once, however often it is
passed or learned from), by the time between the first and the last step, or the ends of the first and the last rollout;
a reference's passes before the training count. Replies of random weights practically never end before the
length limit. `peak_gpu_bytes` is the most that tensors held, loading included. Without a GPU nothing is measured.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import machine, medians, ratios, write
from models import random_model, random_texts
from pairs import OFFLINE, ONLINE, SIDES, trial, write_rows

OURS_ALONE = ("ppo", "a2c", "reinforce")
TASKS = (*OFFLINE, *ONLINE, *OURS_ALONE)
REPLIES = {"sft": 1, "reward": 2, "dpo": 2, "ppo": 1, "a2c": 1, "reinforce": 1}
"""Of a row; of GRPO and RLOO as many as are generated."""
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


def compare(shape: Shape, reward: Shape, tasks: Sequence[str], repeats: int, folder: Path) -> dict[str, Any]:
    """All runs of a shape, and for each task the medians, and their ratios where both sides have it.

    Raises:
        SystemExit: when a run fails, or the losses of the two sides say that they did other work.
    """
    given = prepared(shape, reward, folder)
    tables: dict[str, Any] = {}
    for task in tasks:
        sides = [side for side in SIDES if side == "prefzoo" or task not in OURS_ALONE]
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in sides}
        for turn in range(repeats):
            for side in sides if turn % 2 == 0 else sides[::-1]:
                run = trial(side, task, given, folder, f"{task}-{side}-{turn}")
                tokens = run["batches_per_second"] * batch_tokens(shape, task)
                runs[side].append({**run, "tokens_per_second": tokens})
            print(f"{task}: {turn + 1} of {repeats}", file=sys.stderr)
        middle = {side: medians(each) for side, each in runs.items()}
        tables[task] = {"medians": middle, "runs": runs}
        if len(sides) == 2:
            losses = [each["loss"] for each in middle.values()]
            if max(losses) - min(losses) > TOLERANCE:
                raise SystemExit(f"{task}: the losses differ ({losses}); the two sides did other work")
            tables[task]["ratios"] = ratios(middle["prefzoo"], middle["trl"])
    return {"shape": asdict(shape), "tasks": tables}


def table(found: dict[str, Any]) -> str:
    """What was found, as Markdown."""
    lines = [
        "| model | training | prefzoo tokens a second | TRL | ratio | prefzoo peak GiB | TRL | ratio |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, each in found["shapes"].items():
        for task, row in each["tasks"].items():
            cells = [name, task]
            for key, unit in (("tokens_per_second", 1), ("peak_gpu_bytes", 2**30)):
                for side in SIDES:
                    value = row["medians"].get(side, {}).get(key)
                    cells.append("" if value is None else f"{value / unit:.1f}")
                ratio = row.get("ratios", {}).get(key)
                cells.append("" if ratio is None else f"{ratio:.3f}")
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--shapes", default=",".join(SHAPES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("gpu.json"))
    asked = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("This machine has no GPU that torch can use: nothing was measured.")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = {
        "gpu": torch.cuda.get_device_name(),
        "machine": machine(),
        "repeats": asked.repeats,
        "shapes": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.shapes.split(","):
            place = Path(folder) / name
            found["shapes"][name] = compare(SHAPES[name], SHAPES["0.5b"], TASKS, asked.repeats, place)
            write(asked.out, found)
    print(table(found), asked.out, sep="\n")


if __name__ == "__main__":
    main()
