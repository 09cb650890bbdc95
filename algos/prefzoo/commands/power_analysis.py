"""How many seeds and prompts a difference needs, from the variances of a finished run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from rich.table import Table

from prefzoo.errors import PrefzooError, os_errors_told
from prefzoo.recipe.check_recipe import load as read_recipe
from prefzoo.results import analysis
from prefzoo.results.results_file import load, load_groups, load_tables
from prefzoo.results.statistics import POWER, Design, Pilot, all_differ_alike
from prefzoo.run.stage_graph import START
from prefzoo.run.trial_identity import differences

SEEDS = (2, 3, 4, 5, 6, 8, 10, 15, 20)
PROMPTS = (64, 128, 256, 512, 1024, 2048)


ENDLESS = 10**9
"""Prompts so many that more would change nothing."""
SIZE_KEYS = ("seeds", "tracking", "evaluation.prompts", "evaluation.milestones", "evaluation.human")
"""What a pilot may do otherwise than the recipe that it is for."""


@dataclass(frozen=True)
class PowerAnalysis:
    """The seeds and prompts that a difference of this size to the start needs.

    Attributes:
        metric: of the difference.
        pilot: the size of the run that the variances are from.
        family: comparisons with the start that Holm corrects together.
        power: label -> seeds and prompts -> the chance of finding the difference; the label that is hardest first.
        unit: what is drawn independently: test prompts, or groups of them.
        unvaried: labels without any variance, such as one that is the start itself, of which nothing is known.
    """

    metric: str
    difference: float
    pilot: Design
    family: int
    power: dict[str, dict[Design, float]]
    unvaried: list[str]
    unit: str = "prompts"

    def prompts(self, label: str, seeds: int) -> int | None:
        """The fewest of `PROMPTS` that give 80% with so many seeds; None where none does."""
        return next((n for n in PROMPTS if self.power[label][Design(seeds, n)] >= POWER), None)

    def tables(self) -> list[Table]:
        """For a terminal: the prompts that each label needs, and the chances of the hardest at each size."""
        aim = f"a difference of {self.difference:g} in {self.metric} to the start"
        fewest = Table(
            "seeds", *self.power, title=f"{self._units.capitalize()} for an {POWER:.0%} chance of finding {aim}"
        )
        hardest = "" if len(self.power) == 1 else ", for the policy where it is lowest"
        chance = Table("seeds", *map(str, PROMPTS), title=f"Chance of finding {aim}{hardest}, by {self._units}")
        for seeds in SEEDS:
            fewest.add_row(str(seeds), *[self._fewest(label, seeds) for label in self.power])
            lowest = [min(chances[Design(seeds, n)] for chances in self.power.values()) for n in PROMPTS]
            chance.add_row(str(seeds), *[f"{power:.0%}" for power in lowest])
        return [fewest, chance]

    def sentences(self) -> list[str]:
        """What the tables rest on, and what they leave out."""
        lines = [
            f"After Holm for {self.family} comparisons with the start. Variances are of {self.pilot.seeds} seeds and "
            f"{self.pilot.prompts} {self.unit}; their own uncertainty is counted in."
        ]
        if self.unit != "prompts":
            lines.append("Prompts of one group are no further evidence: it takes other groups, of any size.")
        if any("at most" in self._fewest(label, seeds) for label in self.power for seeds in SEEDS):
            lines.append(
                '"at most": no number of prompts gives that chance with so few seeds, because seeds differ and more '
                "prompts do not change how uncertain that is. One seed more can therefore take the place of any number "
                "of prompts."
            )
        if self.unvaried:
            lines.append(f"Not in the tables: {', '.join(self.unvaried)}, of which nothing varied.")
        return lines

    @property
    def _units(self) -> str:
        return "test prompts" if self.unit == "prompts" else "groups of test prompts"

    def _fewest(self, label: str, seeds: int) -> str:
        if enough := self.prompts(label, seeds):
            return str(enough)
        if self.power[label][Design(seeds, ENDLESS)] >= POWER:
            return f"over {PROMPTS[-1]}"
        most = max(self.power[label][Design(seeds, n)] for n in (*PROMPTS, ENDLESS))
        return f"at most {math.floor(100 * most)}%"


@os_errors_told("reading the run")
def analyze_power(folder: Path, difference: float) -> PowerAnalysis:
    """The power to find a difference to the start in comparisons of many sizes, from the run in `folder`.

    Raises:
        PrefzooError: when there is no pilot in the folder, or it has too few seeds or prompts to tell anything.
    """
    if not (math.isfinite(difference) and difference > 0):
        raise PrefzooError(f"--difference {difference:g}: must be a number above 0")
    if not (folder / "results.json").is_file():
        raise PrefzooError(
            f"{folder} holds no finished run to learn variances from; run a small one first: "
            "prefzoo compare RECIPE --seeds 3, with the same --out where you give one"
        )
    run = load(folder)
    tables = {label: load_tables(result, folder) for label, result in run.algorithms.items()}
    groups = load_groups(run, folder)
    tables = {label: analysis.group_tables(of_label, groups) for label, of_label in tables.items()}
    metric = analysis.primary_metric(tables)
    of_metric = {label: table[metric] for label, table in tables.items() if metric is not None and metric in table}
    start = of_metric.pop(START, None)
    if metric is None or start is None or not of_metric:
        raise PrefzooError(f"{folder}: no algorithm was measured to the end, so that no variance is known")
    size = Design(*start.shape)
    if size.seeds < 2 or size.prompts < 2:
        raise PrefzooError(
            f"{folder} has {size.seeds} seed and {size.prompts} prompts or groups of them, and tells nothing of how "
            "seeds differ; at least 2 seeds are needed, 3 or more are better: prefzoo compare RECIPE --seeds 3"
        )
    pilots = {label: Pilot.of(table, start) for label, table in of_metric.items() if not all_differ_alike(table, start)}
    if not pilots:
        raise PrefzooError(f"{folder}: no policy differs from the start by more than a constant; no variance is known")
    family = len(of_metric)
    designs = [Design(seeds, prompts) for seeds in SEEDS for prompts in (*PROMPTS, ENDLESS)]
    power = {
        label: {design: pilot.power(difference, design, family) for design in designs}
        for label, pilot in pilots.items()
    }
    hardest_first = dict(sorted(power.items(), key=lambda row: sum(row[1].values())))
    left = [label for label in of_metric if label not in pilots]
    unit = "prompts" if groups.get(analysis.ALL) is None else "groups of prompts"
    return PowerAnalysis(metric, difference, size, family, hardest_first, left, unit)


def recipe_differences(folder: Path, recipe: str) -> list[str]:
    """The differences between this recipe and that of the run in `folder`, apart from sizes, as sentences."""
    try:
        wanted = read_recipe(recipe).model_dump(mode="json")
    except PrefzooError as error:
        return [f"Whether {folder} was of {recipe} is not known, because that cannot be read: {error}"]
    ran = load(folder).recipe
    refused, non_blocking = differences(wanted, ran)
    left = [label for label in wanted["algorithms"] if label not in ran["algorithms"]]
    more = [label for label in ran["algorithms"] if label not in wanted["algorithms"]]
    apart = (*SIZE_KEYS, *(f"algorithms.{label}." for label in (*left, *more)))
    keys = [f"{key}: {values}" for key, values in {**refused, **non_blocking}.items() if not key.startswith(apart)]
    parts = [*[f"without {label}" for label in left], *[f"with {label}" for label in more], *keys]
    if not parts:
        return []
    return [f"{folder} did not run {recipe} as it is now (there the second of two values): {'; '.join(parts)}."]
