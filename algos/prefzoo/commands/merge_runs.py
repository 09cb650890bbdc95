"""Several finished comparisons in one table, if they are comparable.

What must be equal, and what may differ and is said, is decided in `identity`: refused are other rows, start,
adapter, budget, training arguments, sampling, test prompts, gold or reward, and other seeds, because verdicts are
paired by seed; noted are other versions of libraries, other cuts into batches, and other judges and constitutions
that algorithms learned from.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.report import report_files as report
from prefzoo.results import analysis, results_file
from prefzoo.results.equal_budgets import at_equal_budgets
from prefzoo.results.results_file import load_tables, load_verified
from prefzoo.results.results_schema import AlgorithmResult, Results, SeedResult, Warning
from prefzoo.run.stage_graph import START
from prefzoo.run.trial_identity import TEACHERS, differences


def merge(folders: Sequence[Path], out: Path) -> Results:
    """The union of the labels of several runs, judged anew, with a report in `out`.

    A label that is in two runs with the same trials counts once; with other trials (other settings, or trained again)
    it is kept from both, named `LABEL (RUN)` after the runs' folders. The start is the first run's. A folder that
    holds a merged report stands for the runs that it was made of.

    Raises:
        PrefzooError: when a folder holds no finished run, the runs are not comparable (saying every difference), or
            `out` holds anything but a merged report.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise PrefzooError(f"one run is given twice: {', '.join(map(str, folders))}")
    if out.resolve() in {folder.resolve() for folder in folders}:
        raise PrefzooError(f"--out {out}: the merged report would replace that of the run; choose another folder")
    if out.exists() and not out.is_dir():
        raise PrefzooError(f"--out {out}: is a file; choose a folder")
    if out.is_dir() and any(out.iterdir()) and not merged_from(out):
        raise PrefzooError(f"--out {out}: holds something else than a merged report; choose a new or an empty folder")
    spread = [run for folder in folders for run in merged_from(folder) or [folder]]
    return _merge(list({run.resolve(): run for run in spread}.values()), out)


def merged_from(folder: Path) -> list[Path]:
    """The runs that the merged report in a folder was made of; none where it holds no such report.

    Raises:
        PrefzooError: when a run is no longer where it was.
    """
    if not (folder / "results.json").is_file():
        return []
    places = {name: folder / place for name, place in results_file.load(folder).merged.items()}
    if gone := [f"{name} ({place})" for name, place in places.items() if not place.is_dir()]:
        raise PrefzooError(f"{folder} was merged of runs that are no longer there: {', '.join(gone)}")
    return list(places.values())


def rebuild_merged(out: Path) -> Results:
    """The report of a merged folder again, from its runs as they are now."""
    return _merge(merged_from(out), out)


def _merge(folders: Sequence[Path], out: Path) -> Results:
    runs = {name: load_verified(folder) for name, folder in zip(_names(folders), folders, strict=True)}
    said = _compared(runs)
    places = dict(zip(runs, folders, strict=True))
    trials = {(name, label): each for name, run in runs.items() for label, each in run.algorithms.items()}
    kept = _once(trials, places)
    out.mkdir(parents=True, exist_ok=True)
    algorithms, tables = {}, {}
    for label, (name, original) in kept.items():
        algorithms[label] = _moved(trials[name, original], places[name], out)
        tables[label] = load_tables(trials[name, original], places[name])
    first = next(iter(runs.values()))
    settings = {
        label: runs[name].recipe["algorithms"][original] for label, (name, original) in kept.items() if label != START
    }
    found = first.model_copy(
        update={
            "recipe": {**first.recipe, "algorithms": settings},
            "algorithms": algorithms,
            "shared": {f"{stage} ({name})": each for name, run in runs.items() for stage, each in run.shared.items()},
            "notes": [
                *dict.fromkeys([*said, *_taught(algorithms), *(note for run in runs.values() for note in run.notes)])
            ],
            "call": None,
            "merged": {name: os.path.relpath(place, out) for name, place in places.items()},
            "warnings": _warnings(runs, kept),
            "verdicts": analysis.verdicts(tables),
            "pairs": analysis.pairs(tables),
            "equal_budgets": at_equal_budgets(algorithms, tables, out),
            "ratings": analysis.ratings(tables),
            "workers": list(dict.fromkeys(n for run in runs.values() for n in run.workers)),
        }
    )
    report.write(found, out)
    return found


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


def _taught(algorithms: Mapping[str, AlgorithmResult]) -> list[str]:
    """That labels learned from other judges or constitutions than the first of them that learned from any."""
    first: dict[str, tuple[str, Any]] = {}
    said = []
    for label, each in algorithms.items():
        identity = next(iter(each.seeds.values())).identity if each.seeds else {}
        for what, teacher in identity.get(TEACHERS, {}).items():
            known, reference = first.setdefault(what, (label, teacher))
            refused, _ = differences({what: reference}, {what: teacher})
            if refused:
                values = "; ".join(f"{key}: {values}" for key, values in refused.items())
                said.append(f"{known} and {label} were not taught by the same {what}: {values}.")
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
        teachers = [trial.identity.get(TEACHERS) for trial in each.seeds.values()]
        same = (each.algorithm, repr(sorted(each.settings.items())), repr(teachers), hash(tuple(replies)))
        key = same if label != START else ()
        different.setdefault(label, {}).setdefault(key, name)
    return {
        label if len(found) == 1 else f"{label} ({name})": (name, label)
        for label, found in different.items()
        for name in found.values()
    }


def _warnings(runs: dict[str, Results], kept: dict[str, tuple[str, str]]) -> list[Warning]:
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
    """The folders' names, with as many of their parents' as tell them apart."""
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        enough = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names.append("/".join(own[-enough:]))
    return names
