"""A finished run, read back from its folder, with what its trials left beside it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from prefzoo.errors import PrefzooError
from prefzoo.results import results_file
from prefzoo.results.analysis import Tables
from prefzoo.results.results_schema import AlgorithmResult, Results, SeedResult
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.integrity import refuse_edited
from prefzoo.run.stage_graph import load_plan
from prefzoo.run.trial_identity import IDENTITY, differences, judges, refuse_unequal


def read(folder: Path) -> Results:
    """A run's results, of which every trial is what it was recorded to be.

    Raises:
        PrefzooError: when the folder holds no results, results of an older version or of other trials than lie beside
            them, unequal trials, or edited files.
    """
    if not (folder / "results.json").is_file():
        raise PrefzooError(f"{folder} holds no finished prefzoo run: there is no results.json in it")
    found = results_file.load(folder)
    identities = results_file.identities(found.algorithms)
    if missing := [name for name, each in identities.items() if not each]:
        raise PrefzooError(
            f"{folder}: {', '.join(missing)} did not record what they were made with, as versions before 0.3 did not; "
            "compare again to merge them"
        )
    refuse_unequal(identities, str(folder))
    plan = load_plan(folder)
    refuse_edited(plan)
    problems = [
        f"{label} seed {seed}: {said}"
        for label, each in found.algorithms.items()
        for seed, trial in each.seeds.items()
        for said in _unlike(trial, folder)
    ]
    if problems:
        raise PrefzooError(
            "\n  - ".join([f"{folder}: results.json does not say what the trials beside it do", *problems])
        )
    for label, each in found.algorithms.items():
        for trial in each.seeds.values():
            trial.identity = {**judges(plan.recipe, label), **trial.identity}  # older versions did not record these
    return found


def read_tables(each: AlgorithmResult, folder: Path) -> Tables:
    """The (seeds x prompts) tables of gold and proxy of one label, as far as all its trials have them."""
    if each.status != "ok":
        return {}
    trials = [read_records((folder / trial.replies).parent) for trial in each.seeds.values()]
    metrics = [m for m in ("gold", "proxy") if all(m in record for records in trials for record in records)]
    return {m: np.array([[float(record[m]) for record in records] for records in trials]) for m in metrics}


def _unlike(trial: SeedResult, folder: Path) -> Iterator[str]:
    """How the results differ from the folder of one trial's evaluation."""
    place = (folder / trial.replies).parent
    if (place / IDENTITY).is_file():
        kept = json.loads((place / IDENTITY).read_text(encoding="utf-8"))
        for found in differences(trial.identity, kept):
            yield from (f"{key}: {values}" for key, values in found.items())
    else:
        yield f"{place / IDENTITY} is gone"
    records = read_records(place)
    for metric in ("gold", "proxy", "kl", "length"):
        if metric in trial.metrics and all(metric in record for record in records):
            mean = float(np.mean([record[metric] for record in records]))
            if not np.isclose(mean, trial.metrics[metric], rtol=1e-6, atol=1e-9):
                yield f"{metric}: {trial.metrics[metric]:.4g} and {mean:.4g}"
