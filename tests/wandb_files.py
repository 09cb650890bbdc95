"""Reads the files in which wandb keeps a run."""

from __future__ import annotations

import json
import struct
from collections import defaultdict
from pathlib import Path
from typing import Any


def records(file: Path) -> list[Any]:
    """What a run's file holds: LevelDB's log format behind a header of 7 bytes, a protobuf message each."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole, found = file.read_bytes(), 7, b"", []
    while at < len(data):
        left = 32768 - at % 32768
        if left < 7:
            at += left
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, or the last piece
            found.append(wandb_internal_pb2.Record.FromString(whole))
            whole = b""
    return found


def nested(items: Any, found: dict[str, Any] | None = None) -> dict[str, Any]:
    """Keys with their values, of which some are spread over several keys below one; added to `found`."""
    found = {} if found is None else found
    for item in items:
        first, *rest = item.nested_key or [item.key]
        place = found
        for key in rest:
            place, first = place.setdefault(first, {}), key
        place[first] = json.loads(item.value_json)
    return found


def read_runs(out: Path) -> dict[str, dict[str, Any]]:
    """Every offline run below `out` by its name; several files of one run in the order in which they were written."""
    runs: dict[str, dict[str, Any]] = defaultdict(lambda: {"files": 0, "history": [], "summary": {}, "artifacts": []})
    for file in sorted((out / "wandb").glob("offline-run-*/*.wandb")):
        found = records(file)
        run = next(r.run for r in found if r.WhichOneof("record_type") == "run")
        held = runs[run.display_name]
        held |= {"id": run.run_id, "group": run.run_group, "type": run.job_type, "project": run.project}
        held["config"] = nested(run.config.update)
        held["files"] += 1
        held["folder"] = file.parent
        for record in found:
            kind = record.WhichOneof("record_type")
            if kind == "history":
                held["history"].append(nested(record.history.item))
            elif kind == "config":
                nested(record.config.update, held["config"])
            elif kind == "summary":
                held["summary"] |= nested(record.summary.update)
            elif kind == "artifact":
                held["artifacts"].append(record.artifact.name)
            elif kind == "metric":
                held.setdefault("axes", {})[record.metric.glob_name] = record.metric.step_metric
            elif kind == "exit":
                held["exit_code"] = record.exit.exit_code
    return dict(runs)


def steps(run: dict[str, Any]) -> list[int]:
    return [row["train/step"] for row in run["history"] if "train/step" in row]
