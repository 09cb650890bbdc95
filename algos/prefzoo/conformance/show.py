"""The conformance suite for a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefzoo.conformance.findings import PROMISES, Finding
from prefzoo.conformance.suite import check
from prefzoo.run.subprocesses import quiet

STYLES = {"kept": "green", "broken": "bold red", "untried": "dim"}


def show(name: str, seed: int, progress: Console, console: Console, sets: Sequence[str] = ()) -> bool:
    """Say each finding as it comes, then all of them in a table; whether no promise is broken.

    Raises:
        KeyboardInterrupt: when interrupted, after the table of what was found until then.
    """
    quiet()
    findings: list[Finding] = []
    try:
        for finding in check(name, seed, progress, sets):
            findings.append(finding)
            count = f"[{len(findings)}/{len(PROMISES)}]"
            progress.print(Text(f"{count} {finding.promise}: {finding.status}", style=STYLES[finding.status]))
    except KeyboardInterrupt:
        rest = list(PROMISES)[len(findings) :]
        console.print(
            _table(name, seed, [*findings, *(Finding(promise, "untried", "interrupted") for promise in rest)])
        )
        console.print(_name_broken(findings) or "nothing is broken so far", style="bold", markup=False)
        progress.print(f"interrupted after {len(findings)} of {len(PROMISES)} promises; the same command begins anew")
        raise
    console.print(_table(name, seed, findings))
    broken = _name_broken(findings)
    console.print(broken or f"{name} keeps its promises", style="bold", markup=False)
    return not broken


def _table(name: str, seed: int, findings: Sequence[Finding]) -> Table:
    table = Table("promise", "", "what was found", title=f"{name}, seed {seed}", title_justify="left", box=None)
    for finding in findings:
        status = Text(finding.status, style=STYLES[finding.status])
        table.add_row(PROMISES[finding.promise], status, Text(finding.message))
    return table


def _name_broken(findings: Sequence[Finding]) -> str:
    """The broken promises by name; empty when there are none."""
    names = [finding.promise for finding in findings if finding.status == "broken"]
    return f"broken: {', '.join(names)}" if names else ""
