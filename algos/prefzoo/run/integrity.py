"""What was changed after it was made: hashes kept beside what a stage left, and what a report refuses by them.

Verdicts are computed from files that lie open in a folder. A hash beside each says whether it is still what the stage
wrote; it keeps mistakes out (an edit, a copy that broke off, two runs mixed), not somebody who writes the hash anew.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prefzoo.data import splits
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS
from prefzoo.run.cache import fingerprint
from prefzoo.run.stage_graph import LABEL, START, Plan, Stage

SEAL = "sha256.json"
SEALED = ("label", "reward", "train", "evaluate", "audit")
"""Kinds of stages that are sealed; the data has a manifest and the start a hash of its own."""
KINDS = (".json", ".jsonl", ".jinja", ".model", ".safetensors")
LARGE = 1_000_000_000
"""Files from this many bytes on, the weights of whole models, are known by their size alone: a report hashes all."""


def seal(folder: Path) -> None:
    """Note a hash of each file of data, settings and weights that a stage leaves in `folder`."""
    marks = {file.relative_to(folder).as_posix(): _mark(file) for file in _files(folder)}
    (folder / SEAL).write_text(json.dumps(marks, indent=1), encoding="utf-8")


def unsealed(plan: Plan) -> list[str]:
    """That edits of some trials could not be seen, where an older version made them."""
    made = [stage for stage in plan.stages.values() if stage.kind in ("train", "evaluate") and stage.folder.is_dir()]
    without = [stage.name for stage in made if not (stage.folder / SEAL).is_file()]
    if not without:
        return []
    return [
        f"{len(without)} of {len(made)} trainings and evaluations were made by a version that kept no hashes of "
        "replies and weights: whether these were changed since cannot be told."
    ]


def refuse_edited(plan: Plan) -> None:
    """Refuse to report on files that are no longer those that the trials were made with and left.

    Where nothing could be measured there is no table to refuse, and each trial says why it failed. Weights that were
    deleted, to save room, are missed by no report.

    Raises:
        PrefzooError: naming every split, start, adapter and file of a stage that was changed since, or is gone.
    """
    if not any(stage.kind == "evaluate" and stage.done for stage in plan.stages.values()):
        return
    problems = [*_rows(plan), *_start(plan), *_adapters(plan)]
    for stage in plan.stages.values():
        problems += [f"{stage.name}: {said}" for said in _broken(stage)]
    if problems:
        raise PrefzooError(
            "\n  - ".join(
                [
                    f"{plan.out}: files were changed after the comparison was made. Put them back, or delete the "
                    "stage's folder and compare again, which makes it anew:",
                    *problems,
                ]
            )
        )


def _rows(plan: Plan) -> Iterator[str]:
    """The splits of the data, and of the labels that were added to them."""
    data = plan.stages["data"].folder
    manifest = _read(data / "manifest.json")["splits"]
    for name, part in manifest.items():
        if _hash(data, name) != part["sha256"]:
            yield f"manifest.{name}: the rows in {data / name}.jsonl are not those of the manifest"
    if LABEL not in plan.stages or not (labels := plan.stages[LABEL].folder).is_dir():
        return
    for name, part in _read(labels / "labels.json")["splits"].items():
        given = manifest[name]["rows"]
        if (_hash(labels, name, 0, given), _hash(labels, name, given)) != (manifest[name]["sha256"], part["sha256"]):
            yield f"labels of {name}: the rows in {labels / name}.jsonl are not those that were labelled"


def _start(plan: Plan) -> Iterator[str]:
    folder = plan.stages[START].folder
    noted = _read(folder / "start.json")
    place = noted["path"] or str(folder / "model")
    if fingerprint(place) != noted["fingerprint"]:
        yield f"start: the model in {place} is not the one that was made"


def _adapters(plan: Plan) -> Iterator[str]:
    """Adapters of another shape than the recipe's."""
    adapter = plan.recipe.adapter
    for stage in plan.stages.values():
        file = stage.folder / "policy" / "adapter_config.json"
        if stage.kind == "train" and adapter.type != "full" and file.is_file():
            kept = _read(file)
            for key, name in (("r", "r"), ("alpha", "lora_alpha")):
                if kept[name] != (wanted := getattr(adapter, key)):
                    yield f"adapter.{key}: {wanted} in the recipe and {kept[name]} in {stage.name}"


def _broken(stage: Stage) -> Iterator[str]:
    """Files of a stage that are not as its seal says; none where it has no seal."""
    if not (stage.folder / SEAL).is_file():
        return
    for name, mark in _read(stage.folder / SEAL).items():
        file = stage.folder / name
        if not file.is_file():
            if stage.kind == "evaluate" or "/" not in name:
                yield f"{file} is gone"
        elif _mark(file) != mark:
            yield f"{file} is not what was written"


def _files(folder: Path) -> list[Path]:
    found = [file for file in sorted(folder.rglob("*")) if file.suffix in KINDS and file.is_file()]
    return [file for file in found if file.name != SEAL and CHECKPOINTS not in file.relative_to(folder).parts]


def _mark(file: Path) -> str:
    size = file.stat().st_size
    if size >= LARGE:
        return f"{size} bytes"
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while piece := content.read(1 << 24):
            digest.update(piece)
    return digest.hexdigest()


def _hash(folder: Path, split: str, begin: int = 0, end: int | None = None) -> str | None:
    """The seal of some rows of a split; None where it is gone or cannot be read."""
    try:
        return splits.sha256_of(splits.load_split(folder, split)[begin:end])
    except (OSError, ValueError, TypeError):
        return None


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise PrefzooError(f"{path} cannot be read: {error}; delete its folder and compare again") from error
