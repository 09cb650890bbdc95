"""How the settings of the first recipe were found: by `prefzoo tune`, on other data than the recipe compares on.

Each algorithm begins at its defaults and has the same number of trials, scored on validation prompts. What is best on
one set of rows may stand close to where training collapses on another: the `FINALISTS` that score highest are trained
once more on each of three other sets, and the best of their mean there wins. Data seeds are others than the recipe's,
so that none of its test prompts has a part in the choice.

    python benchmarks/tune_quickstart.py --work /tmp/tuned      # 216 trials at most; half an hour on 2 cores
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

FOUND = Path(__file__).parent / "results" / "tuned_quickstart.json"
RECIPE: dict[str, Any] = {
    "extends": "base",
    "data": {"seed": 1},
    "budget": {"prompts": 600},
    "algorithms": {
        "sft": {},
        "dpo": {},
        "ppo": {},
        "rejection_sampling": {"n": 4, "tune": {"n": False}},  # more samples are better, and cost as much more
        "rlaif": {},
        "constitutional_ai": {},
    },
    "tuning": {"trials": 12, "seeds": 3},  # one seed takes luck for quality
}
FINALISTS, OTHER_ROWS = 4, (2, 3, 4)
SHOWN = ("number", "settings", "state", "score", "standard_error", "seed_scores", "kl", "length")
"""What is kept of a trial."""


def finalists(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A label for each of the settings that scored highest, `LABEL-N` of trial N, with these settings."""
    from prefzoo.recipe.tuning_space import with_values

    chosen = {}
    for label, found in record["labels"].items():
        written = {key: value for key, value in RECIPE["algorithms"][label].items() if key != "tune"}
        scored = [trial for trial in found["trials"] if trial["score"] is not None]
        first = scored[0]["settings"]
        for trial in sorted(scored, key=lambda trial: -trial["score"])[:FINALISTS]:
            changed = {key: value for key, value in trial["settings"].items() if value != first[key]}
            chosen[f"{label}-{trial['number']}"] = {"algorithm": label, **with_values(written, changed)}
    return chosen


def kept(record: dict[str, Any]) -> dict[str, Any]:
    """A search without what each trial was charged."""
    labels = {
        label: {**found, "trials": [{key: trial[key] for key in SHOWN} for trial in found["trials"]]}
        for label, found in record["labels"].items()
    }
    return {**record, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/tuned_quickstart"), help="folder of the searches")
    given = parser.parse_args()
    import prefzoo

    record = prefzoo.tune(RECIPE, out=given.work / "search").record
    labels = finalists(record)
    scores: dict[str, list[float]] = {label: [] for label in labels}
    for seed in OTHER_ROWS:
        recipe = {**RECIPE, "data": {"seed": seed}, "algorithms": labels, "tuning": {"trials": 1}}  # as written
        final = prefzoo.tune(recipe, out=given.work / f"final-{seed}").record["labels"]
        for label in labels:
            scores[label].append(final[label]["trials"][0]["score"])
    winners = {}
    for name in RECIPE["algorithms"]:
        best = max((label for label in labels if labels[label]["algorithm"] == name), key=lambda one: sum(scores[one]))
        winners[name] = {key: value for key, value in labels[best].items() if key != "algorithm"}
    found = {
        "winners": winners,
        "data_seeds": {"search": RECIPE["data"]["seed"], "finals": OTHER_ROWS},
        "finals": {label: {"settings": labels[label], "scores": scores[label]} for label in labels},
        "search": kept(record),
    }
    FOUND.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    for label, settings in winners.items():
        print(f"  {label}: {settings}")


if __name__ == "__main__":
    main()
