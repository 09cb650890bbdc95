"""The conformance suite for a person at a terminal."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from prefzoo.conformance.findings import PROMISES
from prefzoo.conformance.suite import check

STYLES = {"kept": "green", "broken": "bold red", "untried": "dim"}


def show(name: str, seed: int, progress: Console, console: Console) -> bool:
    """Say each finding as it comes, then all of them in a table; whether no promise is broken."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    findings = []
    for finding in check(name, seed, progress):
        findings.append(finding)
        count = f"[{len(findings)}/{len(PROMISES)}]"
        progress.print(Text(f"{count} {finding.promise}: {finding.status}", style=STYLES[finding.status]))
    table = Table("promise", "", "what was found", title=f"{name}, seed {seed}", title_justify="left", box=None)
    for finding in findings:
        status = Text(finding.status, style=STYLES[finding.status])
        table.add_row(PROMISES[finding.promise], status, Text(finding.said))
    console.print(table)
    broken = [finding.promise for finding in findings if finding.status == "broken"]
    console.print(
        f"broken: {', '.join(broken)}" if broken else f"{name} keeps its promises", style="bold", markup=False
    )
    return not broken
