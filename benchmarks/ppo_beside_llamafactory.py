"""Our PPO beside LLaMA-Factory's (0.9.3, on trl 0.9.6), both with the reward as an adapter on the policy's own base:
speed and peak memory.

    make bench-llamafactory                             # its environment, then this
    python benchmarks/ppo_beside_llamafactory.py [--runs 3] [--updates 3] [--out ppo_beside_llamafactory.json]

Model, prompts and settings are those of size `25m` in `ppo_beside_trl112`, and so is how runs are measured. The reward
is an adapter of the policy's shape with random weights, the same for both, each given it in its own files.

Not equal: LLaMA-Factory's critic is one head on the policy's own hidden states and learns in the policy's pass, ours is
an adapter with a head and learns in a pass of its own. LLaMA-Factory's KL coefficient cannot be set (0.2, adaptive),
and it has no penalty of a cut reply. Its autocast to bfloat16 is off here, see `llamafactory/train.py`. `prefzoo` has
the allocator of a plain Python process, `prefzoo-stage` the thresholds that each process of `prefzoo compare` sets.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, medians, ratios, write
from ppo_beside_trl112 import COSTS, HERE, SIZES, prepare_25m, show, trial

BEGUN = [sys.executable, str(HERE / "ppo_beside_trl112.py"), "--child", "ppo", "--settings"]
SIDES: dict[str, dict[str, Any]] = {
    "prefzoo": {"value": "shared"},
    "prefzoo-stage": {"value": "shared", "stage": True},
    "llamafactory": {},
}


def random_reward(given: dict[str, Any], folder: Path) -> str:
    """A reward model in our files: an adapter with random weights on the start, and a random head."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(given["start"], num_labels=1)
    shape = {"r": given["r"], "lora_alpha": given["alpha"], "target_modules": "all-linear"}
    adapted = get_peft_model(
        model, LoraConfig(**shape, task_type="SEQ_CLS", modules_to_save=["score"], init_lora_weights=False)
    )
    adapted.save_pretrained(str(folder))
    write(folder / "reward.json", {"loading": {}, "base": given["start"]})
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--updates", type=int, default=SIZES["25m"]["updates"])
    parser.add_argument("--python", type=Path, default=Path(".venv-llamafactory/bin/python"), help="the other's")
    parser.add_argument("--out", type=Path, default=Path("ppo_beside_llamafactory.json"))
    asked = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    given = {**SIZES["25m"], "updates": asked.updates}
    found: dict[str, Any] = {"machine": machine(), "settings": dict(given), "loads": []}
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in SIDES}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        prepare_25m(given, folder)
        given["reward"] = random_reward(given, folder / "adapter")
        other = [str(asked.python), str(HERE / "llamafactory" / "train.py")]
        for seed in range(asked.runs):
            for side in list(SIDES) if seed % 2 == 0 else list(SIDES)[::-1]:
                found["loads"].append(os.getloadavg()[0])
                begun = BEGUN if side.startswith("prefzoo") else other
                runs[side].append(trial(begun, {**given, **SIDES[side], "seed": seed}, folder / f"{side}-{seed}"))
                print(side, seed, runs[side][-1]["episodes_per_cpu_second"], file=sys.stderr)
            each = {
                side: medians([{k: v for k, v in run.items() if k in COSTS} for run in done])
                for side, done in runs.items()
            }
            found |= {"runs": runs, "medians": each}
            found["ratios"] = {
                f"{side} / llamafactory": ratios(each[side], each["llamafactory"])
                for side in SIDES
                if side != "llamafactory"
            }
            write(asked.out, found)
    show("25m, reward an adapter", found)
    print(asked.out)


if __name__ == "__main__":
    main()
