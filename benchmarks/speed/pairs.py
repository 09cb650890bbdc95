"""Our trainings beside raw TRL's: whole-process time, steady-state steps per second, peak memory.

    python benchmarks/speed/pairs.py [--sizes lab,25m] [--tasks sft,reward,dpo,grpo,rloo] [--repeats 5] [--out FILE]

Both sides have the same model, rows and settings, and run one after the other in alternating order, each in a process
of its own with one thread unless OMP_NUM_THREADS says otherwise. Both load the model, train and save. Ours also counts
tokens for the ledger, writes its curves, keeps a checkpoint a minute, says what was used, and loads a reward model that
was saved again. Their mean losses must agree, or the two did not do the same work. Steps per second leave out the first
step and all that is before and after training; ratios are the medians'.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import machine, measured, medians, ratios, write
from models import random_25m, random_texts

HERE = Path(__file__).parent
SIDES = {"prefzoo": "ours.py", "trl": "raw.py"}
OFFLINE, ONLINE = ("sft", "reward", "dpo"), ("grpo", "rloo")
GOAL = 1.03
SIZES: dict[str, dict[str, Any]] = {
    "lab": {"batch": 16, "steps": 100, "online_steps": 25, "response": 40, "learning_rate": 1e-3},
    "25m": {"batch": 8, "steps": 12, "online_steps": 3, "response": 64, "learning_rate": 1e-4},
}
"""Online, a step is `generations` replies to each of `batch` prompts."""
TOLERANCE = 1e-4


def prepared(size: str, folder: Path) -> dict[str, Any]:
    """Settings for both sides; the model, the reward model and the rows are in `folder`."""
    folder.mkdir()
    given = {**SIZES[size], "seed": 0, "generations": 4}
    count = given["batch"] * given["steps"]
    if size == "lab":
        from prefzoo import lab

        pairs = [(p["prompt"], p["chosen"], p["rejected"]) for p in lab.preferences("train", count, 0)]
        given["start"] = str(lab.MODEL_DIR)
        given["reward"] = reward_of(given["start"], folder)
    else:
        given |= random_25m(folder)
        words = 60
        pairs = list(zip(*(random_texts(count, words, seed) for seed in range(3)), strict=True))
    write_rows(pairs, given, folder)
    return given


def write_rows(pairs: Iterable[Sequence[str]], given: Mapping[str, Any], folder: Path) -> None:
    """Prompts with chosen and rejected replies as the trainers take them, as many as the steps need."""
    rows = [
        {
            "prompt": [{"role": "user", "content": prompt}],
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
        for prompt, chosen, rejected in pairs
    ]
    for kind, steps in (("offline", given["steps"]), ("online", given["online_steps"])):
        some = rows[: given["batch"] * steps]
        write(folder / f"{kind}.json", {"prompts": [row["prompt"] for row in some], "preferences": some})


def reward_of(start: str, folder: Path) -> str:
    """A sequence classifier with a new head: what it says does not matter for speed, only that both sides ask it."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(start, num_labels=1, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(start)
    model.config.pad_token_id = tokenizer.pad_token_id
    model.save_pretrained(str(folder / "reward"))
    tokenizer.save_pretrained(str(folder / "reward"))
    return str(folder / "reward")


def trial(side: str, task: str, given: Mapping[str, Any], folder: Path, name: str) -> dict[str, float]:
    """One training in a process of its own: what it used, its speed, its loss."""
    out, settings = folder / name, folder / f"{name}.json"
    rows = folder / ("offline.json" if task in OFFLINE else "online.json")
    write(settings, {**given, "task": task, "rows": str(rows), "out": str(out)})
    used = measured([sys.executable, str(HERE / SIDES[side]), str(settings)], out)
    found = json.loads((out / "found.json").read_text())
    used |= speed(**{name: found[name] for name in ("times", "reference", "minibatches", "epochs") if name in found})
    if "peak_gpu_bytes" in found:
        used["peak_gpu_bytes"] = found["peak_gpu_bytes"]
    return {**used, "loss": found["loss"]}


def speed(
    times: Sequence[Sequence[float]],
    reference: Sequence[Sequence[float]] = (),
    minibatches: int = 1,
    epochs: int = 1,
) -> dict[str, float]:
    """Optimizer steps a second and a processor second, and new batches a second, of which each is learned from `epochs`
    times.

    Args:
        times: when each optimizer step was done, by the clock and by the processor.
        reference: when each pass of a reference before the training was done. The steps share in their time, in which
            the first pass, not seen from its beginning, counts as the others.
        minibatches: optimizer steps that a rollout is divided into, in each of its epochs.
        epochs: how often a rollout is learned from.

    Raises:
        SystemExit: when there is only one rollout or step: what it took cannot be told from what was before it.
    """
    ends = times[minibatches * epochs - 1 :: minibatches * epochs]
    if len(ends) < 2 or len(reference) == 1:
        raise SystemExit(f"{len(times)} steps, {len(reference)} passes of a reference: too few to tell their speed")
    found, steps = {}, (len(ends) - 1) * minibatches * epochs
    for i, what in enumerate(("second", "cpu_second")):
        spent = ends[-1][i] - ends[0][i]
        if reference:
            passes = (reference[-1][i] - reference[0][i]) * len(reference) / (len(reference) - 1)
            spent += passes * steps / len(times)
        found[f"steps_per_{what}"] = steps / spent
    return {**found, "batches_per_second": found["steps_per_second"] / epochs}


def compare(size: str, tasks: list[str], repeats: int, folder: Path) -> dict[str, Any]:
    """All runs of a size, and for each task the medians and their ratios."""
    given = prepared(size, folder)
    tables = {}
    for task in tasks:
        runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for turn in range(repeats):
            for side in list(SIDES) if turn % 2 == 0 else list(SIDES)[::-1]:
                runs[side].append(trial(side, task, given, folder, f"{task}-{side}-{turn}"))
            print(f"{size} {task}: pair {turn + 1} of {repeats}", file=sys.stderr)
        losses = sorted({run["loss"] for each in runs.values() for run in each})
        if losses[-1] - losses[0] > TOLERANCE:
            raise SystemExit(f"{size} {task}: the losses differ ({losses}); the two sides did other work")
        middle = {side: medians(each) for side, each in runs.items()}
        tables[task] = {"medians": middle, "ratios": ratios(middle["prefzoo"], middle["trl"]), "runs": runs}
    return {"settings": SIZES[size], "tasks": tables}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--tasks", default=",".join((*OFFLINE, *ONLINE)))
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("speed.json"))
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = {"machine": machine(), "repeats": asked.repeats, "goal": GOAL, "sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for size in asked.sizes.split(","):
            found["sizes"][size] = compare(size, asked.tasks.split(","), asked.repeats, Path(folder) / size)
            write(asked.out, found)
    for size, each in found["sizes"].items():
        for task, table in each["tasks"].items():
            print(f"{size:4} {task:7}", {key: round(value, 3) for key, value in table["ratios"].items()})
    print(asked.out)


if __name__ == "__main__":
    main()
