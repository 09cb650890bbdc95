"""Files that are written whole or not at all, and hashes of files and texts."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any


def write_whole(path: Path, text: str) -> None:
    """Write a file at once: whoever reads `path` meanwhile, or after a kill, finds the old content or the new one."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def partial_folder(folder: Path) -> Path:
    """Where the content of `folder` is written until it is complete."""
    return folder.with_name(f"{folder.name}.partial")


def move_into_place(folder: Path) -> None:
    """Make the finished partial folder the content of `folder`. What was there before is deleted."""
    shutil.rmtree(folder, ignore_errors=True)
    partial_folder(folder).rename(folder)


def text_sha256(text: str) -> str:
    """The SHA-256 of a text in UTF-8, as 64 hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_sha256(file: Path) -> str:
    """The SHA-256 of a file's content, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    add_file(digest, file)
    return digest.hexdigest()


def add_file(digest: Any, file: Path) -> None:
    """Add a file's content to a digest of `hashlib`, piece by piece, because weights are large."""
    with file.open("rb") as content:
        while piece := content.read(1 << 24):
            digest.update(piece)
