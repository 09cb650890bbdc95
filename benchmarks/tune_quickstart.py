"""How the settings of the first recipe were found: by `prefzoo tune`, on other data than the recipe compares on.

Each algorithm begins at its defaults and has the same number of trials, scored on validation prompts. The rows come
from another data seed than the recipe's, so that none of its test prompts had a part in the choice.

    python benchmarks/tune_quickstart.py --work /tmp/tuned      # 72 trials, half an hour on 2 cores
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


SHOWN = ("number", "settings", "state", "score", "standard_error", "seed_scores", "kl", "length")
"""What is kept of a trial."""


def kept(record: dict[str, Any]) -> dict[str, Any]:
    """The search without what each trial was charged, and with the seed of its rows."""
    labels = {
        label: {**found, "trials": [{key: trial[key] for key in SHOWN} for trial in found["trials"]]}
        for label, found in record["labels"].items()
    }
    return {"data_seed": RECIPE["data"]["seed"], **record, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/tuned_quickstart"), help="folder of the search")
    given = parser.parse_args()
    import prefzoo

    found = prefzoo.tune(RECIPE, out=given.work)
    FOUND.write_text(json.dumps(kept(found.record), indent=1) + "\n", encoding="utf-8")
    for label, settings in found.winners.items():
        print(f"  {label}: {settings}")


if __name__ == "__main__":
    main()
