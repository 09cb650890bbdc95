"""Do intervals of a judge joined with a few answers of people cover? Simulated, and estimated by the code that reports.

People prefer one of two replies by a latent difference: of the policies, of the training (seed), of the prompt, and
of the reply; a tenth are ties. The longer reply is a little worse. A judge is right as often as its accuracy says; a
biased one moreover says "the first policy" to three of ten pairs, or "the longer one" to four of ten. People answer
some pairs, drawn with equal chances, or three times as often where the judge says that the first policy loses. What is
to be covered is what people would say of all prompts and all trainings, which is known.

    python benchmarks/calibration_people.py            # three minutes on 2 cores; docs/calibration.md too
"""

from __future__ import annotations

import argparse
import json
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from prefzoo.results import statistics

HERE = Path(__file__).parent
FOUND = HERE / "results" / "calibration_people.json"
PAGE = HERE.parent / "docs" / "calibration.md"
BEGIN, END = "<!-- people -->", "<!-- end of people -->"
PROMPTS, MEAN, BETWEEN_PROMPTS, TIES = 256, 0.3, 0.7, 0.1
LONGER, LONGER_IS_WORSE = 0.6, 0.2
FAVOURS = {"one side": 0.3, "length": 0.4}
"""What a biased judge favours, and how often."""


class Case(NamedTuple):
    """What is simulated.

    Attributes:
        accuracy: of the judge, where it is not biased.
        favours: a key of `FAVOURS`; empty: nothing.
        spread: standard deviation between seeds, where that of a single reply is 1.
        chances: alike | unequal.
        group_size: prompts of a group, whose latent differences are the same.
    """

    seeds: int
    labels: int
    accuracy: float
    favours: str = ""
    spread: float = 0.0
    chances: str = "alike"
    group_size: int = 1


def cases() -> list[Case]:
    """Every case of the table."""
    judges = [
        (0.6, ""),
        (0.8, ""),
        (0.95, ""),
        (0.8, "one side"),
        (0.95, "length"),
    ]
    every = [
        Case(seeds, labels, *judge, spread)
        for seeds in (2, 3, 5)
        for labels in (20, 60, 400)
        for judge in judges
        for spread in (0.0, 0.2)
    ]
    for seeds, labels in ((3, 60), (5, 200)):
        every.append(Case(seeds, labels, 0.8, "length", 0.1, "unequal"))
        every.append(Case(seeds, labels, 0.95, "", 0.1, "unequal"))
        every.append(Case(seeds, labels, 0.8, "", 0.1, group_size=4))
    return [*every, Case(4, 100, 0.8, "one side", 0.1), Case(1, 60, 0.8), Case(1, 200, 0.95, "length")]


def truth(case: Case) -> float:
    """How often people prefer the first policy, over all prompts and trainings; of one training, over all prompts of
    such as have no effect of their own."""
    spread = float(np.sqrt(1 + BETWEEN_PROMPTS**2 + case.spread**2))
    shorter, longer = (float(stats.norm.cdf(mean / spread)) for mean in (MEAN, MEAN - LONGER_IS_WORSE))
    return (1 - TIES) * (LONGER * longer + (1 - LONGER) * shorter) + TIES / 2


def drawn(case: Case, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray, statistics.Groups]:
    """A comparison: the judge's verdicts and people's, NaN where nobody was asked, what each answer stands for, and the
    groups."""
    shape = (case.seeds, PROMPTS)
    groups = np.arange(PROMPTS) // case.group_size
    longer = rng.random(shape) < LONGER
    latent = MEAN + case.spread * rng.normal(size=(case.seeds, 1)) + BETWEEN_PROMPTS * rng.normal(size=PROMPTS)[groups]
    people = (latent + rng.normal(size=shape) - LONGER_IS_WORSE * longer > 0).astype(float)
    people[rng.random(shape) < TIES] = 0.5
    side = np.where(people == 0.5, rng.random(shape) < 0.5, people)
    judge = np.where(rng.random(shape) < case.accuracy, side, 1 - side)
    if case.favours:
        favoured = 1.0 if case.favours == "one side" else longer
        judge = np.where(rng.random(shape) < FAVOURS[case.favours], favoured, judge)
    chances = np.ones(shape) if case.chances == "alike" else np.where(judge == 0, 3.0, 1.0)
    chances = np.minimum(1.0, chances * min(case.labels, judge.size) / chances.sum())
    if case.chances == "alike":
        asked = np.zeros(judge.size, bool)
        asked[rng.permutation(judge.size)[: case.labels]] = True
    else:
        asked = rng.random(judge.size) < chances.ravel()
    people = np.where(asked.reshape(shape), people, np.nan)
    return judge, people, 1 / chances, None if case.group_size == 1 else groups


