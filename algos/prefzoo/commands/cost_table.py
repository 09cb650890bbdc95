"""An estimate for people."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from prefzoo.report.cost import ESTIMATE_COLUMNS, ESTIMATE_NAMES, format_cost
from prefzoo.results.cost_record import Estimate


def table(found: Estimate) -> Table:
    """A row for each label, with what a seed of it takes, and one for each shared stage."""
    rows = {**found.labels, **found.shared}
    names = [n for n in ESTIMATE_COLUMNS if any(ledger[n] for ledger in rows.values())]
    made = Table("policy", *[ESTIMATE_NAMES[n] for n in names], "to be run", box=None, title_justify="left")
    made.title = "What one seed of each takes, and what is made once"
    for column in made.columns[1:]:
        column.justify = "right"
    for name, ledger in rows.items():
        left = found.left.get(name, 0)
        cells = [format_cost(n, ledger[n]) for n in names]
        made.add_row(Text(name), *cells, f"{left} stage{'s' * (left != 1)}" if left else "done")
    return made


def sentences(found: Estimate) -> list[str]:
    """What is not in the table."""
    if not found.left:
        return ["All of it is done already."]
    minutes, seconds = divmod(round(found.wall_seconds), 60)
    peak = max((ledger["peak_memory_bytes"] for ledger in found.labels.values()), default=0.0)
    sizes = " and ".join(map(str, found.probe["prompts"]))
    return [
        f"Time: about {minutes}:{seconds:02d} (minutes:seconds) with {_count(found.workers, 'worker')}, for what is "
        "still to be run, without the report.",
        f"Memory: at most {found.workers} x {format_cost('peak_memory_bytes', peak)}. "
        f"Disk: {format_cost('peak_memory_bytes', found.disk_bytes)}.",
        f"By a probe of {found.probe['seconds']:.0f} s with {sizes} training prompts and one seed; tokens and calls in "
        "proportion to prompts, times on the straight line through both.",
    ]


def _count(n: int, what: str) -> str:
    return f"{n} {what}{'s' * (n != 1)}"
