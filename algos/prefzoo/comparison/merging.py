"""Several finished comparisons in one table, if they are comparable.

What must be equal, and what may differ and is said, is decided in `identity`: refused are other rows, start,
adapter, budget, training arguments, sampling, test prompts, gold or reward, and other seeds, because verdicts are
paired by seed; noted are other versions of libraries and other cuts into batches.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.comparison import analysis, results
from prefzoo.comparison.analysis import Tables
from prefzoo.comparison.budgets import at_equal_budgets
from prefzoo.comparison.hacking import Sign
from prefzoo.comparison.identity import differences, refuse_edited, refuse_unequal
from prefzoo.comparison.plan import START, load_plan
from prefzoo.comparison.records import read_records
from prefzoo.comparison.report import page as report
from prefzoo.comparison.results import AlgorithmResult, Results, SeedResult
from prefzoo.errors import PrefzooError


def merge(folders: Sequence[Path], out: Path) -> Results:
    """The union of the labels of several runs, judged anew, with a report in `out`.

    A label that is in two runs with the same trials counts once; with other trials (other settings, or trained again)
    it is kept from both, named `LABEL (RUN)` after the runs' folders. The start is the first run's.

    Raises:
        PrefzooError: when a folder holds no finished run, or the runs are not comparable, saying every difference.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise PrefzooError(f"one run is given twice: {', '.join(map(str, folders))}")
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise PrefzooError(f"--out {out}: the merged report would replace that of the run; choose another folder")
    runs = {name: read(folder) for name, folder in zip(_names(folders), folders, strict=True)}
    said = _compared(runs)
    places = dict(zip(runs, folders, strict=True))
    trials = {(name, label): each for name, run in runs.items() for label, each in run.algorithms.items()}
    kept = _once(trials, places)
    out.mkdir(parents=True, exist_ok=True)
    algorithms, tables = {}, {}
    for label, (name, original) in kept.items():
        algorithms[label] = _moved(trials[name, original], places[name], out)
        tables[label] = read_tables(trials[name, original], places[name])
    first = next(iter(runs.values()))
    settings = {
        label: runs[name].recipe["algorithms"][original] for label, (name, original) in kept.items() if label != START
    }
    found = first.model_copy(
        update={
            "recipe": {**first.recipe, "algorithms": settings},
            "algorithms": algorithms,
            "shared": {f"{stage} ({name})": each for name, run in runs.items() for stage, each in run.shared.items()},
            "notes": [*dict.fromkeys([*said, *(note for run in runs.values() for note in run.notes)])],
            "warnings": _warnings(runs, kept),
            "verdicts": analysis.verdicts(tables),
            "pairs": analysis.pairs(tables),
            "equal_budgets": at_equal_budgets(algorithms, tables, out),
            "ratings": analysis.rated(tables),
            "workers": list(dict.fromkeys(n for run in runs.values() for n in run.workers)),
        }
    )
    report.write(found, out)
    return found


def read(folder: Path) -> Results:
    """A run's results, of which every trial is what it was recorded to be.

    Raises:
        PrefzooError: when the folder holds no results, results of an older version, unequal trials, or edited files.
    """
    if not (folder / "results.json").is_file():
        raise PrefzooError(f"{folder} holds no finished prefzoo run: there is no results.json in it")
    found = results.load(folder)
    identities = results.identities(found.algorithms)
    if missing := [name for name, each in identities.items() if not each]:
        raise PrefzooError(
            f"{folder}: {', '.join(missing)} did not record what they were made with, as versions before 0.3 did not; "
            "compare again to merge them"
        )
    refuse_unequal(identities, str(folder))
    refuse_edited(load_plan(folder))
    return found


def read_tables(each: AlgorithmResult, folder: Path) -> Tables:
    """The (seeds x prompts) tables of gold and proxy of one label, as far as all its trials have them."""
    if each.status != "ok":
        return {}
    trials = [read_records((folder / trial.replies).parent) for trial in each.seeds.values()]
    metrics = [m for m in ("gold", "proxy") if all(m in record for records in trials for record in records)]
    return {m: np.array([[float(record[m]) for record in records] for records in trials]) for m in metrics}


def _compared(runs: dict[str, Results]) -> list[str]:
    """What a reader must know of runs that differ; every difference that cannot stand is refused.

    Raises:
        PrefzooError: naming them.
    """
    (first, reference), *others = runs.items()
    problems, said = [], [f"Merged from {', '.join(runs)}."]
    for name, run in others:
        refused, noted = differences(_identity(reference), _identity(run))
        if reference.recipe["seeds"] != run.recipe["seeds"]:
            refused["seeds"] = f"{reference.recipe['seeds']} and {run.recipe['seeds']}"
        problems += [f"{key}: {values} (in {first} and {name})" for key, values in refused.items()]
        said += [f"{first} and {name} differ in {key}: {values}." for key, values in noted.items()]
        if _metrics(run) != _metrics(reference):
            said.append(f"The start of {name} was sampled anew and gave other replies; those of {first} are used.")
    if problems:
        raise PrefzooError("\n  - ".join(["these runs cannot stand in one table; they differ in", *problems]))
    return said


def _identity(run: Results) -> dict[str, Any]:
    return next(iter(next(iter(run.algorithms.values())).seeds.values())).identity


def _metrics(run: Results) -> list[dict[str, float]]:
    return [trial.metrics for trial in run.algorithms[START].seeds.values()]


def _once(trials: dict[tuple[str, str], AlgorithmResult], places: dict[str, Path]) -> dict[str, tuple[str, str]]:
    """The label in the merged table -> the run and the label there that it is."""
    different: dict[str, dict[Any, str]] = {}
    for (name, label), each in trials.items():
        replies = [(places[name] / trial.replies).read_bytes() for trial in each.seeds.values()]
        key = (each.algorithm, repr(sorted(each.settings.items())), hash(tuple(replies))) if label != START else ()
        different.setdefault(label, {}).setdefault(key, name)
    return {
        label if len(found) == 1 else f"{label} ({name})": (name, label)
        for label, found in different.items()
        for name in found.values()
    }


def _warnings(runs: dict[str, Results], kept: dict[str, tuple[str, str]]) -> list[Sign]:
    """Those of the kept policies, under their labels in the merged table, and those of no policy."""
    found = [
        replace(sign, policy=label, text=f"{label}{sign.text.removeprefix(original)}")
        for label, (name, original) in kept.items()
        for sign in runs[name].warnings
        if sign.policy == original
    ]
    general = [sign for run in runs.values() for sign in run.warnings if sign.policy is None]
    return [*found, *dict.fromkeys(general)]


def _moved(each: AlgorithmResult, folder: Path, out: Path) -> AlgorithmResult:
    """The same result with its paths as they are seen from `out`."""

    def seen(trial: SeedResult) -> SeedResult:
        places = {"replies": trial.replies, "policy": trial.policy}
        return trial.model_copy(update={k: os.path.relpath(folder / v, out) if v else None for k, v in places.items()})

    return each.model_copy(update={"seeds": {seed: seen(trial) for seed, trial in each.seeds.items()}})


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, with those of their parents where two are alike."""
    names = [folder.resolve().name for folder in folders]
    counts = Counter(names)
    return [
        name if counts[name] == 1 else f"{folder.resolve().parent.name}/{name}"
        for name, folder in zip(names, folders, strict=True)
    ]
