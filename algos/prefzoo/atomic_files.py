"""Files that are written whole or not at all, files that are read with a guard, and hashes of files and texts."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError, os_error_text


def write_whole(path: Path, content: str | bytes) -> None:
    """Write a file at once: whoever reads `path` meanwhile, or after a kill, finds the old content or the new one.

    What a symbolic link points to is left alone: the file takes the place of the link. A text is written in UTF-8.
    """
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    try:
        with partial.open("xb") as file:
            file.write(content.encode(errors="backslashreplace") if isinstance(content, str) else content)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def read_text(path: Path, most_bytes: int | None = None) -> str:
    """The text of a regular file in UTF-8, without a byte-order mark.

    Raises:
        PrefzooError: naming the file, when it cannot be read, is a folder, a device or a pipe, is larger than
            `most_bytes`, or holds no text in UTF-8.
    """
    try:
        if path.exists() and not path.is_file():
            raise PrefzooError(f"{path} is {'a folder' if path.is_dir() else 'no regular file'}")
        if most_bytes is not None and (size := path.stat().st_size) > most_bytes:
            raise PrefzooError(f"{path} is too large: {size} bytes, and at most {most_bytes} are read")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise PrefzooError(f"{path} is no text in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise PrefzooError(os_error_text(error, f"reading {path}")) from error


def read_json(path: Path, kind: type = dict, advice: str = "delete its folder and compare again") -> Any:
    """What a JSON file of ours holds.

    Raises:
        PrefzooError: naming the file and saying `advice`, when it is gone, damaged, or holds no `kind`.
    """
    try:
        content = json.loads(read_text(path))
        if not isinstance(content, kind):
            raise ValueError(f"it holds a {type(content).__name__}, not a {kind.__name__}")
    except (PrefzooError, ValueError, RecursionError) as error:
        reason = str(error).removeprefix(f"{path} ")
        raise PrefzooError(f"{path} cannot be read: {reason}; {advice}") from error
    return content


def refuse_links(folder: Path, below: Iterable[str] = ()) -> None:
    """Refuse a folder that we write into where a symbolic link in it leads elsewhere.

    Args:
        folder: it may be reached through links itself.
        below: names of folders in it that are written into, too.

    Raises:
        PrefzooError: naming the links.
    """
    for place in (folder, *(folder / name for name in below)):
        links = sorted(str(entry) for entry in place.iterdir() if entry.is_symlink()) if place.is_dir() else []
        if links:
            raise PrefzooError(
                f"{', '.join(links[:5])}: a symbolic link, and nothing is written through one; remove it, or choose "
                "another --out"
            )


def usable_path(text: str) -> Path:
    """The path that a text names, `~` expanded, whether or not something is there.

    Raises:
        ValueError: when the system cannot look there: a name that is too long, no such user, no permission. The
            message is a sentence without its subject.
    """
    try:
        path = Path(text).expanduser()
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except RuntimeError:
        raise ValueError("begins with ~ and the name of no user here") from None
    except OSError as error:
        raise ValueError(f"cannot be looked up: {error.strerror}") from None
    except ValueError as error:
        raise ValueError(f"is no path: {error}") from None
    return path


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
