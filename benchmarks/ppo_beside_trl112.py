"""Our PPO beside the last one of TRL (1.12.0): speed, peak memory, and what is learned from equally many episodes.

    make bench-ppo                                      # both environments, then this, an hour
    python benchmarks/ppo_beside_trl112.py [--sizes lab,lab-slow,25m] [--seeds 3] [--out ppo_beside_trl112.json]

Each run is a process of its own, the sides in alternating order. They have one thread unless OMP_NUM_THREADS says
otherwise: threads that wait for each other tell nothing of a machine that others use too.
Equal on all sides: start, reward model (a sequence classifier, loaded as it is), prompts, replies a rollout, epochs,
minibatches, reply length, temperature, KL coefficient and estimator, clipping, gamma, lambda, value coefficient,
penalty of a cut reply, learning rate (constant), optimizer, the policy's LoRA, float32, no gradient checkpointing.

Not equal: the critic. `prefzoo` is our default, a second adapter on the policy's base with a new head;
`prefzoo-frozen` is `value_model: frozen`, a head of two layers on the start's last hidden states. TRL's is a model of
its own:
`trl` starts it from the reward model and trains it whole, as TRL's documentation does; `trl-lora` gives it an adapter
of the policy's shape. We clip the gradient's norm to 1, TRL's PPO does not clip it. We decode a reply and put it into
the reward model's own template; TRL scores the token ids, so that a cut reply has no end-of-turn token there.

`episodes_per_second` leaves out the first update and everything before and after training;
`episodes_per_cpu_second` counts the processor's time instead of the clock's. `sft` is our SFT on as many
rows as a rollout has, as long as prompt and reply together, beside which PPO's memory is judged. `lab` learns, and its
policies answer held-out prompts; `25m` has random weights and a vocabulary of 32,000, and only its speed and memory
are of interest.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import mean
from typing import Any

from measuring import machine, measured, medians, ratios, resident_bytes, write
from models import random_25m, random_texts

HERE = Path(__file__).parent
OURS = ("prefzoo", "prefzoo-frozen")
OTHERS = ("trl", "trl-lora")
CRITICS = {"prefzoo": "shared", "prefzoo-frozen": "frozen", "trl": "whole", "trl-lora": "lora", "sft": "none"}
SHARED = {
    "epochs": 4,
    "temperature": 1.0,
    "kl_coefficient": 0.05,
    "missing_eos_penalty": 1.0,
    "r": 16,
    "alpha": 32,
}
SIZES: dict[str, dict[str, Any]] = {
    "lab": {**SHARED, "model": "lab", "batch": 16, "updates": 50, "response": 40, "learning_rate": 2e-3},
    "lab-slow": {**SHARED, "model": "lab", "batch": 16, "updates": 50, "response": 40, "learning_rate": 5e-4},
    "25m": {**SHARED, "model": "25m", "batch": 8, "updates": 3, "response": 64, "learning_rate": 1e-4},
}
COSTS = ("seconds", "cpu_seconds", "episodes_per_second", "episodes_per_cpu_second", "peak_bytes", "own_bytes")
"""What has ratios; rewards may be of either sign."""
HELD_OUT = 256


def bench(given: dict[str, Any], out: Path, data: Any, reward: Any = None, **more: Any) -> Any:
    """What our algorithms are given."""
    import prefzoo
    from prefzoo.settings import Adapter, Budget, Generation, Training

    training = Training(
        batch_size=given["batch"],
        learning_rate=given["learning_rate"],
        lr_scheduler_type="constant",
        warmup_ratio=0.0,
    )
    return prefzoo.Bench(
        start=given["start"],
        data=data,
        reward=reward,
        adapter=Adapter(type="full") if given.get("adapter") == "full" else Adapter(r=given["r"], alpha=given["alpha"]),
        budget=Budget(prompts=len(data.prompts)),
        generation=Generation(max_new_tokens=given["response"], temperature=given["temperature"]),
        training=training,
        seed=given["seed"],
        out=out,
        **more,
    )


def with_prefzoo(given: dict[str, Any], out: Path) -> dict[str, Any]:
    """Our PPO: when each update was done, and the mean score of its replies."""
    import prefzoo
    import prefzoo.trainers.on_policy
    from prefzoo.rewards.reward_model import RewardModel
    from prefzoo.views import Views

    if given.get("stage"):
        import prefzoo.run.preload
    imported = resident_bytes()
    times: list[tuple[float, float]] = []

    def progress(what: str, done: int, total: int) -> None:
        if done % given["epochs"] == 0:
            times.append((time.perf_counter(), time.process_time()))

    data = Views(given["prompts"], [], [])
    prefzoo.get(
        "ppo",
        value_model=given["value"],
        kl_coefficient=given["kl_coefficient"],
        epochs=given["epochs"],
        missing_eos_penalty=given["missing_eos_penalty"],
        trainer={"logging_steps": given["epochs"]},
    ).train(bench(given, out, data, RewardModel.load(given["reward"]), progress=progress))
    curve = json.loads((out / "curves.json").read_text())[-1]
    scores = [entry["rollout/score"] for entry in curve if "rollout/score" in entry]
    return {"imported_bytes": imported, "times": times, "scores": scores}


def with_sft(given: dict[str, Any], out: Path) -> dict[str, Any]:
    """Our SFT on rows that are as long as prompt and reply of a rollout."""
    import prefzoo
    import prefzoo.trainers.fitting
    from prefzoo.views import Views

    text = " ".join(["w7"] * (given["response"] - 1))  # and the token that ends it
    rows = [{"prompt": p, "completion": [{"role": "assistant", "content": text}]} for p in given["prompts"]]
    imported = resident_bytes()
    prefzoo.get("sft", on="demonstrations").train(bench(given, out, Views(given["prompts"], [], rows)))
    return {"imported_bytes": imported}


def evaluated(given: dict[str, Any], policies: list[Path]) -> list[dict[str, float]]:
    """Reward, gold, KL to the start and length of each policy's replies to held-out prompts, all sampled alike."""
    from peft import PeftModel

    from prefzoo import lab
    from prefzoo.models.language_model import LanguageModelPolicy
    from prefzoo.rewards.reward_model import RewardModel
    from prefzoo.settings import Generation

    rows = [row["prompt"] for row in lab.prompts("test", HELD_OUT, 0)]
    prompts = [[{"role": "user", "content": prompt}] for prompt in rows]
    reward = RewardModel.load(given["reward"])
    generation = Generation(max_new_tokens=given["response"], temperature=given["temperature"])
    found = []
    for folder in (None, *policies):
        policy = LanguageModelPolicy.from_start(given["start"])
        if folder is not None:
            adapted = PeftModel.from_pretrained(policy.model, str(folder)).eval()
            policy = LanguageModelPolicy(adapted, policy.tokenizer, given["start"])
        replies = [each[0] for each in policy.sample(prompts, generation, seed=0)]
        texts = [reply.text for reply in replies]
        found.append(
            {
                "reward": mean(reward(prompts, texts)),
                "gold": mean(map(lab.gold, rows, texts)),
                "kl": mean(policy.kl_to_start(prompts, replies)) if folder else 0.0,
                "length": mean(len(reply.token_ids) for reply in replies),
            }
        )
    return found


