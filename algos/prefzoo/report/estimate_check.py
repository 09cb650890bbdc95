"""What `prefzoo plan` estimated beside what it really took."""

from __future__ import annotations

from pathlib import Path

from prefzoo.report.cost import COLUMNS, Cells, charge, mean_ledger
from prefzoo.results.cost_record import Estimate
from prefzoo.results.results_schema import Results

ESTIMATED = (
    "A row for each policy holds what `prefzoo plan` estimated for a trial on the machine that it ran on, and the mean "
    "of the trials (of the peak memory, the largest)."
)
NAMES = {"generated_tokens": "sampled tokens", "seconds": "seconds", **COLUMNS}
SHOWN = ("seconds", "peak_memory_bytes", "generated_tokens", "trained_tokens", "judge_calls")
OWN = ("algorithms", "seeds", "tracking")
"""Blocks of a recipe that may differ without a label's estimate becoming one of something else."""


def estimated_cells(results: Results, out: Path) -> Cells | None:
    """Estimate and actual value side by side for each label that was estimated with the settings it ran with; None
    where there is none."""
    found = Estimate.load(out)
    if found is None or any(found.recipe[k] != v for k, v in results.recipe.items() if k not in OWN):
        return None
    used = {
        label: mean_ledger([trial.ledger for trial in each.seeds.values()])
        for label, each in results.algorithms.items()
        if each.seeds
        and label in found.labels
        and found.recipe["algorithms"].get(label) == results.recipe["algorithms"].get(label)
    }
    names = [n for n in SHOWN if any(ledger[n] or found.labels[label][n] for label, ledger in used.items())]
    rows = [
        [label, *[cell for n in names for cell in (charge(n, found.labels[label][n]), charge(n, ledger[n]))]]
        for label, ledger in used.items()
    ]
    return (["policy", *[cell for n in names for cell in (f"{NAMES[n]}: estimated", "actual")]], rows) if rows else None
