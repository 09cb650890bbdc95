"""One training through prefzoo, with what `raw.py` is given; run as a process of its own.

    python ours.py SETTINGS.json

Like a trial of a comparison it trains and saves. A reward model is also loaded again, because its stage goes on to
measure it; a policy is measured in another process.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import gpu_memory, write

import prefzoo
from prefzoo.interface import Machinery
from prefzoo.settings import Adapter, Budget, Generation, Training
from prefzoo.views import Views


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Train; the times of the optimizer steps, and of the passes of a reference beforehand, the mean loss, and into how
    many optimizer steps a rollout is divided and how often it is learned from."""
    rows = json.loads(Path(given["rows"]).read_text())
    times: dict[str, list[tuple[float, float]]] = {}
    task, reward = given["task"], None
    if task not in ("sft", "reward", "dpo"):
        from prefzoo.rewards.reward_model import RewardModel

        reward = RewardModel.load(given["reward"])
    adapter = Adapter(type="qlora" if given.get("quantized") else "lora")
    bench = prefzoo.Bench(
        start=given["start"],
        data=Views(rows["prompts"], rows["preferences"], []),
        reward=reward,
        adapter=adapter,
        budget=Budget(prompts=len(rows["prompts"])),
        generation=Generation(max_new_tokens=given["response"]),
        training=Training(batch_size=given["batch"], learning_rate=given["learning_rate"], **given.get("training", {})),
        seed=given["seed"],
        out=Path(given["out"]),
        machinery=Machinery(loading={"dtype": given.get("dtype", "float32"), "quantization": adapter.quantization}),
        progress=lambda what, *_: times.setdefault(what, []).append((time.perf_counter(), time.process_time())),
    )
    rollout = {"minibatches": 1, "epochs": 1}
    if task == "reward":
        from prefzoo.rewards.train_reward import train_reward_model

        train_reward_model(bench, {})
    else:
        # Plain TRL takes nothing off a reply that was cut. What TRL does not have keeps its own number of replies.
        online: dict[str, Any] = {"missing_eos_penalty": 0.0} if reward else {}
        if task in ("grpo", "rloo"):
            online["generations"] = given["generations"]
        algorithm = prefzoo.get(task, **online)
        algorithm.train(bench)
        rollout = {name: getattr(algorithm, name, 1) for name in rollout}
    loss = json.loads((bench.out / "curves.json").read_text())[-1][-1]["train_loss"]
    reference = times.pop("reference", [])
    (steps,) = times.values()
    return {"times": steps, "reference": reference, "loss": loss, **rollout, **gpu_memory()}


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    write(Path(settings["out"]) / "found.json", main(settings))
