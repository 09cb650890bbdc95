"""Processor seconds of finished comparisons by kind of stage, as a table.

    python benchmarks/speed/processor_time.py RUN [RUN]

RUN is a comparison's folder (`prefzoo compare RECIPE --out RUN`). Of two runs of one recipe, such as one by an earlier
version, the table has both and their ratio. Importing the libraries (once a comparison) and writing the report are
in no stage.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

from prefzoo.run.stage_graph import Stage, load_plan


def kind_of(stage: Stage) -> str:
    """What a stage is counted under: trainings of one label together, and all evaluations."""
    return f"train {stage.label}" if stage.kind == "train" else stage.kind


def by_kind(run: Path) -> dict[str, list[float]]:
    """The processor seconds of each stage of a run, by what it is counted under.

    Raises:
        SystemExit: when a stage is not done, or was done by a version that did not write them down.
    """
    used: dict[str, list[float]] = defaultdict(list)
    for stage in load_plan(run).stages.values():
        if stage.processor_seconds is None:
            raise SystemExit(f"{run}: {stage.name} has no processor seconds")
        used[kind_of(stage)].append(stage.processor_seconds)
    return used


def table(runs: list[Path]) -> list[str]:
    """The lines of a Markdown table."""
    used = [by_kind(run) for run in runs]
    lines = ["| | stages | " + " | ".join(run.name for run in runs) + (" | ratio |" if len(runs) == 2 else " |")]
    lines.append("| --- |" + " ---: |" * (len(runs) + 1 + (len(runs) == 2)))
    totals = {"all": [[seconds for each in run.values() for seconds in each] for run in used]}
    for kind, each in {**{kind: [run.get(kind, []) for run in used] for kind in used[0]}, **totals}.items():
        sums = [sum(seconds) for seconds in each]
        cells = [kind, str(len(each[0])), *(f"{seconds:.1f}" for seconds in sums)]
        lines.append("| " + " | ".join(cells + ([f"{sums[1] / sums[0]:.2f}"] if len(sums) == 2 else [])) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    print("\n".join(table(parser.parse_args().runs)))


if __name__ == "__main__":
    main()
