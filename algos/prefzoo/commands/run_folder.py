"""The folder of a comparison: which recipe runs in it, who holds it, and how its stages ended."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import refuse_links, write_whole
from prefzoo.commands.held_comparison import held_in
from prefzoo.errors import PrefzooError, WaitsForPeople
from prefzoo.recipe.check_recipe import load
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run import distributed
from prefzoo.run.cluster_settings import Cluster
from prefzoo.run.executor import OUTCOMES, Outcome
from prefzoo.run.host_lock import EXPIRES_SECONDS, Held, HostLock
from prefzoo.run.stage_job import JOBS, unended

WAITS = f"waiting up to {EXPIRES_SECONDS:.0f} s to see whether the call on another host that holds this folder lives"


def checked_recipe(
    recipe: str | Mapping[str, Any],
    algorithms: Iterable[str] | None,
    seeds: int | list[int] | None,
    sets: Iterable[str],
    add: Sequence[str] = (),
    out: str | Path | None = None,
    tune: int | None = None,
) -> Recipe:
    """The recipe of a command that runs stages, with `add` beside the labels of the comparison in `out`, by its seeds
    and tuning where nothing else is said, or with so many trials of tuning; of the processes of a launcher, all but the
    first end here."""
    if distributed.is_follower():
        raise SystemExit(0)
    if add and algorithms is not None:
        raise PrefzooError(f"--add {','.join(add)} and --algorithms: give one of the two")
    sets = list(sets)
    held = held_in(run_folder(recipe, out)) if add else None
    if held is not None and seeds is None and not any(each.startswith("seeds=") for each in sets):
        seeds = held.recipe["seeds"]
    if held is not None and tune is None and not any(each.startswith("tuning") for each in sets):
        sets += [f"tuning={json.dumps(held.recipe.get('tuning'))}"]
    sets += [f"seeds={json.dumps(seeds)}"] if seeds is not None else []
    sets += [f"tuning.trials={tune}"] if tune is not None else []
    return load(recipe, sets, algorithms, add, held.algorithms if held is not None else None)


def run_folder(recipe: str | Mapping[str, Any], out: str | Path | None) -> Path:
    """The folder of a comparison: `out`, or one named after the recipe."""
    return Path(out) if out is not None else Path("runs") / (Path(recipe).stem if isinstance(recipe, str) else "recipe")


@contextlib.contextmanager
def locked_folder(
    recipe: str | Mapping[str, Any], out: str | Path | None, cluster: Cluster | None = None
) -> Iterator[Path]:
    """A recipe's folder, made if need be and held against other processes, on this host or another.

    Args:
        cluster: whose jobs of an earlier call may still run.

    Raises:
        PrefzooError: when another process holds it, other jobs may still run in it, or symbolic links in it lead
            elsewhere.
        OSError: when it cannot be made.
    """
    folder = run_folder(recipe, out)
    folder.mkdir(parents=True, exist_ok=True)
    refuse_links(folder, ("stages", "trials", JOBS))
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(HostLock(folder / ".lock").held(False, lambda: print(WAITS, file=sys.stderr)))
        except Held as held:
            advice = "wait for it, or choose another --out"
            raise PrefzooError(f"{folder} is in use by another prefzoo{held}; {advice}") from None
        engine = cluster.executor if cluster is not None else None
        if others := [attempt for attempt in unended(folder) if attempt.engine != engine]:
            raise PrefzooError(
                f"{', '.join(attempt.stage for attempt in others)}: given to {others[0].engine} by an earlier call, "
                f"and may still run there; call with --on as then, which takes them over, or, where they have ended "
                f"(`prefzoo status {folder}`), delete {folder / JOBS}"
            )
        yield folder


def refuse_failed(outcomes: Mapping[str, Outcome], names: Iterable[str]) -> None:
    for name in names:
        if outcomes[name].status == "waiting":
            raise WaitsForPeople(f"{name}: {outcomes[name].error}")
        if outcomes[name].status != "ok":
            raise PrefzooError(f"{name}: {outcomes[name].error}")


def save_outcomes(outcomes: Mapping[str, Outcome], out: Path) -> None:
    """Write how each stage ended, so that a rebuilt report still says why something failed."""
    content = {name: asdict(outcome) for name, outcome in outcomes.items()}
    write_whole(out / OUTCOMES, json.dumps(content, indent=1))
