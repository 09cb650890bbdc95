"""A comparison of five algorithms with three seeds beside raw TRL scripts that do the same work one after another.

    python benchmarks/speed/comparison.py [--prompts 400] [--seeds 3] [--repeats 3] [--out comparison.json]

On both sides a start is made by imitation and a reward model is trained on it, each once; then every algorithm is
trained with every seed on the same rows, and its replies to the test prompts are scored by that reward, with their KL
to the start. Without OMP_NUM_THREADS in the environment, the scripts (`raw.py`) have the machine's cores to themselves,
each in its turn, and ours divides them among its workers. Ours also reads and seals the data, measures the start,
scores by the lab's gold, and writes a report.

The ratio of times is that of whole processes: ours from the command to its report, theirs summed over the scripts. The
ratio of memory is that of the largest stage of ours to the largest script.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from measuring import machine, measured, write

HERE = Path(__file__).parent
ALGORITHMS: dict[str, dict[str, Any]] = {
    "sft": {},
    "dpo": {},
    "rejection_sampling": {"n": 4},
    "grpo": {"missing_eos_penalty": 0.0},  # plain TRL has none
    "rloo": {"missing_eos_penalty": 0.0},
}
GOALS = {"seconds": 0.5, "peak_bytes": 1.3}
COMMAND = "from prefzoo.cli import main; main()"


def recipe_of(prompts: int, seeds: int) -> dict[str, Any]:
    """The recipe of ours."""
    return {
        "extends": "base",
        "budget": {"prompts": prompts},
        "algorithms": ALGORITHMS,
        "seeds": seeds,
        "tracking": {"wandb": {"mode": "disabled"}},
    }


def prepared(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the scripts are given: the rows that our data stage makes, and the recipe's settings."""
    from prefzoo.commands.comparison import prepare_data
    from prefzoo.data import splits
    from prefzoo.data.row_views import views_of
    from prefzoo.lab import MODEL_DIR
    from prefzoo.recipe.check_recipe import load

    checked = load(recipe)
    place = prepare_data(recipe, out=folder / "data")
    train, test = (views_of(splits.load_split(place, name)) for name in ("train", "test"))
    rows = {name: list(getattr(train, name)) for name in ("prompts", "preferences", "demonstrations")}
    rows["test"] = list(test.prompts[: checked.evaluation.prompts])
    write(folder / "rows.json", rows)
    return {
        "rows": str(folder / "rows.json"),
        "base": str(MODEL_DIR),
        "batch": checked.training.batch_size,
        "learning_rate": checked.training.learning_rate,
        "response": checked.generation.max_new_tokens,
        "generations": 4,
        "seeds": checked.seeds,
    }


def with_scripts(given: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Every script in its turn: seconds and peak memory of each."""
    start, reward = str(folder / "start"), str(folder / "reward")
    work: list[tuple[str, dict[str, Any]]] = [
        ("start", {"task": "start", "seed": 0, "start": given["base"], "merge": start}),
        ("reward", {"task": "reward", "seed": 0, "start": start, "merge": reward}),
    ]
    for task in ALGORITHMS:
        for seed in given["seeds"]:
            more = {"task": task, "seed": seed, "start": start, "reward": reward, "evaluate": True}
            work.append((f"{task} seed {seed}", more))
    folder.mkdir()
    used = {}
    for name, more in work:
        out = folder / f"script-{name.replace(' ', '-')}"
        settings = out.with_suffix(".json")
        write(settings, {**given, **more, "out": str(out)})
        used[name] = measured([sys.executable, str(HERE / "raw.py"), str(settings)], out)
        print(f"script {name}: {used[name]['seconds']:.1f} s", file=sys.stderr)
    return {
        "seconds": sum(each["seconds"] for each in used.values()),
        "peak_bytes": max(each["peak_bytes"] for each in used.values()),
        "parts": used,
    }


def with_prefzoo(recipe: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The comparison: seconds from the command to its report, and peak memory of its largest stage."""
    path = folder.with_suffix(".yaml")
    write(path, recipe)  # JSON is YAML
    used = measured([sys.executable, "-c", COMMAND, "compare", str(path), "--out", str(folder / "run")], folder)
    results = json.loads((folder / "run" / "results.json").read_text())
    failed = {name: each["error"] for name, each in results["algorithms"].items() if each["status"] != "ok"}
    if failed:
        raise SystemExit(f"the comparison did not do all of its work: {failed}")
    ledgers = [seed["ledger"] for each in results["algorithms"].values() for seed in each["seeds"].values()]
    ledgers += list(results["shared"].values())
    peak = max(ledger.get("peak_memory_bytes", 0) for ledger in ledgers)
    print(f"prefzoo compare: {used['seconds']:.1f} s", file=sys.stderr)
    return {"seconds": used["seconds"], "peak_bytes": peak}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("comparison.json"))
    asked = parser.parse_args()
    recipe = recipe_of(asked.prompts, asked.seeds)
    sides: dict[str, list[dict[str, Any]]] = {"prefzoo": [], "scripts": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        given = prepared(recipe, folder)
        for turn in range(asked.repeats):
            for side in list(sides) if turn % 2 == 0 else list(sides)[::-1]:
                place = folder / f"{side}-{turn}"
                sides[side].append(with_prefzoo(recipe, place) if side == "prefzoo" else with_scripts(given, place))
    ours, theirs = ({key: median(run[key] for run in sides[side]) for key in GOALS} for side in sides)
    found = {
        "machine": machine(),
        "recipe": recipe,
        "goals": GOALS,
        "medians": {"prefzoo": ours, "scripts": theirs},
        "ratios": {key: ours[key] / theirs[key] for key in GOALS},
        "runs": sides,
    }
    write(asked.out, found)
    print({key: round(value, 3) for key, value in found["ratios"].items()}, asked.out)


if __name__ == "__main__":
    main()
