"""A search for settings whose trials are played: what a stage would leave is written, and nothing is trained."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefzoo.recipe import check_recipe as recipes
from prefzoo.run.executor import Outcome
from prefzoo.run.stage_graph import Stage
from prefzoo.run.tuning_record import save
from prefzoo.run.tuning_search import Search

RECIPE: dict[str, Any] = {
    "algorithms": {"dpo": {"beta": 0.1}, "ppo": {}, "rejection_sampling": {"n": 4}, "best_of_n": {}},
    "budget": {"prompts": 400},
    "tuning": {"trials": 6},
}
PROMPTS = 32


def checked(**changes: Any) -> Any:
    """The recipe with other keys of `tuning`, or other blocks."""
    blocks = {key: changes.pop(key) for key in list(changes) if key not in TUNING_KEYS}
    return recipes.check({**RECIPE, "tuning": {**RECIPE["tuning"], **changes}, **blocks})


TUNING_KEYS = ("trials", "sampler", "equal", "prompts", "budget", "seeds", "objective", "kl_penalty", "seed")


def quality(stage: Stage) -> float:
    """The best beta is 0.5, the best kl_coefficient 0.2, the best rate 0.001; n helps."""
    settings = stage.settings or {}
    rate = settings.get("trainer", {}).get("learning_rate", 0.002)
    off = abs(math.log(rate / 0.001)) / 4 + abs(math.log(settings.get("beta", 0.5) / 0.5))
    return -off - abs(math.log(settings.get("kl_coefficient", 0.2) / 0.2)) + math.log(settings.get("n", 4))


def cost(stage: Stage) -> float:
    """Of training on all prompts: in proportion to epochs for PPO, to samples for rejection sampling, up to a tenth."""
    settings = stage.settings or {}
    of = {
        "dpo": 1.0,
        "sft": 6.0,
        "ppo": 2.0 + settings.get("epochs", 4),
        "rejection_sampling": 0.4 * settings.get("n", 4),
    }
    return of.get(str(stage.label), 0.0) * random.Random(json.dumps(settings)).uniform(0.9, 1.1)


def play(plan: Any, stage: Stage) -> None:
    """Leave what a stage would."""
    stage.folder.mkdir(parents=True)
    if stage.kind == "data":
        parts = {name: {"prompts": count} for name, count in (("train", 400), ("validation", 64), ("test", 64))}
        (stage.folder / "manifest.json").write_text(json.dumps({"splits": parts}))
    if stage.kind != "tune":
        return
    rng = random.Random(f"{stage.label} {stage.settings} {stage.seed}")
    rows = [
        {"prompt": i, "reply": "x", "length": 5, "kl": 1.0, "gold": quality(stage) + rng.gauss(0, 0.1), "proxy": 3.0}
        for i in range(PROMPTS)
    ]
    (stage.folder / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    share = 1.0 if stage.prompts is None else stage.prompts / 400
    measuring = 0.2
    whole = {"flops": share * cost(stage) + measuring, "seconds": 1.0, "generated_tokens": 7}
    (stage.folder / "ledger.json").write_text(json.dumps(whole))
    (stage.folder / "measuring.json").write_text(json.dumps({"flops": measuring}))


def drive(search: Search, order: int = 0, most: int = 10**6, job: Callable = play) -> list[str]:
    """Run a search's stages as a runner does, the ready ones in a random order, until so many have run; their names."""
    rng, outcomes, ran = random.Random(order), dict[str, Outcome](), list[str]()
    while True:
        waiting = [stage for name, stage in search.plan.stages.items() if name not in outcomes]
        for stage in [each for each in waiting if each.done]:
            outcomes[stage.name] = Outcome("ok")
            search.ended(stage, Outcome("ok"))
        ready = [s for s in waiting if s.name not in outcomes and all(need in outcomes for need in s.needs)]
        lost = [stage for stage in ready if any(outcomes[need].status != "ok" for need in stage.needs)]
        if lost:
            outcomes[lost[0].name] = Outcome("skipped", "a need failed")
            search.ended(lost[0], outcomes[lost[0].name])
        elif ready and len(ran) < most:
            stage = rng.choice(ready)
            ran.append(stage.name)
            try:
                job(search.plan, stage)
                outcomes[stage.name] = Outcome("ok")
            except ValueError as error:
                outcomes[stage.name] = Outcome("failed", str(error))
            search.ended(stage, outcomes[stage.name])
        elif not any(stage.done and stage.name not in outcomes for stage in search.plan.stages.values()):
            return ran


def searched(out: Path, order: int = 0, job: Callable = play, **changes: Any) -> dict[str, Any]:
    search = Search(checked(**changes), out)
    drive(search, order, job=job)
    save(search)
    return json.loads((out / "tuning.json").read_text())