def prepare_lab(given: dict[str, Any], folder: Path) -> None:
    """The bundled model as the start, and a reward model trained whole on the lab's preferences."""
    from prefzoo import lab
    from prefzoo.rewards.train_reward import train_reward_model
    from prefzoo.views import Views

    pairs = [
        {
            "prompt": [{"role": "user", "content": pair["prompt"]}],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
        for pair in lab.preferences("train", 1500, 0)
    ]
    given["start"] = str(lab.MODEL_DIR)
    whole = {**given, "adapter": "full", "batch": 16, "learning_rate": 5e-4, "seed": 0}
    data = Views([pair["prompt"] for pair in pairs], pairs, [])
    train_reward_model(bench(whole, folder, data), {})
    given["reward"] = str(folder / "reward")
    asked = lab.prompts("train", given["batch"] * given["updates"], 1)
    given["prompts"] = [[{"role": "user", "content": row["prompt"]}] for row in asked]


def prepare_25m(given: dict[str, Any], folder: Path) -> None:
    """`random_25m` as the start and the reward; prompts of words at random, about as long as the replies."""
    given |= random_25m(folder)
    texts = random_texts(given["batch"] * given["updates"], words=60, seed=0)
    given["prompts"] = [[{"role": "user", "content": text}] for text in texts]


def command(side: str, other_python: Path) -> list[str]:
    """What trains a side, to be followed by the file of its settings."""
    if side in OTHERS:
        return [str(other_python), str(HERE / "trl112" / "train.py")]
    return [sys.executable, __file__, "--child", "sft" if side == "sft" else "ppo", "--settings"]


def trial(begun: list[str], given: dict[str, Any], out: Path) -> dict[str, Any]:
    """One run: what its process used, and how fast its updates were after the first.

    Args:
        begun: its command, to be followed by the file of its settings.
    """
    settings = out.with_suffix(".json")
    write(settings, {**given, "out": str(out)})
    used: dict[str, Any] = measured([*begun, str(settings)], out)
    found = json.loads((out / "found.json").read_text())
    used["imported_bytes"] = found["imported_bytes"]
    used["own_bytes"] = used["peak_bytes"] - found["imported_bytes"]
    if "times" in found:
        first, *_, last = found["times"]
        episodes = given["batch"] * (len(found["times"]) - 1)
        for what, begin, end in zip(("second", "cpu_second"), first, last, strict=True):
            used[f"episodes_per_{what}"] = episodes / (end - begin)
        used["scores"] = found["scores"]
    return used


def compare(size: str, seeds: int, other_python: Path, folder: Path) -> dict[str, Any]:
    """All runs of a size, their medians, and the ratios of ours to each other's."""
    given, where = dict(SIZES[size]), machine()
    folder.mkdir()
    {"lab": prepare_lab, "25m": prepare_25m}[given["model"]](given, folder)
    sides = (*OURS, *OTHERS, *(["sft"] if given["model"] == "25m" else []))
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for seed in range(seeds):
        for side in sides if seed % 2 == 0 else sides[::-1]:
            own = {**given, "seed": seed, "value": CRITICS[side]}
            runs[side].append(trial(command(side, other_python), own, folder / f"{side}-{seed}"))
            print(f"{size}: {side}, seed {seed}", runs[side][-1].get("episodes_per_second"), file=sys.stderr)
    found: dict[str, Any] = {"settings": SIZES[size], "seeds": seeds, "machine": where, "runs": runs}
    if given["model"] == "lab":
        learners = [(side, seed) for side, seed in itertools.product(sides, range(seeds))]
        start, *rest = evaluated(given, [folder / f"{side}-{seed}" / "policy" for side, seed in learners])
        found["start"] = start
        for (side, seed), each in zip(learners, rest, strict=True):
            runs[side][seed].update(each)
    numbers = {side: [{k: v for k, v in run.items() if k != "scores"} for run in each] for side, each in runs.items()}
    found["medians"] = {side: medians(each) for side, each in numbers.items()}
    found["ratios"] = {
        f"{mine} / {other}": ratios({k: found["medians"][mine].get(k, 0.0) for k in COSTS}, found["medians"][other])
        for mine in OURS
        for other in sides
        if other not in OURS
    }
    return found


def show(size: str, found: dict[str, Any]) -> None:
    """A table of the medians, with the ratios of ours to theirs below."""
    units = {
        "episodes_per_second": 1,
        "episodes_per_cpu_second": 1,
        "seconds": 1,
        "peak_bytes": 2**20,
        "own_bytes": 2**20,
    }
    units |= {"reward": 1, "gold": 1, "kl": 1}
    print(f"\n{size:24}" + "".join(f"{what:>24}" for what in units))
    for side, each in found["medians"].items():
        cells = (f"{each[what] / unit:24.2f}" if what in each else f"{'-':>24}" for what, unit in units.items())
        print(f"{side:24}" + "".join(cells))
    for side, each in found["ratios"].items():
        cells = (f"{each[what]:24.2f}" if what in each else f"{'-':>24}" for what in units)
        print(f"{side:24}" + "".join(cells))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", default=",".join(SIZES))
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trl112", type=Path, default=Path(".venv-trl112/bin/python"), help="the other's Python")
    parser.add_argument("--out", type=Path, default=Path("ppo_beside_trl112.json"), help="keeps other sizes in it")
    parser.add_argument("--child", choices=("ppo", "sft"), help=argparse.SUPPRESS)
    parser.add_argument("--settings", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        settings = json.loads(given.settings.read_text())
        out = Path(settings["out"])
        write(out / "found.json", {"ppo": with_prefzoo, "sft": with_sft}[given.child](settings, out))
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    found: dict[str, Any] = json.loads(given.out.read_text()) if given.out.is_file() else {"sizes": {}}
    with tempfile.TemporaryDirectory() as folder:
        for size in given.sizes.split(","):
            found["sizes"][size] = compare(size, given.seeds, given.trl112, Path(folder) / size)
            show(size, found["sizes"][size])
            write(given.out, found)
    print(given.out)


if __name__ == "__main__":
    main()
