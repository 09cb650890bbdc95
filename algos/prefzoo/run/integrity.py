"""Refuse to report on files that were changed after a stage wrote them.

Verdicts are computed from files that lie open in a folder. A hash beside each tells whether it is still what the stage
wrote. That finds mistakes (an edit, a copy that broke off, two runs mixed), not somebody who writes the hash anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from prefzoo.atomic_files import file_sha256, read_json
from prefzoo.data import splits
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS
from prefzoo.run.cache import fingerprint
from prefzoo.run.stage_graph import LABEL_STAGE, START, Plan, Stage

SEAL = "sha256.json"
SEALED = ("data", "start", "label", "reward", "train", "evaluate", "audit", "tune")
"""Kinds of stages that get hashes."""
RECORDED = ("data", "start")
"""Kinds of which only the records get one: the rows have hashes in the manifest, and the start's model has its own."""
SUFFIXES = (".json", ".jsonl", ".jinja", ".model", ".safetensors")
LARGE = 1_000_000_000
"""Files from this many bytes on, the weights of whole models, are known by their size alone: a report hashes all."""


def seal(folder: Path, records: bool = False) -> None:
    """Write a hash of each file of data, settings and weights that a stage leaves in `folder`, or of its `records`
    alone."""
    found = folder.glob("*.json") if records else folder.rglob("*")
    files = [file for file in sorted(found) if file.suffix in SUFFIXES and file.is_file()]
    names = {file.relative_to(folder): file for file in files if file.name != SEAL}
    hashes = {name.as_posix(): _hash(file) for name, file in names.items() if CHECKPOINTS not in name.parts}
    (folder / SEAL).write_text(json.dumps(hashes, indent=1), encoding="utf-8")


def unsealed(plan: Plan) -> list[str]:
    """A note for the report where an older version, which wrote no hashes, made some of the trials."""
    made = [stage for stage in plan.stages.values() if stage.kind in ("train", "evaluate") and stage.folder.is_dir()]
    without = [stage.name for stage in made if not (stage.folder / SEAL).is_file()]
    if not without:
        return []
    return [
        f"{len(without)} of {len(made)} trainings and evaluations were made by a version that kept no hashes of "
        "replies and weights: whether these were changed since cannot be told."
    ]


def refuse_edited(plan: Plan) -> None:
    """Refuse to report on files that are no longer those that the trials were made with and wrote.

    Without a finished evaluation there is no table to refuse, and each trial's error is reported. Weights may be
    deleted to save room.

    Raises:
        PrefzooError: naming every split, start, adapter and file of a stage that was changed since, or is gone.
    """
    if not any(stage.kind == "evaluate" and stage.done for stage in plan.stages.values()):
        return
    records = [stage for stage in plan.stages.values() if stage.kind in RECORDED]
    problems = [problem for stage in records for problem in _changed_files(stage)]
    problems = problems or [*_changed_rows(plan), *_changed_start(plan)]  # which are held to these records
    for stage in plan.stages.values():
        problems += [*_other_adapter(plan, stage), *(_changed_files(stage) if stage not in records else ())]
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


def _changed_rows(plan: Plan) -> Iterator[str]:
    """Splits of the data, and of the labels that were added to it, that are not as their hashes say."""
    data = plan.stages["data"].folder
    manifest = read_json(data / "manifest.json")["splits"]
    for name, split in manifest.items():
        if _rows_hash(data, name) != split["sha256"]:
            yield f"manifest.{name}: the rows in {data / name}.jsonl are not those of the manifest"
    if LABEL_STAGE not in plan.stages or not (labels := plan.stages[LABEL_STAGE].folder).is_dir():
        return
    for name, added in read_json(labels / "labels.json")["splits"].items():
        rows, expected = manifest[name]["rows"], (manifest[name]["sha256"], added["sha256"])
        if (_rows_hash(labels, name, 0, rows), _rows_hash(labels, name, rows)) != expected:
            yield f"labels of {name}: the rows in {labels / name}.jsonl are not those that were labelled"


def _changed_start(plan: Plan) -> Iterator[str]:
    folder = plan.stages[START].folder
    record = read_json(folder / "start.json")
    model = record["path"] or str(folder / "model")
    if fingerprint(model) != record["fingerprint"]:
        yield f"start: the model in {model} is not the one that was made"


def _other_adapter(plan: Plan, stage: Stage) -> Iterator[str]:
    """Settings of a trained adapter that are not the recipe's."""
    adapter = plan.recipe.adapter
    file = stage.folder / "policy" / "adapter_config.json"
    if stage.kind == "train" and adapter.type != "full" and file.is_file():
        trained = read_json(file)
        for key, name in (("r", "r"), ("alpha", "lora_alpha")):
            if trained[name] != (wanted := getattr(adapter, key)):
                yield f"adapter.{key}: {wanted} in the recipe and {trained[name]} in {stage.name}"


def _changed_files(stage: Stage) -> Iterator[str]:
    """Files of a stage that are not as its hashes say; none where it has no hashes."""
    if not (stage.folder / SEAL).is_file():
        return
    for name, written in read_json(stage.folder / SEAL).items():
        file = stage.folder / name
        if not file.is_file():
            if stage.kind == "evaluate" or "/" not in name:
                yield f"{stage.name}: {file} is gone"
        elif _hash(file) != written:
            yield f"{stage.name}: {file} is not what was written"


def _hash(file: Path) -> str:
    size = file.stat().st_size
    return f"{size} bytes" if size >= LARGE else file_sha256(file)


def _rows_hash(folder: Path, split: str, begin: int = 0, end: int | None = None) -> str | None:
    """The hash of some rows of a split; None where it is gone or cannot be read."""
    try:
        return splits.sha256_of(splits.load_split(folder, split)[begin:end])
    except (OSError, ValueError, TypeError):
        return None
