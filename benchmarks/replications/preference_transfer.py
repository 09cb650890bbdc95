"""Does a preference that is learned in one language hold in the other?

Three comparisons of the lab's bilingual model that differ in their training rows alone: all English, all Chinese, or
half of each, as many in all. The start is the model as it is, so that it is the same in all of them, and all are tested
on the same prompts of both languages. Told is how much gold each algorithm gains over the start by language, and what
share of the gain in a language is there without a row of it (the gain after training in the other language, divided by
the gain after training in this one; its interval is Fieller's).

    python benchmarks/replications/preference_transfer.py      # an hour on 2 cores
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import prefzoo
from prefzoo.results.results_schema import Results
from prefzoo.results.statistics import estimate
from prefzoo.run.evaluation_records import read_records

SOURCES = {"English": "lab_from_english", "Chinese": "lab_from_chinese", "both": "lab_bilingual"}
"""Training rows -> the source of them."""
LANGUAGES = ("English", "Chinese")
ALGORITHMS: dict[str, dict[str, Any]] = {
    "dpo": {"trainer": {"learning_rate": 1e-3}},
    "kto": {"trainer": {"learning_rate": 1e-3}},
    "ppo": {},
    "rejection_sampling": {},
}
TRIED = [round(-2 + step / 100, 2) for step in range(601)]
RESULT = Path(__file__).parents[1] / "results" / "preference_transfer.json"


def recipe(source: str, prompts: int) -> dict[str, Any]:
    return {
        "extends": "base",
        "model": {"path": "lab_bilingual"},
        "data": {"source": source},
        "start": {"algorithm": "none"},
        "budget": {"prompts": prompts},
        "evaluation": {"prompts": 512},
        "algorithms": ALGORITHMS,
        "tracking": {"wandb": {"mode": "disabled"}},
    }


def gains(found: Results, out: Path) -> dict[str, dict[str, np.ndarray]]:
    """label -> language -> (seeds x prompts), gold less the start's on the same prompt, by seed."""
    gold: dict[str, dict[str, np.ndarray]] = {}
    for label, each in found.algorithms.items():
        records = [read_records((out / trial.replies).parent) for trial in each.seeds.values()]
        gold[label] = {
            language: np.array([[r["gold"] for r in seed if r["slice"].startswith(language)] for seed in records])
            for language in LANGUAGES
        }
    return {
        label: {language: table - gold["start"][language] for language, table in of_label.items()}
        for label, of_label in gold.items()
        if label != "start"
    }


def ratio(other: np.ndarray, own: np.ndarray) -> dict[str, float | None]:
    """The quotient of their means with the 95% interval of Fieller (1954): every r at which `other - r * own` is not
    clearly different from 0, paired by seed and prompt; without bounds where that goes on beyond `TRIED`."""
    kept = [r for r in TRIED if (e := estimate(other - r * own)).low <= 0 <= e.high]
    bounded = bool(kept) and TRIED[0] < kept[0] and kept[-1] < TRIED[-1]
    low, high = (kept[0], kept[-1]) if bounded else (None, None)
    return {"mean": float(other.mean() / own.mean()), "low": low, "high": high}


def summary(worlds: Mapping[str, Mapping[str, Mapping[str, np.ndarray]]]) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    for label in ALGORITHMS:
        of_world = {
            world: {language: estimate(tables[label][language]) for language in LANGUAGES}
            for world, tables in worlds.items()
        }
        rows[label] = {
            "gain": {
                world: {language: {"mean": e.mean, "ci95": [e.low, e.high]} for language, e in by_language.items()}
                for world, by_language in of_world.items()
            },
            "share_that_holds": {
                language: ratio(worlds[other][label][language], worlds[language][label][language])
                for language, other in (LANGUAGES, LANGUAGES[::-1])
            },
        }
    return rows


def told(rows: Mapping[str, Any]) -> str:
    """The table, in Markdown."""
    lines = ["| | trained in | gold over the start, English [95%] | Chinese [95%] |", "| --- | --- | ---: | ---: |"]
    for label, row in rows.items():
        for world, by_language in row["gain"].items():
            cells = [f"{e['mean']:+.2f} [{e['ci95'][0]:+.2f}, {e['ci95'][1]:+.2f}]" for e in by_language.values()]
            lines.append(f"| {label} | {world} | {' | '.join(cells)} |")
    lines += ["", "| | of the gain in English, without English rows [95%] | of that in Chinese, without Chinese rows |"]
    lines += ["| --- | ---: | ---: |"]
    for label, row in rows.items():
        cells = []
        for language in LANGUAGES:
            share = row["share_that_holds"][language]
            bounds = "no bounds" if share["low"] is None else f"{share['low']:.2f}, {share['high']:.2f}"
            cells.append(f"{share['mean']:.2f} [{bounds}]")
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=600)
    parser.add_argument("--out", type=Path, default=Path("runs/preference_transfer"))
    given = parser.parse_args()
    worlds = {}
    for world, source in SOURCES.items():
        out = given.out.resolve() / world
        worlds[world] = gains(prefzoo.compare(recipe(source, given.prompts), seeds=given.seeds, out=out), out)
    rows = summary(worlds)
    content = {"seeds": given.seeds, "prompts": given.prompts, "algorithms": rows}
    RESULT.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(told(rows))


if __name__ == "__main__":
    main()
