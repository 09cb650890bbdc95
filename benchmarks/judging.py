"""How fast the lab model judges pairs in both orders: ours beside a plain loop that generates one answer at a time.

    OMP_NUM_THREADS=4 python benchmarks/judging.py [--pairs 4096] [--looped 64] [--repeats 3] [--out judging.json]

The loop is what one writes first: a chat template, `generate`, and the letter that comes out, for each order of each
pair. It is timed on `looped` of the pairs, ours on all of them; the two take turns in one process, each repeat with
other looped pairs, after each has judged a few to warm up. Where the loop's two answers agree, ours must choose the
same reply, or the two did not do the same work. The goal is a ratio of 20 on 4 threads. Rates are told by processor
time too, because on a machine that others use too the clock says little. With several threads neither holds on a busy
machine: the loop's spend their time waiting for each other (0.3 pairs per second where one thread judges 20), and the
ratio flatters ours a hundredfold.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from measuring import machine, medians, ratios, write

GOAL = 20.0
SEED = 5
Sides = tuple[list[list[dict[str, str]]], list[str], list[str]]


def pairs(n: int) -> Sides:
    """Prompts of the lab's test split, each with two replies."""
    from prefzoo import lab

    rows = lab.preferences("test", n, SEED)
    first = [row["chosen" if i % 2 else "rejected"] for i, row in enumerate(rows)]
    second = [row["rejected" if i % 2 else "chosen"] for i, row in enumerate(rows)]
    return [[{"role": "user", "content": row["prompt"]}] for row in rows], first, second


def plain_loop() -> Callable[..., list[float]]:
    """P(first better) by one `generate` for each order of each pair: 1, 0, or one half where the orders differ."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from prefzoo.lab import MODEL_DIR
    from prefzoo.lab.tasks import judge_prompt

    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32).eval()

    def says_a(prompt: str, a: str, b: str) -> bool:
        asked = [{"role": "user", "content": judge_prompt(prompt, a, b)}]
        inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=8, do_sample=False)
        return tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip() == "A"

    def judge(prompts: Sequence[Any], first: Sequence[str], second: Sequence[str]) -> list[float]:
        users = [prompt[-1]["content"] for prompt in prompts]
        return [
            (says_a(*each) + (not says_a(each[0], each[2], each[1]))) / 2
            for each in zip(users, first, second, strict=True)
        ]

    return judge


def timed(judge: Callable[..., list[float]], sides: Sequence[Sequence[Any]]) -> tuple[dict[str, float], list[float]]:
    """Pairs per second of clock and of processor time, and the verdicts."""
    began, worked = time.perf_counter(), time.process_time()
    verdicts = judge(*sides)
    worked, began = time.process_time() - worked, time.perf_counter() - began
    return {"per_second": len(verdicts) / began, "per_cpu_second": len(verdicts) / worked}, verdicts


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=4096)
    parser.add_argument("--looped", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("judging.json"))
    args = parser.parse_args()
    if args.looped * args.repeats > args.pairs:
        raise SystemExit("--looped times --repeats must not exceed --pairs")
    here = machine()

    import torch

    from prefzoo.judges.local_judge import local_judge
    from prefzoo.lab import MODEL_DIR

    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", torch.get_num_threads())))
    loading = {"dtype": "float32", "trust_remote_code": False, "quantization": None}
    ours, loop, sides = local_judge(str(MODEL_DIR), True, loading), plain_loop(), pairs(args.pairs)
    for judge in (ours, loop):
        timed(judge, [side[-8:] for side in sides])
    runs, same, settled = [], 0, 0
    for repeat in range(args.repeats):
        part = slice(repeat * args.looped, (repeat + 1) * args.looped)
        load = os.getloadavg()[0]
        if repeat % 2:  # who comes first takes turns
            slow, plain = timed(loop, [side[part] for side in sides])
            fast, verdicts = timed(ours, sides)
        else:
            fast, verdicts = timed(ours, sides)
            slow, plain = timed(loop, [side[part] for side in sides])
        same += sum(p == (q > 0.5) for p, q in zip(plain, verdicts[part], strict=True) if p != 0.5)
        settled += sum(p != 0.5 for p in plain)
        runs.append({"ours": fast, "loop": slow, "ratio": ratios(fast, slow), "load": load})
        print({key: f"{fast[key]:.0f} pairs beside {slow[key]:.1f}" for key in fast}, f"load {load:.1f}", flush=True)
    if same < settled:
        raise SystemExit(f"where the loop's orders agree, only {same} of {settled} verdicts are the same")
    ratio = medians([run["ratio"] for run in runs])
    found = {
        "machine": {**here, "threads": torch.get_num_threads()},
        "pairs": args.pairs,
        "looped": args.looped,
        "repeats": args.repeats,
        "pairs_per": {side: medians([run[side] for run in runs]) for side in ("ours", "loop")},
        "ratio": ratio,
        "goal": GOAL,
        "same_verdicts": [same, settled],
        "runs": runs,
    }
    write(args.out, found)
    print(f"median of {args.repeats}: {ratio['per_second']:.1f} times as fast (goal {GOAL:.0f})")


if __name__ == "__main__":
    main()
