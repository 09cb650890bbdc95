"""Read and write results.json."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from prefzoo.atomic_files import write_whole
from prefzoo.errors import PrefzooError
from prefzoo.results.results_schema import AlgorithmResult, Results


def identities(algorithms: Mapping[str, AlgorithmResult]) -> dict[str, dict[str, Any]]:
    """`LABEL seed SEED` -> what that trial recorded of itself."""
    return {
        f"{label} seed {seed}": trial.identity
        for label, each in algorithms.items()
        for seed, trial in each.seeds.items()
    }


def save(results: Results, out: Path) -> None:
    """Write `results.json` whole or not at all."""
    write_whole(out / "results.json", results.model_dump_json(by_alias=True, indent=1))


def load(out: Path) -> Results:
    """Read `results.json`.

    Raises:
        PrefzooError: when it is not what this version writes, naming what is wrong in it.
    """
    try:
        return Results.model_validate_json((out / "results.json").read_text(encoding="utf-8"))
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, each['loc'])) or 'all of it'}: {each['msg']}" for each in error.errors()]
        raise PrefzooError(
            f"{out / 'results.json'} is not what this version of prefzoo writes (first of {len(wrong)}: "
            f"{wrong[0]}); `prefzoo report {out}` makes it anew"
        ) from error
