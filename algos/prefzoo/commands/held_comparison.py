"""The comparison that a folder holds already, and whether a new call goes on with it.

A folder holds one comparison. A later call may add labels and seeds, and what is trained counts. A call that would
leave a finished label out of the report, or a seed of the same comparison, is refused. Another model, data, budget or
setting of a label makes another comparison, whose report takes the place of the first where it has the same labels.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.atomic_files import read_json
from prefzoo.errors import PrefzooError
from prefzoo.recipe.tuning_space import UNTUNED
from prefzoo.run.stage_graph import INCOMPLETE, PLAN_FILE, Plan
from prefzoo.run.trial_identity import differences, without_server

CHANGES_NO_TRIAL = ("algorithms", "seeds", "tracking", "plugins")
"""Keys of a recipe that are compared by themselves, or on which no trial depends."""


@dataclass(frozen=True)
class Held:
    """A comparison in a folder.

    Attributes:
        recipe: as `plan.json` holds it, its labels as they were before tuning.
        finished: label and seed of each training that is done.
    """

    recipe: dict[str, Any]
    finished: set[tuple[str, int]]

    @property
    def algorithms(self) -> dict[str, dict[str, Any]]:
        """Label -> its settings."""
        return dict(self.recipe["algorithms"])


def held_in(out: Path) -> Held | None:
    """The comparison in a folder; None where there is none that can be read."""
    try:
        content = read_json(out / PLAN_FILE)
        trained = [stage for stage in content["stages"] if stage["kind"] == "train" and _done(out / stage["folder"])]
        recipe = {**content["recipe"], "algorithms": content.get("written") or content["recipe"]["algorithms"]}
        return Held(recipe, {(stage["label"], stage["seed"]) for stage in trained})
    except (PrefzooError, KeyError, TypeError):
        return None


def _done(folder: Path) -> bool:
    return folder.is_dir() and not (folder / INCOMPLETE).exists()


def go_on(plan: Plan, add: Iterable[str] = ()) -> str | None:
    """Decide whether a plan goes on with what its folder holds.

    Args:
        add: labels that the caller wants beside those in the folder.

    Returns:
        A note where this is another comparison, whose report takes the place of the one that is there.

    Raises:
        PrefzooError: when finished trials would be left out of the report, or labels cannot be added because the
            settings that all labels share differ; with what to say instead.
    """
    held = held_in(plan.out)
    if held is None:
        return None
    recipe = plan.recipe.model_dump(mode="json")
    changed = _changed(held.recipe, recipe)
    listed = "; ".join(f"{key}: {values}" for key, values in changed.items())
    if changed and (names := list(add)):
        raise PrefzooError(
            f"--add {','.join(names)}: {plan.out} holds a comparison with other settings (there the first of two "
            f"values), beside which nothing can be put: {listed}. Say the same with --set, or choose another --out"
        )
    kept = [*recipe["algorithms"], *(map(UNTUNED.format, recipe["algorithms"]) if recipe["tuning"] else ())]
    labels = list(dict.fromkeys(label for label, _ in sorted(held.finished) if label not in kept))
    seeds = [] if changed else sorted({seed for _, seed in held.finished if seed not in recipe["seeds"]})
    if labels or seeds:
        raise PrefzooError(_loses(plan, held, labels, seeds))
    if changed:
        return (
            f"{plan.out} holds another comparison, which differs in {listed} (there the first of two values): what "
            "fits is used again, and its report is replaced"
        )
    return None


def _changed(held: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, str]:
    """Key -> both values, of what makes two recipes different comparisons."""

    one_is_not_tuned = not (held.get("tuning") and recipe["tuning"])

    def shared(content: Mapping[str, Any]) -> dict[str, Any]:
        common = {label: content["algorithms"][label] for label in held["algorithms"] if label in recipe["algorithms"]}
        rest = {key: value for key, value in content.items() if key not in CHANGES_NO_TRIAL}
        if one_is_not_tuned:
            rest["tuning"] = f"{content['tuning']['trials']} trials" if content.get("tuning") else "none"
        rest["evaluation"] = {key: value for key, value in content.get("evaluation", {}).items() if key != "human"}
        rest["generation"] = without_server(content.get("generation", {}))
        rest["judge"] = {key: value for key, value in content.get("judge", {}).items() if key != "audit_pairs"}
        return {**rest, "the first of seeds": content["seeds"][0], "algorithms": common}

    refused, noted = differences(shared(held), shared(recipe))
    return {**refused, **noted}


def _loses(plan: Plan, held: Held, labels: list[str], seeds: list[int]) -> str:
    """What would be missing in the report, and what to say so that it is not."""
    recipe = plan.recipe
    what, instead = [], []
    if labels:
        what.append(f"of {', '.join(labels)}")
        if not recipe.tuning and (before := held.recipe.get("tuning")):
            instead.append(f"--tune {before['trials']} keeps them")
        elif new := [label for label in recipe.algorithms if label not in held.algorithms]:
            instead.append(f"--add {','.join(new)} puts {', '.join(new)} beside what is there")
        else:
            instead.append(f"--algorithms {','.join([*recipe.algorithms, *labels])} keeps all of them")
    if seeds:
        every = sorted({*recipe.seeds, *seeds})
        given = f"--seeds {len(every)}" if every == list(range(len(every))) else f"--set 'seeds={every}'"
        what.append(f"of seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}")
        instead.append(f"{given} keeps all seeds")
    return (
        f"{plan.out} holds finished trials {' and '.join(what)}, which would be missing in the new report. "
        f"{'; '.join(instead)}; or choose another --out"
    )
