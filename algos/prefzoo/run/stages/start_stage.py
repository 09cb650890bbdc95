"""The start stage: the model that all trials share is made, and read and checked by every trial in the same way."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.ledger import Ledger
from prefzoo.models import loading
from prefzoo.models.dropout import own_dropout
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run import distributed
from prefzoo.run.cache import fingerprint
from prefzoo.run.evaluation_records import DETAILS
from prefzoo.run.resources import metered
from prefzoo.run.stage_graph import START, Plan, Stage
from prefzoo.run.stages import recipe_inputs
from prefzoo.run.trial_identity import content_hash
from prefzoo.types import Progress

START_FILE = "start.json"
MODEL = "model"
"""Folder of the start's own model, where it was made from another one."""

QUANTIZED = "quantized"
"""Folder of the start's copy in 4 or 8 bits, where the recipe's adapter is on such a base."""


def make_start(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Make the start policy: a plain model folder, adapter merged in full precision, and `start.json`."""
    recipe = plan.recipe
    algorithm = recipe.start_algorithm()
    ledger = Ledger()
    path = base = loading.resolve(recipe.model.path, recipe.model.revision)
    if algorithm is not None:
        bench = recipe_inputs.bench_of(plan, stage, folder, base, recipe.seeds[0], progress, rows="data")
        ledger = bench.ledger
        with metered(ledger):
            policy = algorithm.train(bench)
    if distributed.is_follower():  # the first process writes what follows
        return
    if algorithm is not None:
        (folder / DETAILS).write_text(json.dumps(bench.report, indent=1), encoding="utf-8")
        assert isinstance(policy, LanguageModelPolicy)
        path = str(folder / MODEL)
        policy.export(folder / MODEL)
    record: dict[str, Any] = {
        "path": None if algorithm else base,
        "fingerprint": fingerprint(path),
        "sha256": content_hash(Path(path)),
    }
    if recipe.adapter.quantization:
        model = loading.load_model(path, **recipe_inputs.loading(recipe, recipe.adapter))
        with own_dropout(model):
            model.save_pretrained(str(folder / QUANTIZED))
        record["quantized"] = fingerprint(str(folder / QUANTIZED))
    (folder / START_FILE).write_text(json.dumps(record), encoding="utf-8")
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")


def use_quantized_copy(plan: Plan) -> None:
    """From now on, this process reads the start's quantized copy wherever it would quantize the start.

    Nothing happens where there is no copy yet, or where the plan makes no start, as one of audits alone."""
    if START not in plan.stages:
        return
    folder, recipe = plan.stages[START].folder, plan.recipe
    if (folder / QUANTIZED).is_dir():
        _, path = _read_record(folder)
        loading.use_quantized_copy(path, folder / QUANTIZED, **recipe_inputs.loading(recipe, recipe.adapter))


def start_path(plan: Plan) -> str:
    """Folder of the start policy.

    Raises:
        PrefzooError: when it, or its quantized copy, is not what was made.
    """
    if not plan.stages[START].done:
        raise PrefzooError("the start of this comparison was not finished")
    folder = plan.stages[START].folder
    record, path = _read_record(folder)
    if (fingerprint(path), fingerprint(str(folder / QUANTIZED))) != (record["fingerprint"], record.get("quantized")):
        raise PrefzooError(f"the start in {path} is no longer the one that was made; nothing can be compared with it")
    return path


def start_policy(recipe: Recipe, path: str) -> LanguageModelPolicy:
    """The start policy, loaded as every trial loads it."""
    return LanguageModelPolicy.from_start(path, **recipe_inputs.loading(recipe, recipe.adapter))


def _read_record(folder: Path) -> tuple[dict[str, Any], str]:
    """The content of `start.json`, and the folder of the model."""
    record = json.loads((folder / START_FILE).read_text(encoding="utf-8"))
    return record, str(record["path"] or (folder / MODEL).resolve())  # adapters on it are loaded from any folder
