"""Put several finished comparisons into one table, if they are comparable.

`trial_identity` decides which differences are refused and which are only noted. Other seeds are refused, too, because
verdicts are paired by seed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import refuse_links
from prefzoo.errors import PrefzooError, os_errors_told
from prefzoo.report import report_files as report
from prefzoo.results import analysis, results_file
from prefzoo.results.caveats import power_difference
from prefzoo.results.equal_budgets import at_equal_budgets
from prefzoo.results.results_file import load_groups, load_tables, load_verified
from prefzoo.results.results_schema import AlgorithmResult, Results, SeedResult, Warning
from prefzoo.results.tuning_results import explained, moved, search_sds
from prefzoo.run.stage_graph import START
from prefzoo.run.trial_identity import TEACHERS, differences


@os_errors_told("merging")
def merge(folders: Sequence[Path], out: Path) -> Results:
    """The union of the labels of several runs, judged anew, with a report in `out`.

    A label that is in two runs with the same trials counts once; with other trials (other settings, or trained again)
    it is kept from both, named `LABEL (RUN)` after the runs' folders. The start is the first run's. A folder that
    holds a merged report stands for the runs that it was made of. Each run's search for settings stays by itself, under
    the labels of the merged table, because scores of other validation prompts or budgets are not comparable; where runs
    were not tuned alike, a note says so.

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
    notes = _compared(runs)
    places = dict(zip(runs, folders, strict=True))
    trials = {(name, label): result for name, run in runs.items() for label, result in run.algorithms.items()}
    origins, labels = _origins(trials, places)
    out.mkdir(parents=True, exist_ok=True)
    refuse_links(out)
    algorithms, tables = {}, {}
    for label, (name, original) in origins.items():
        algorithms[label] = _moved(trials[name, original], places[name], out)
        tables[label] = load_tables(trials[name, original], places[name])
    first = next(iter(runs.values()))
    groups = load_groups(first, folders[0])
    settings = {
        label: runs[name].recipe["algorithms"][original]
        for label, (name, original) in origins.items()
        if label != START
    }
    searches = {
        name: moved(run.tuning, labels[name], places[name], out) for name, run in runs.items() if run.tuning is not None
    }
    verdicts = analysis.verdicts(tables, groups, search_sds(*searches.values()))
    merged = first.model_copy(
        update={
            "recipe": {**first.recipe, "algorithms": settings},
            "algorithms": algorithms,
            "shared": {f"{stage} ({name})": cost for name, run in runs.items() for stage, cost in run.shared.items()},
            "notes": list(
                dict.fromkeys(
                    [
                        *notes,
                        *_taught(algorithms),
                        *_tuned(runs),
                        *(f"People's answers are in the report of {name}." for name, run in runs.items() if run.human),
                        *(note for run in runs.values() for note in run.notes),
                    ]
                )
            ),
            "human": None,
            "call": None,
            "merged": {name: os.path.relpath(place, out) for name, place in places.items()},
            "warnings": _warnings(runs, origins),
            "verdicts": verdicts,
            "power_difference": power_difference(verdicts, first.primary, len(first.recipe["seeds"])),
            "pairs": analysis.pairs(tables, groups),
            "equal_budgets": at_equal_budgets(algorithms, tables, out, groups),
            "ratings": analysis.ratings(tables, groups),
            "tuning": None,
            "merged_tuning": {name: explained(search, verdicts, first.primary) for name, search in searches.items()},
            "workers": list(dict.fromkeys(n for run in runs.values() for n in run.workers)),
        }
    )
    report.write(merged, out)
    return merged


def _compared(runs: dict[str, Results]) -> list[str]:
    """Notes on the differences between runs.

    Raises:
        PrefzooError: naming every difference that cannot stand in one table.
    """
    (first, reference), *others = runs.items()
    problems, notes = [], [f"Merged from {', '.join(runs)}."]
    for name, run in others:
        refused, non_blocking = differences(_identity(reference), _identity(run))
        if reference.recipe["seeds"] != run.recipe["seeds"]:
            refused["seeds"] = f"{reference.recipe['seeds']} and {run.recipe['seeds']}"
        problems += [f"{key}: {values} (in {first} and {name})" for key, values in refused.items()]
        notes += [f"{first} and {name} differ in {key}: {values}." for key, values in non_blocking.items()]
        if _metrics(run) != _metrics(reference):
            notes.append(f"The start of {name} was sampled anew and gave other replies; those of {first} are used.")
    if problems:
        raise PrefzooError("\n  - ".join(["these runs cannot stand in one table; they differ in", *problems]))
    return notes


