"""Does SimPO gain less length than DPO from labels that favour length (Meng et al. 2024,
https://arxiv.org/abs/2405.14734, section 4: its rewards do not grow with length)?

Two comparisons of the same prompts, replies, start and seeds. In the first, pairs are labelled by gold with
Bradley-Terry noise. In the second the longer reply is chosen in a share of the pairs, whatever gold says. Told is how
much longer each algorithm's replies get by that, in tokens, and how this differs from DPO: a difference of differences,
paired by seed and prompt. Beside SimPO stand two that change one thing of DPO each: `dpo_norm`, which divides by the
length, and `rdpo`, which takes a penalty off.

    python benchmarks/replications/simpo_length_bias.py      # some 15 minutes on 2 cores
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import prefzoo
from prefzoo.lab.gold_reward import breakdown
from prefzoo.lab.lab_source import labelled_rows
from prefzoo.results.analysis import read_tables
from prefzoo.results.results_schema import Results
from prefzoo.results.statistics import Estimate, estimate

ALGORITHMS: dict[str, dict[str, Any]] = {
    name: {"trainer": {"learning_rate": 1e-3}} for name in ("dpo", "simpo", "dpo_norm", "rdpo")
}
"""At the lab's default rate some of them run away from the start, to replies of a length of their own (docs/log.md)."""
BIASED = 0.5
"""Share of the pairs in which length alone decides."""
SHARPNESS = 1.2
"""Of the other labels: P(a over b) = sigmoid(SHARPNESS * (gold of a - gold of b))."""
ROWS = 2400
"""Lab rows; 70% of them are training rows."""
GOLD = """
from prefzoo.lab.gold_reward import breakdown

def gold(prompts, completions):
    return [sum(breakdown(p[-1]["content"], c).values()) for p, c in zip(prompts, completions)]
"""
RESULT = Path(__file__).parents[1] / "results" / "simpo_length_bias.json"


def write_world(folder: Path, biased: float) -> dict[str, int]:
    """Write pairs and demonstrations; return in how many pairs, whose replies differ in length, the longer one is
    chosen."""
    rng = random.Random(0)
    pairs, demonstrations, longer, unequal = [], [], 0, 0
    for row in labelled_rows("train", ROWS, seed=3):
        prompt, replies = row.prompt[-1]["content"], sorted((str(row.chosen), str(row.rejected)))
        lengths = [len(reply.split()) for reply in replies]
        gold = [sum(breakdown(prompt, reply).values()) for reply in replies]
        by_length, by_gold = rng.random() < biased, rng.random() < 1 / (1 + math.exp(SHARPNESS * (gold[1] - gold[0])))
        first = lengths[0] > lengths[1] if by_length and lengths[0] != lengths[1] else by_gold
        chosen, rejected = replies if first else replies[::-1]
        pairs.append({"prompt": prompt, "chosen": chosen, "rejected": rejected})
        demonstrations.append({"prompt": prompt, "completion": row.demonstration})
        unequal += lengths[0] != lengths[1]
        longer += len(chosen.split()) > len(rejected.split())
    folder.mkdir(parents=True, exist_ok=True)
    for name, rows in (("pairs", pairs), ("demonstrations", demonstrations)):
        (folder / f"{name}.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    (folder / "gold.py").write_text(GOLD, encoding="utf-8")
    return {"longer_chosen": longer, "pairs": unequal}


def recipe(folder: Path, prompts: int) -> dict[str, Any]:
    files = {name: str(folder / f"{name}.jsonl") for name in ("preferences", "demonstrations")}
    files["preferences"] = str(folder / "pairs.jsonl")
    return {
        "extends": "base",
        "data": {"source": None, **files},
        "gold": {"path": f"{folder / 'gold.py'}:gold"},
        "generation": {"max_new_tokens": 40},
        "budget": {"prompts": prompts},
        "algorithms": ALGORITHMS,
        "tracking": {"wandb": {"mode": "disabled"}},
    }


def tables(found: Results, out: Path) -> dict[str, dict[str, np.ndarray]]:
    """label -> metric -> (seeds x prompts)."""
    folders = {
        label: [(out / trial.replies).parent for trial in each.seeds.values()]
        for label, each in found.algorithms.items()
    }
    return {label: read_tables(each, ("length", "gold", "kl")) for label, each in folders.items()}


def told(number: Estimate) -> dict[str, Any]:
    return {"mean": number.mean, "ci95": [number.low, number.high]}


def summary(worlds: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> dict[str, dict[str, Any]]:
    """Of each algorithm: length, gold and KL in both worlds, what bias adds to the length, and that less DPO's."""
    rows: dict[str, dict[str, Any]] = {}
    for label in ("start", *ALGORITHMS):
        row: dict[str, Any] = {
            world: {metric: told(estimate(table)) for metric, table in of_world[label].items()}
            for world, of_world in worlds.items()
        }
        added = {
            name: {k: worlds["biased"][name][k] - worlds["unbiased"][name][k] for k in ("length", "gold")}
            for name in (label, "dpo")
        }
        row["added_by_bias"] = {k: told(estimate(table)) for k, table in added[label].items()}
        if label not in ("start", "dpo"):
            row["added_less_dpo"] = {k: told(estimate(added[label][k] - added["dpo"][k])) for k in added[label]}
        rows[label] = row
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--out", type=Path, default=Path("runs/simpo_length_bias"))
    given = parser.parse_args()
    worlds, labels = {}, {}
    for world, biased in (("unbiased", 0.0), ("biased", BIASED)):
        folder = given.out.resolve() / world
        labels[world] = write_world(folder, biased)
        found = prefzoo.compare(recipe(folder, given.prompts), seeds=given.seeds, out=folder / "run")
        worlds[world] = tables(found, folder / "run")
    rows = summary(worlds)
    content = {"seeds": given.seeds, "prompts": given.prompts, "biased": BIASED, "labels": labels, "algorithms": rows}
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    for world, counts in labels.items():
        print(f"{world}: the longer reply is chosen in {counts['longer_chosen'] / counts['pairs']:.0%} of pairs")
    print(f"{'':10}{'tokens':>16}{'gold':>16}   added by the bias: tokens [95%]     less DPO's [95%]")
    for label, row in rows.items():
        both = [f"{row[world][k]['mean']:7.2f}" for k in ("length", "gold") for world in ("unbiased", "biased")]
        added = [row["added_by_bias"]["length"], row.get("added_less_dpo", {}).get("length")]
        shown = [f"{each['mean']:+.2f} [{each['ci95'][0]:+.2f}, {each['ci95'][1]:+.2f}]" for each in added if each]
        print(f"{label:10}{' '.join(both)}   {'   '.join(shown)}")


if __name__ == "__main__":
    main()
