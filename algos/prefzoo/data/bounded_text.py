"""Text files, plain or gzip, read within bounds, so that no file takes all of the memory."""

from __future__ import annotations

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO, cast

from prefzoo.errors import DataError

MOST_LETTERS = 1 << 26
"""Of one line; a longer one is no record."""
MOST_BYTES = 1 << 32
"""Of one file, unpacked."""
MOST_UNPACKED = 200
"""So many times its size may a gzip file unpack to; of text it is 3 to 10 times, of repetition more."""
SMALL = 1 << 26
"""A file that unpacks to fewer bytes than this may be of anything."""

MAGIC = {b"\x1f\x8b": "a gzip file", b"PAR1": "a Parquet file", b"PK\x03\x04": "a zip file or a spreadsheet"}


class _Counted(io.RawIOBase):
    """The bytes of a file; reading raises DataError beyond the bounds."""

    def __init__(self, source: BinaryIO, most: int) -> None:
        self._source, self._most, self._read = source, most, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self._source.read(len(buffer))
        buffer[: len(data)] = data
        self._read += len(data)
        if self._read > self._most:
            raise DataError(f"it holds more than {self._most >> 20} MiB of text, which no data set of its size does")
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


def open_bytes(path: Path) -> io.BufferedReader:
    """Open a file, unpacked if it ends in `.gz`, for reading within the bounds."""
    packed = path.suffix == ".gz"
    source = gzip.open(path, "rb") if packed else path.open("rb")  # noqa: SIM115 (closed with what is returned)
    most = min(MOST_BYTES, max(SMALL, MOST_UNPACKED * path.stat().st_size)) if packed else MOST_BYTES
    return io.BufferedReader(_Counted(cast(BinaryIO, source), most), 1 << 16)


def open_text(path: Path, newline: str | None = None) -> TextIO:
    """Open a file as UTF-8, without the byte order mark that some editors and spreadsheets begin it with."""
    return io.TextIOWrapper(open_bytes(path), encoding="utf-8-sig", newline=newline)


def lines(file: TextIO) -> Iterator[str | None]:
    """The lines of a file; None for one of more than `MOST_LETTERS`."""
    while line := file.readline(MOST_LETTERS):
        if len(line) < MOST_LETTERS or line.endswith("\n"):
            yield line
            continue
        while (more := file.readline(MOST_LETTERS)) and not more.endswith("\n"):
            pass
        yield None


def not_utf8(path: Path) -> str:
    """A sentence on the first byte of a file that is not UTF-8, and on what the file is."""
    with open_bytes(path) as file:
        begin = file.peek(4)
        for magic, what in MAGIC.items():
            if begin.startswith(magic):
                return f"it is {what}, whatever its name ends in"
        number = 0
        while line := file.readline(MOST_LETTERS):
            number += 1
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = f"byte 0x{line[error.start]:02x} in line {number} is not UTF-8"
                return f"{byte}. Save the file as UTF-8 (iconv -f WINDOWS-1252 -t UTF-8, if it is from Windows)"
    return "it is not UTF-8"