def _taught(algorithms: Mapping[str, AlgorithmResult]) -> list[str]:
    """Notes on labels that learned from another judge or constitution than the first label that learned from any."""
    first: dict[str, tuple[str, Any]] = {}
    notes = []
    for label, result in algorithms.items():
        identity = next(iter(result.seeds.values())).identity if result.seeds else {}
        for kind, teacher in identity.get(TEACHERS, {}).items():
            first_label, reference = first.setdefault(kind, (label, teacher))
            refused, _ = differences({kind: reference}, {kind: teacher})
            if refused:
                values = "; ".join(f"{key}: {values}" for key, values in refused.items())
                notes.append(f"{first_label} and {label} were not taught by the same {kind}: {values}.")
    return notes


def _identity(run: Results) -> dict[str, Any]:
    return next(iter(next(iter(run.algorithms.values())).seeds.values())).identity


def _metrics(run: Results) -> list[dict[str, float]]:
    return [trial.metrics for trial in run.algorithms[START].seeds.values()]


def _tuned(runs: Mapping[str, Results]) -> list[str]:
    """Notes on runs whose settings were not searched alike, so that their policies had not the same chance."""

    def search(run: Results) -> dict[str, Any]:
        kept = {"objective", "sampler", "equal", "trials", "seeds", "prompts", "budget"}
        return run.tuning.model_dump(include=kept) if run.tuning is not None else {}

    (first, reference), *others = {name: search(run) for name, run in runs.items()}.items()
    notes = []
    for name, other in others:
        if reference and other:
            values = [f"{key} {reference[key]} and {other[key]}" for key in reference if reference[key] != other[key]]
            how = (
                f"The settings of {first} and {name} were searched differently ({', '.join(values)})" if values else ""
            )
        else:
            tuned, untuned = (first, name) if reference else (name, first)
            how = f"The settings of {tuned} were searched, those of {untuned} were not" if reference or other else ""
        notes += [f"{how}: their policies had not the same chance."] if how else []
    return notes


def _origins(
    trials: dict[tuple[str, str], AlgorithmResult], places: dict[str, Path]
) -> tuple[dict[str, tuple[str, str]], dict[str, dict[str, str]]]:
    """The label in the merged table -> the run that it is from, and its label there; and of each run, label -> that in
    the merged table."""
    versions: dict[str, dict[Any, list[str]]] = {}
    for (name, label), result in trials.items():
        replies = [(places[name] / trial.replies).read_bytes() for trial in result.seeds.values()]
        teachers = [trial.identity.get(TEACHERS) for trial in result.seeds.values()]
        content = (result.algorithm, repr(sorted(result.settings.items())), repr(teachers), hash(tuple(replies)))
        versions.setdefault(label, {}).setdefault(content if label != START else (), []).append(name)
    origins: dict[str, tuple[str, str]] = {}
    labels: dict[str, dict[str, str]] = {name: {} for name in places}
    for label, holders in versions.items():
        for names in holders.values():
            merged = label if len(holders) == 1 else f"{label} ({names[0]})"
            origins[merged] = (names[0], label)
            for name in names:
                labels[name][label] = merged
    return origins, labels


def _warnings(runs: dict[str, Results], origins: dict[str, tuple[str, str]]) -> list[Warning]:
    """Warnings of the merged table's policies, under their labels there, and those of no policy."""
    of_policies = [
        replace(warning, policy=label, text=f"{label}{warning.text.removeprefix(original)}")
        for label, (name, original) in origins.items()
        for warning in runs[name].warnings
        if warning.policy == original
    ]
    general = [warning for run in runs.values() for warning in run.warnings if warning.policy is None]
    return [*of_policies, *dict.fromkeys(general)]


def _moved(result: AlgorithmResult, folder: Path, out: Path) -> AlgorithmResult:
    """The same result with its paths relative to `out`."""

    def move(trial: SeedResult) -> SeedResult:
        paths = {"replies": trial.replies, "policy": trial.policy}
        return trial.model_copy(update={k: os.path.relpath(folder / v, out) if v else None for k, v in paths.items()})

    return result.model_copy(update={"seeds": {seed: move(trial) for seed, trial in result.seeds.items()}})


def _names(folders: Sequence[Path]) -> list[str]:
    """The folders' names, preceded by as many of their parents' as make them differ."""
    parts = [folder.resolve().parts for folder in folders]
    names = []
    for own in parts:
        others = [other for other in parts if other != own]
        enough = next(n for n in range(1, len(own) + 1) if all(other[-n:] != own[-n:] for other in others))
        names.append("/".join(own[-enough:]))
    return names
