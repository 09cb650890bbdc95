"""What `test_distributed` starts twice: trains one algorithm and notes what each process ended with.

accelerate launch --multi_gpu --num_processes 2 tests/two_processes.py \
    ALGORITHM[?SETTING=VALUE[&..]][,ALGORITHM or FILE.py ..] OUT [ADAPTER [STEP]]

With STEP, its processes are killed at the end of that step, and a checkpoint is written after each one before.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import yaml
from torch.distributed.tensor import DTensor

from prefzoo import get, lab
from prefzoo.data.formats import Row
from prefzoo.data.row_views import views_of
from prefzoo.interface import Bench, Machinery
from prefzoo.lab import MODEL_DIR
from prefzoo.plugins import load_plugins
from prefzoo.registry import load
from prefzoo.rewards import train_reward
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.settings import Adapter, Budget, Generation, Shaping, Training
from prefzoo.trainers import checkpoints, divided_weights, fitting, milestones, online
from prefzoo.trainers.on_policy import ActorCriticTrainer


def brevity(prompts, completions) -> list[float]:
    return [-len(text) / 20 for text in completions]


def spent(bench: Bench) -> dict[str, float]:
    return {key: value for key, value in dataclasses.asdict(bench.ledger).items() if key != "seconds"}


def main(name: str, out: Path, adapter: str = "lora", killed: str = "0") -> None:
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    pairs = lab.preferences("train", 16, 3)
    rows = [
        Row(p["id"], [{"role": "user", "content": p["prompt"]}], p["chosen"], p["rejected"], None, p["slice"])
        for p in pairs
    ]

    def progress(what: str, done: int, total: int) -> None:
        if done == int(killed) and what != "reference":
            os._exit(9)

    if int(killed):
        checkpoints.CHECKPOINT_INTERVAL_SECONDS = 0.0
    bench = Bench(
        start=str(MODEL_DIR),
        data=views_of(rows),
        reward=brevity,  # type: ignore[arg-type]
        adapter=Adapter(r=4, alpha=8) if adapter == "lora" else Adapter(type="full"),
        budget=Budget(prompts=16, epochs=1),
        generation=Generation(max_new_tokens=16),
        training=Training(batch_size=8, learning_rate=1e-3 if adapter == "lora" else 1e-4),
        seed=7,
        out=out,
        progress=progress,
        machinery=Machinery(milestones=1, shaping=Shaping(normalize=True)),
    )
    rated = bench.replace(
        data=views_of([dataclasses.replace(r, reply=r.chosen, rating=float(i)) for i, r in enumerate(rows)])
    )
    shape = online.shaped
    shapings: list[tuple[list[float], list[float]]] = []

    def keep(scores: list[float], *more: Any) -> list[float]:
        shapings.append((scores, shape(scores, *more)))
        return shapings[-1][1]

    online.shaped = keep
    remove = ActorCriticTrainer.remove_critic
    ended: dict[str, float] = {}
    charged: dict[str, dict[str, float]] = {}
    shards: Counter[str] = Counter()
    whole_model = divided_weights.whole_model

    def note_shards(trainer: Any) -> Any:
        for name in ("model", "ref_model"):
            for weight in (getattr(trainer, name, None) or torch.nn.Module()).parameters():
                divided = isinstance(weight, DTensor)
                where = f"{weight.placements} over {weight.device_mesh.size()}" if divided else "whole"
                shards[f"{name}: {where}"] += 1
        return whole_model(trainer)

    for module in (fitting, milestones, train_reward):
        module.whole_model = note_shards  # type: ignore[attr-defined]

    def note(self: ActorCriticTrainer) -> None:
        for key, weight in self.model.named_parameters():
            if ".value." in key or "value_head" in key:
                ended[key] = divided_weights.gathered(weight).double().sum().item()
        remove(self)

    ActorCriticTrainer.remove_critic = note  # type: ignore[method-assign]
    for part in name.split(","):
        before = spent(bench)
        if part.endswith(".py"):
            load_plugins([part])
        rewards = part in ("bradley_terry", "regression")
        if rewards:
            train_reward_model(rated, {"logging_steps": 1}, part)  # type: ignore[arg-type]
        else:
            algorithm, _, words = part.removesuffix(".py").rpartition("/")[2].partition("?")
            settings = dict(yaml.safe_load(word.replace("=", ": ")).popitem() for word in words.split("&") if word)
            if load(algorithm).config:  # loops have none
                settings["trainer"] = {"logging_steps": 1}
            policy = get(algorithm, **settings).train(bench)
            for key, weight in getattr(policy, "policy", policy).model.named_parameters():
                if "lora_" in key or adapter == "full":
                    ended[f"{part} {key}"] = weight.double().sum().item()
        charged[part] = {key: value - before[key] for key, value in spent(bench).items()}
        if rank == "0":  # the next one takes the folder
            shutil.copytree(
                out / ("reward" if rewards else "policy"), out / f"trained-{Path(part).name.removesuffix('.py')}"
            )
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    content = {
        "world": world,
        "ended": ended,
        "ledger": spent(bench),
        "memory": bench.machinery.memory,
        "shapings": shapings,
    }
    content |= {"shards": shards, "report": bench.report, "charged": charged}
    (out / f"ended-{rank}.json").write_text(json.dumps(content))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
