"""Records out of Parquet files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from prefzoo.data.bounded_text import MOST_BYTES
from prefzoo.data.rejects import UnreadableValue
from prefzoo.errors import DataError

BATCH = 128
"""Rows that are unpacked at once; one long text that every row repeats takes little room in the file."""


def parquet_records(path: Path, wanted: Collection[str]) -> Iterator[dict[str, Any]]:
    """The rows of a file, with the values of the columns that are `wanted`, and None in the others.

    A value that Python has no room for, such as a date after the year 9999, or text that is not UTF-8, is an
    `UnreadableValue`.

    Raises:
        DataError: when the file cannot be read, or holds too much.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
        if twice := [name for name, count in Counter(names).items() if count > 1]:
            raise DataError(f"it has two columns of one name: {', '.join(map(repr, twice))}")
        read = [name for name in names if name in wanted]
        empty = dict.fromkeys(names)
        size = 0
        for batch in file.iter_batches(BATCH, columns=read):
            size += batch.nbytes
            if size > MOST_BYTES:
                raise DataError(f"it holds more than {MOST_BYTES >> 20} MiB")
            cells = {name: _values(batch.column(name)) for name in read}
            for i in range(batch.num_rows):
                yield {**empty, **{name: values[i] for name, values in cells.items()}}
    except (pyarrow.ArrowException, OSError, ValueError, MemoryError) as error:
        raise DataError(str(error)) from error


def _values(column: Any) -> list[Any]:
    try:
        return list(column.to_pylist())
    except Exception:  # of a dozen classes, by what a single value is; it is found below
        return [_value(cell) for cell in column]


def _value(cell: Any) -> Any:
    try:
        return cell.as_py()
    except Exception as error:
        return UnreadableValue(str(error))
