"""The numbers for other programs: one tidy table."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from prefzoo.results.results_schema import Milestone, Results, SeedResult

COLUMNS = ("policy", "seed", "milestone", "metric", "value")


def write_csv(results: Results, file: Path) -> None:
    """A row for each measured number: policy, seed, milestone (empty for the final policy), metric, value. What a trial
    used is in it as `ledger/<name>`."""
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(COLUMNS)
        writer.writerows(_rows(results))


def _rows(results: Results) -> Iterator[tuple[str, str, str, str, float]]:
    for label, of_label in results.algorithms.items():
        for seed, trial in of_label.seeds.items():
            measured: list[tuple[str, Milestone | SeedResult]] = [(each.name, each) for each in trial.milestones]
            for name, found in (*measured, ("", trial)):
                for metric, value in found.metrics.items():
                    yield label, seed, name, metric, value
                for what, amount in found.ledger.items():
                    yield label, seed, name, f"ledger/{what}", amount
