"""How many seeds and prompts a difference needs, from the variances of a finished run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from prefzoo.comparison import analysis
from prefzoo.comparison.merging import read_tables
from prefzoo.comparison.plan import START
from prefzoo.comparison.results import load
from prefzoo.comparison.statistics import POWER, Design, Pilot
from prefzoo.errors import PrefzooError

SEEDS = (2, 3, 4, 5, 6, 8, 10, 15, 20)
PROMPTS = (64, 128, 256, 512, 1024, 2048)


@dataclass(frozen=True)
class Needed:
    """What a difference of this size to the start needs.

    Attributes:
        metric: that the difference is in.
        pilot: how large the run was that the variances are from; as many comparisons with the start as there are
            labels in `power` are corrected together by Holm.
        power: label -> seeds and prompts -> the chance of finding the difference; the label that varies most first.
    """

    metric: str
    difference: float
    pilot: Design
    power: dict[str, dict[Design, float]]

    def prompts(self, label: str, seeds: int) -> int | None:
        """The fewest of `PROMPTS` that give 80% with so many seeds; None where none does."""
        return next((n for n in PROMPTS if self.power[label][Design(seeds, n)] >= POWER), None)

    def tables(self) -> list[Table]:
        """For a terminal: the prompts that each label needs, and the chances of the one that varies most."""
        aim = f"a difference of {self.difference:g} in {self.metric} to the start"
        fewest = Table("seeds", *self.power, title=f"Test prompts for an {POWER:.0%} chance of finding {aim}")
        hardest, chances = next(iter(self.power.items()))
        chance = Table("seeds", *map(str, PROMPTS), title=f"Chance of finding {aim}, of {hardest}, by test prompts")
        for seeds in SEEDS:
            found = [self.prompts(label, seeds) for label in self.power]
            fewest.add_row(str(seeds), *[str(each) if each else f"over {PROMPTS[-1]}" for each in found])
            chance.add_row(str(seeds), *[f"{chances[Design(seeds, prompts)]:.0%}" for prompts in PROMPTS])
        return [fewest, chance]


def needed(folder: Path, difference: float) -> Needed:
    """The power to find a difference to the start in comparisons of many sizes, from the run in `folder`.

    Raises:
        PrefzooError: when there is no pilot in the folder, or it has too few seeds or prompts to tell anything.
    """
    if difference <= 0:
        raise PrefzooError(f"--difference {difference:g}: must be above 0")
    if not (folder / "results.json").is_file():
        raise PrefzooError(
            f"{folder} holds no finished run to learn variances from; run a small one first: "
            "prefzoo compare RECIPE --seeds 3, with the same --out where you give one"
        )
    run = load(folder)
    tables = {label: read_tables(each, folder) for label, each in run.algorithms.items()}
    metric = analysis.decides(tables)
    pilots = {
        label: Pilot.of(table[metric], tables[START][metric])
        for label, table in tables.items()
        if metric is not None and metric in table and label != START
    }
    if metric is None or not pilots:
        raise PrefzooError(f"{folder}: no algorithm was measured to the end, so that no variance is known")
    size = next(iter(pilots.values())).design
    if size.seeds < 2 or size.prompts < 2:
        raise PrefzooError(
            f"{folder} has {size.seeds} seed and {size.prompts} prompts, and tells nothing of how seeds differ; "
            "at least 2 seeds are needed, 3 or more are better: prefzoo compare RECIPE --seeds 3"
        )
    family = len(pilots)
    by_error = sorted(pilots, key=lambda label: -pilots[label].detectable(size, family))
    designs = [Design(seeds, prompts) for seeds in SEEDS for prompts in PROMPTS]
    power = {label: {each: pilots[label].power(difference, each, family) for each in designs} for label in by_error}
    return Needed(metric, difference, size, power)
