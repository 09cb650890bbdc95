"""The start that all trials of a comparison share: where it is, that it is still the same, and how they read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.models.dropout import own_dropout
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import load_model, read_instead
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run.cache import fingerprint
from prefzoo.run.stage_graph import START, Plan
from prefzoo.run.stages.recipe_inputs import loading
from prefzoo.run.trial_identity import content_hash

NOTED = "start.json"
MODEL = "model"
"""Folder of the start's own model, where it was made from another one."""

QUANTIZED = "quantized"
"""Folder of the start's copy in 4 or 8 bits, where the recipe's adapter is on such a base."""


def note_start(recipe: Recipe, folder: Path, path: str | None) -> None:
    """Keep in the stage's `folder` which model is the start, and its quantized copy where trials will want one.

    Args:
        path: of a model that is taken as it is; None for the one in `folder`.
    """
    place = path or str(folder / MODEL)
    noted: dict[str, Any] = {"path": path, "fingerprint": fingerprint(place), "sha256": content_hash(Path(place))}
    if recipe.adapter.quantization:
        quantized = load_model(place, **loading(recipe, recipe.adapter))
        with own_dropout(quantized):
            quantized.save_pretrained(str(folder / QUANTIZED))
        noted["quantized"] = fingerprint(str(folder / QUANTIZED))
    (folder / NOTED).write_text(json.dumps(noted), encoding="utf-8")


def know_the_copy(plan: Plan) -> None:
    """From now on, whoever in this process wants the start quantized as the recipe says reads its copy, where it is
    made already; a plan of audits alone makes no start."""
    if START not in plan.stages:
        return
    folder, recipe = plan.stages[START].folder, plan.recipe
    if (folder / QUANTIZED).is_dir():
        read_instead(_noted(folder)[1], folder / QUANTIZED, **loading(recipe, recipe.adapter))


def start_path(plan: Plan) -> str:
    """Folder of the start policy.

    Raises:
        PrefzooError: when it, or its quantized copy, is not what was made.
    """
    if not plan.stages[START].done:
        raise PrefzooError("the start of this comparison was not finished")
    folder = plan.stages[START].folder
    noted, path = _noted(folder)
    found = (fingerprint(path), fingerprint(str(folder / QUANTIZED)))
    if found != (noted["fingerprint"], noted.get("quantized")):
        raise PrefzooError(f"the start in {path} is no longer the one that was made; nothing can be compared with it")
    return path


def start_policy(recipe: Recipe, path: str) -> LanguageModelPolicy:
    """The start policy, loaded as every trial loads it."""
    return LanguageModelPolicy.from_start(path, **loading(recipe, recipe.adapter))


def _noted(folder: Path) -> tuple[dict[str, Any], str]:
    """What was kept, and the place of the model."""
    noted = json.loads((folder / NOTED).read_text(encoding="utf-8"))
    return noted, str(noted["path"] or folder / MODEL)