def measured(case: Case, times: int) -> dict[str, Any]:
    """How often each interval covers, and how wide it is in the mean."""
    rng = np.random.default_rng([case.seeds, case.labels, round(100 * case.accuracy), len(case.favours), times])
    right, inside = truth(case), dict.fromkeys(("judge", "people", "joined"), 0)
    widths: dict[str, list[float]] = {name: [] for name in inside}
    worth = []
    asked = max(1, times // 4)  # how often the judge alone is asked, whose interval takes long and is not in question
    for i in range(times):
        judge, people, weights, groups = drawn(case, rng)
        rows = ~np.isnan(people).all(1)
        found = statistics.prediction_powered(judge[rows], people[rows], weights[rows], groups)
        estimates = {"people": found.people, "joined": found.joined}
        if i < asked:
            of_judge = statistics.group_means(judge, groups)
            estimates["judge"] = statistics.proportion(statistics.estimate(of_judge), of_judge)
        for name, each in estimates.items():
            inside[name] += each.low <= right <= each.high
            widths[name].append(each.high - each.low)
        worth.append(found.worth)
    mean_widths = {name: float(np.mean(of_name)) for name, of_name in widths.items()}
    return {
        **case._asdict(),
        **{f"{name} covers": count / (asked if name == "judge" else times) for name, count in inside.items()},
        **{f"{name} width": width for name, width in mean_widths.items()},
        "wider": mean_widths["joined"] / mean_widths["people"] - 1,
        "worth": float(np.median(worth)),
    }


def table(found: list[dict[str, Any]]) -> str:
    """The measurements as Markdown: a row for each judge and number of labels, the range over seeds and spreads."""
    lines = ["| judge | labels | judge alone covers | people alone cover | joined covers | width, people alone | joined | joined is wider by at most | worth (median) |"]  # fmt: skip  # noqa: E501
    lines.append("| --- | ---: |" + " ---: |" * 7)
    rows: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in found:
        name = f"{row['accuracy']:.0%}" + (f", favours {row['favours']}" if row["favours"] else "")
        name += ", asked with unequal chances" if row["chances"] == "unequal" else ""
        name += ", prompts in groups of 4" if row["group_size"] > 1 else ""
        name += {1: ", one training", 4: ", four trainings"}.get(row["seeds"], "")
        rows.setdefault((name, row["labels"]), []).append(row)
    for (name, labels), of_row in rows.items():
        ranges = [_range([row[f"{who} covers"] for row in of_row], ".1%") for who in ("judge", "people", "joined")]
        ranges += [_range([row[f"{who} width"] for row in of_row], ".2f") for who in ("people", "joined")]
        wider = max(row["wider"] for row in of_row)
        worth = _range([row["worth"] for row in of_row], ".0f")
        lines.append(f"| {name} | {labels} | {' | '.join(ranges)} | {wider:+.1%} | {worth} |")
    return "\n".join(lines)


def _range(values: list[float], form: str) -> str:
    low, high = f"{min(values):{form}}", f"{max(values):{form}}"
    return low if low == high else f"{low} to {high}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    given = parser.parse_args()
    with ProcessPoolExecutor(given.workers) as processes:
        found = list(processes.map(partial(measured, times=given.times), cases()))
    FOUND.write_text(json.dumps({"times": given.times, "rows": found}, indent=1) + "\n", encoding="utf-8")
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table(found)}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
    print(min(row["joined covers"] for row in found), max(row["joined covers"] for row in found))


if __name__ == "__main__":
    main()
