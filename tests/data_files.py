"""Data as files of every kind, for the tests of what is read from them."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_result import ReadResult
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects

Pair = dict[str, str]


def user(pair: Pair) -> list[dict[str, str]]:
    return [{"role": "user", "content": pair["prompt"]}]


def said(reply: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply}]


def transcript(pair: Pair, side: str) -> str:
    return f"\n\nHuman: {pair['prompt']}\n\nAssistant: {pair[side]}"


def voters(pair: Pair, i: int) -> list[Pair]:
    """Three annotators, of whom one disagrees; on which side the better reply stands changes."""
    sides = ("chosen", "rejected") if i % 2 else ("rejected", "chosen")
    best = "ab"[sides.index("chosen")]
    worst = "ba"[sides.index("chosen")]
    base = {"prompt": pair["prompt"], "response_a": pair[sides[0]], "response_b": pair[sides[1]]}
    return [{**base, "annotator": f"p{n}", "preference": p} for n, p in enumerate((best, worst, best))]


def both(rows: list[Any], i: int) -> list[Any]:
    return rows if i % 2 else rows[::-1]


FORMATS: dict[str, tuple[str, Callable[[Pair, int], list[Any]]]] = {
    "standard": ("preferences", lambda p, i: [p]),
    "question": ("preferences", lambda p, i: [{"question": p["prompt"], **{k: p[k] for k in ("chosen", "rejected")}}]),
    "conversational": (
        "preferences",
        lambda p, i: [{"prompt": user(p), "chosen": said(p["chosen"]), "rejected": said(p["rejected"])}],
    ),
    "implicit prompt": (
        "preferences",
        lambda p, i: [{side: [*user(p), *said(p[side])] for side in ("chosen", "rejected")}],
    ),
    "hh transcripts": (
        "preferences",
        lambda p, i: [{side: transcript(p, side) for side in ("chosen", "rejected")}],
    ),
    "ultrafeedback_binarized": (
        "preferences",
        lambda p, i: [
            {
                "prompt": p["prompt"],
                "prompt_id": str(i),
                **{side: [*user(p), *said(p[side])] for side in ("chosen", "rejected")},
                "messages": [*user(p), *said(p["chosen"])],
                "score_chosen": 8.0,
                "score_rejected": 3.0,
            }
        ],
    ),
    "a/b labels": (
        "preferences",
        lambda p, i: [
            {"prompt": p["prompt"], "response_a": p["chosen"], "response_b": p["rejected"], "preference": "A"}
            if i % 2
            else {"prompt": p["prompt"], "response_a": p["rejected"], "response_b": p["chosen"], "preference": "b"}
        ],
    ),
    "rows by annotator": ("preferences", voters),
    "lists of labels": (
        "preferences",
        lambda p, i: [
            {**voters(p, i)[0], "annotator": None, "preference": [vote["preference"] for vote in voters(p, i)]}
        ],
    ),
    "chosen by annotator": (
        "preferences",
        lambda p, i: [
            {**p, "annotator": "x"},
            {**p, "chosen": p["rejected"], "rejected": p["chosen"], "annotator": "y"},
            {**p, "annotator": "z"},
        ],
    ),
    "unpaired": (
        "preferences",
        lambda p, i: both(
            [{"prompt": p["prompt"], "completion": p[k], "label": k == "chosen"} for k in ("chosen", "rejected")], i
        ),
    ),
    "ranking": ("rankings", lambda p, i: [{"prompt": p["prompt"], "ranking": [p["chosen"], p["rejected"]]}]),
    "ranks": (
        "rankings",
        lambda p, i: [{"prompt": p["prompt"], "completions": [p["rejected"], p["chosen"]], "ranks": [2, 1]}],
    ),
    "rating a row": (
        "ratings",
        lambda p, i: both(
            [
                {"prompt": p["prompt"], "response": p["chosen"], "rating": 8},
                {"prompt": p["prompt"], "response": p["rejected"], "rating": 2.5},
            ],
            i,
        ),
    ),
    "rated completions": (
        "ratings",
        lambda p, i: [
            {
                "instruction": p["prompt"],
                "completions": [
                    {"model": "m", "response": p["rejected"], "overall_score": 2.5},
                    {"model": "n", "response": p["chosen"], "overall_score": 8},
                ],
            }
        ],
    ),
    "scores beside completions": (
        "ratings",
        lambda p, i: [{"prompt": p["prompt"], "completions": [p["rejected"], p["chosen"]], "scores": [2.5, 8]}],
    ),
}


def save(records: list[dict[str, Any]], path: Path) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(record) + "\n" for record in records)
        elif name.endswith(".json"):
            json.dump(records, file)
        else:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            for record in records:
                writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in record.items()})
    return path


def one(kind: str, records: list[Any], folder: Path, **more: Any) -> tuple[list[Row], Rejects]:
    result = read_rows(kind, str(save(records, folder / "x.jsonl")), ReadOptions(**more))
    return result.rows, result.dropped


def look(kind: str, path: Path, **more: Any) -> tuple[ReadResult, dict[str, list[str]]]:
    """What a file gives, after a look whether its numbers add up."""
    result = read_rows(kind, str(path), ReadOptions(**more))
    assert result.read == result.used + result.dropped.total()
    return result, result.dropped.places()
