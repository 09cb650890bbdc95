"""Read and write `results.json`, with what lies beside it: the calls that made it and the trials' own records."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import ValidationError

from prefzoo import plugins, registry
from prefzoo.atomic_files import read_json, write_whole
from prefzoo.errors import PrefzooError
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results.analysis import ALL, PromptGroups, Tables, prompt_groups, read_tables
from prefzoo.results.results_schema import AlgorithmResult, Call, Results, SeedResult
from prefzoo.results.statistics import group_means
from prefzoo.run.cache import ran_with
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.integrity import refuse_edited
from prefzoo.run.stage_graph import START, load_plan
from prefzoo.run.trial_identity import IDENTITY, differences, judges, refuse_unequal

RESULTS = "results.json"
CALLS = "calls.jsonl"


def save(results: Results, out: Path) -> None:
    """Write `results.json` whole or not at all."""
    write_whole(out / RESULTS, results.model_dump_json(by_alias=True, indent=1))


def load(out: Path) -> Results:
    """Read `results.json`.

    Raises:
        PrefzooError: when it is not what this version writes, naming what is wrong in it.
    """
    try:
        return Results.model_validate_json((out / RESULTS).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PrefzooError(f"{out / RESULTS} cannot be read ({error}); `prefzoo report {out}` makes it anew") from error
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, item['loc'])) or 'all of it'}: {item['msg']}" for item in error.errors()]
        raise PrefzooError(
            f"{out / RESULTS} is not what this version of prefzoo writes (first of {len(wrong)}: "
            f"{wrong[0]}); `prefzoo report {out}` makes it anew"
        ) from error


def load_verified(folder: Path) -> Results:
    """Read a run's results after checking that every trial is what it was recorded to be.

    Raises:
        PrefzooError: when the folder holds no results, results of an older version or of other trials than lie beside
            them, unequal trials, or edited files.
    """
    if not (folder / RESULTS).is_file():
        raise PrefzooError(f"{folder} holds no finished prefzoo run: there is no {RESULTS} in it")
    results = load(folder)
    trials = identities(results.algorithms)
    if missing := [name for name, identity in trials.items() if not identity]:
        raise PrefzooError(
            f"{folder}: {', '.join(missing)} did not record what they were made with, as versions before 0.3 did not; "
            "compare again to merge them"
        )
    refuse_unequal(trials, str(folder))
    plan = load_plan(folder)
    refuse_edited(plan)
    problems = [
        f"{label} seed {seed}: {problem}"
        for label, algorithm in results.algorithms.items()
        for seed, trial in algorithm.seeds.items()
        for problem in _contradictions(trial, folder)
    ]
    if problems:
        raise PrefzooError("\n  - ".join([f"{folder}: {RESULTS} does not say what the trials beside it do", *problems]))
    for label, algorithm in results.algorithms.items():
        for trial in algorithm.seeds.values():
            trial.identity = {**judges(plan.recipe, label), **trial.identity}  # older versions did not record these
    return results


def _contradictions(trial: SeedResult, folder: Path) -> Iterator[str]:
    """Yield how the results differ from the folder of one trial's evaluation."""
    evaluation = (folder / trial.replies).parent
    if (evaluation / IDENTITY).is_file():
        recorded = read_json(evaluation / IDENTITY)
        for difference in differences(trial.identity, recorded):
            yield from (f"{key}: {values}" for key, values in difference.items())
    else:
        yield f"{evaluation / IDENTITY} is gone"
    records = read_records(evaluation)
    for metric in ("gold", "proxy", "kl", "length"):
        if metric in trial.metrics and all(metric in record for record in records):
            values = np.array([record[metric] for record in records])
            mean = float(np.mean(group_means(values, prompt_groups(records)[ALL])))
            if not np.isclose(mean, trial.metrics[metric], rtol=1e-6, atol=1e-9):
                yield f"{metric}: {trial.metrics[metric]:.4g} and {mean:.4g}"


def identities(algorithms: Mapping[str, AlgorithmResult]) -> dict[str, dict[str, Any]]:
    """Return `LABEL seed SEED` -> what that trial recorded of itself."""
    return {
        f"{label} seed {seed}": trial.identity
        for label, algorithm in algorithms.items()
        for seed, trial in algorithm.seeds.items()
    }


def load_tables(result: AlgorithmResult, folder: Path) -> Tables:
    """Read the (seeds x prompts) tables of one label in the run in `folder`; none where a trial failed."""
    if result.status != "ok":
        return {}
    return read_tables([(folder / trial.replies).parent for trial in result.seeds.values()])


def load_groups(results: Results, folder: Path) -> PromptGroups:
    """Read the groups of the test prompts of the run in `folder`; none where the start was not measured."""
    trials = results.algorithms[START].seeds.values() if START in results.algorithms else ()
    return next((prompt_groups(read_records((folder / trial.replies).parent)) for trial in trials), {})


def note_call(recipe: Recipe, out: Path) -> None:
    """Append this call to `calls.jsonl`, with the versions and the recipe that it ran with. What is damaged in that
    file stays in it."""
    used = {settings.get("algorithm", label) for label, settings in recipe.algorithms.items()}
    registered = {
        name: getattr(sys.modules.get(cls.__module__), "__file__", None) or ""
        for name, cls in sorted(registry.registered().items())
        if name in used
    }
    files = [file for file in plugins.loaded() if file in registered.values() and file not in recipe.plugins]
    call = Call(command=shlex.join(sys.argv), folder=str(Path.cwd()), registered=registered, plugins=files)
    content = {**call.model_dump(), "versions": ran_with(), "recipe": recipe.model_dump(mode="json")}
    earlier = (out / CALLS).read_bytes() if (out / CALLS).is_file() else b""
    earlier += b"" if earlier.endswith(b"\n") or not earlier else b"\n"
    write_whole(out / CALLS, earlier + json.dumps(content).encode() + b"\n")


def last_call(out: Path) -> Call | None:
    """Return the last call in a folder; None where none was noted, or by a version that noted less, or the last line
    is damaged."""
    try:
        content = json.loads((out / CALLS).read_text(encoding="utf-8").splitlines()[-1])
        return Call.model_validate({key: content[key] for key in Call.model_fields})
    except (OSError, ValueError, IndexError, KeyError, TypeError, RecursionError):
        return None
