"""What `pairs.py` and `comparison.py` found, as tables in docs/benchmarks.md.

python benchmarks/speed/table.py benchmarks/results/speed.json benchmarks/results/speed_comparison.json
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[2] / "docs" / "benchmarks.md"
BEGIN, END = "<!-- speed: made by benchmarks/speed/table.py -->", "<!-- /speed -->"
COLUMNS = {
    "seconds": ("whole process, s", 1),
    "steps_per_second": ("steps a second", 1),
    "peak_bytes": ("peak MiB", 2**20),
}


def where(found: dict[str, Any]) -> str:
    """The machine and the versions, as a sentence."""
    at = found["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in at["versions"].items())
    load = f"load at the start {at['load_at_start']:.1f}" if at["load_at_start"] is not None else "load unknown"
    threads = f"{at['threads']} thread a process" if at["threads"] else "as many threads as it takes"
    return f"{at['processor']}, {at['cores']} cores, {threads}, {load}; Python {at['python']}, {libraries}."


def pairs(found: dict[str, Any]) -> list[str]:
    """A row for each size and task: ours, theirs and the ratio of each number."""
    head = [
        "model",
        "training",
        *[f"{side} {name}" for name, _ in COLUMNS.values() for side in ("prefzoo", "TRL", "ratio,")],
    ]
    lines = [f"| {' | '.join(head)} |", "| --- | --- " + "| ---: " * 3 * len(COLUMNS) + "|"]
    for size, each in found["sizes"].items():
        for task, table in each["tasks"].items():
            cells = [size, task]
            for key, (_, unit) in COLUMNS.items():
                ours, theirs = (table["medians"][side][key] / unit for side in ("prefzoo", "trl"))
                cells += [f"{ours:.2f}", f"{theirs:.2f}", f"{table['ratios'][key]:.3f}"]
            lines.append(f"| {' | '.join(cells)} |")
    return lines


def comparison(found: dict[str, Any]) -> list[str]:
    """Ours, the scripts, and the ratio beside its goal."""
    lines = ["| | prefzoo compare | scripts | ratio | at most |", "| --- | ---: | ---: | ---: | ---: |"]
    for key, name, unit in (("seconds", "whole time, s", 1), ("peak_bytes", "largest process, MiB", 2**20)):
        ours, theirs = (found["medians"][side][key] / unit for side in ("prefzoo", "scripts"))
        lines.append(f"| {name} | {ours:.1f} | {theirs:.1f} | {found['ratios'][key]:.3f} | {found['goals'][key]} |")
    return lines


def middle_of(count: int, what: str) -> str:
    """What a number of the table is, in words."""
    return f"one {what}" if count == 1 else f"medians of {count} {what}s"


def section(speed: dict[str, Any], whole: dict[str, Any]) -> str:
    """The section of the page, between its marks."""
    recipe = whole["recipe"]
    repeats = ", ".join(
        f"{middle_of(max(len(task['runs']['trl']) for task in each['tasks'].values()), 'pair')} ({size})"
        for size, each in speed["sizes"].items()
    )
    lines = [
        BEGIN,
        "## Beside raw TRL",
        "",
        f"`benchmarks/speed/pairs.py`, {repeats}; time and memory should be at most "
        f"{speed['goal']} times TRL's. {where(speed)}",
        "",
        *pairs(speed),
        "",
        f"A comparison of {', '.join(recipe['algorithms'])} with {recipe['seeds']} seeds and "
        f"{recipe['budget']['prompts']} prompts, beside raw scripts doing the same work one after another "
        f"(`benchmarks/speed/comparison.py`, {middle_of(len(whole['runs']['scripts']), 'run')}). {where(whole)}",
        "",
        *comparison(whole),
        END,
    ]
    return "\n".join(lines)


def main() -> None:
    speed, whole = (json.loads(Path(path).read_text(encoding="utf-8")) for path in sys.argv[1:3])
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    after = rest.partition(END)[2] if rest else ""
    PAGE.write_text(f"{before.rstrip()}\n\n{section(speed, whole)}{after or chr(10)}", encoding="utf-8")


if __name__ == "__main__":
    main()
