"""Data as files of every kind, for the tests of what is read from them."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

from prefzoo.data.comparisons import read_rows
from prefzoo.data.formats import Row
from prefzoo.data.reasons import Dropped


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


def one(kind: str, records: list[Any], folder: Path, **more: Any) -> tuple[list[Row], Dropped]:
    dropped = Dropped()
    return read_rows(kind, str(save(records, folder / "x.jsonl")), dropped, **more).rows, dropped
