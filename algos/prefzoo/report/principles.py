"""What each principle of a constitution was used for, and what that did."""

from __future__ import annotations

from typing import Any

from prefzoo.report.cost import Cells
from prefzoo.results.number_format import fixed
from prefzoo.results.results_schema import Results

COLUMNS = {
    "revisions": "revisions",
    "unrevised": "came to nothing",
    "changed": "changed the reply",
    "gold": "gold",
    "reward": "reward",
    "comparisons": "comparisons",
}
LEGEND = (
    "Revisions and comparisons: how often a principle was drawn, over all seeds. Came to nothing: a critique or a "
    "revision that was empty or cut off. Changed the reply: the share of the other revisions that did. Gold and "
    "reward: what a revision added to them, in the mean over all of these."
)


def principle_cells(results: Results) -> dict[str, Cells]:
    """A table for each label that followed a constitution: headings, and a row for each principle."""
    tables = {}
    for label, each in results.algorithms.items():
        by_seed = [trial.details["principles"] for trial in each.seeds.values() if "principles" in trial.details]
        if not by_seed:
            continue
        names = sorted({name for found in by_seed for name in found})
        rows = {name: [found[name] for found in by_seed if name in found] for name in names}
        shown = [c for c in COLUMNS if any(c in row for found in rows.values() for row in found)]
        headings = ["principle", *[COLUMNS[c] for c in shown]]
        tables[label] = headings, [[name, *[_cell(c, found) for c in shown]] for name, found in rows.items()]
    return tables


def _cell(column: str, found: list[dict[str, Any]]) -> str:
    if column in ("revisions", "unrevised", "comparisons"):
        return str(sum(int(row[column]) for row in found))
    weighed = [(row[column], row["revisions"] - row["unrevised"]) for row in found if column in row]
    if not weighed:
        return ""
    mean = sum(value * uses for value, uses in weighed) / sum(uses for _, uses in weighed)
    return f"{100 * mean:.0f}%" if column == "changed" else fixed(mean, "+.2f")


def transcripts(results: Results) -> dict[str, list[str]]:
    """For each such label the files of transcripts, relative to the report."""
    return {
        label: [trial.details["transcripts"] for trial in each.seeds.values() if "transcripts" in trial.details]
        for label, each in results.algorithms.items()
        if any("transcripts" in trial.details for trial in each.seeds.values())
    }
