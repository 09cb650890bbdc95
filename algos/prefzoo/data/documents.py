"""A file of documents: its passages and their sentences, found by BM25."""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from prefzoo.data.bounded_text import lines, not_utf8, open_text
from prefzoo.data.rejects import type_name
from prefzoo.data.words import UNSPACED, is_unspaced
from prefzoo.errors import DataError, did_you_mean

ENDINGS = (".jsonl", ".jsonl.gz", ".txt", ".txt.gz", ".md", ".md.gz")
MOST_LETTERS = 1 << 26
"""Of all passages together; more take an index of gigabytes."""
SHOWN = 5
"""So many damaged lines are named."""

_TERM = re.compile(f"[{UNSPACED}]+|[^\\W{UNSPACED}]+")
QUESTION_MARKS = ("?", "\uff1f")
_SENTENCE_END = re.compile("(?<=[.!?])\\s+|(?<=[\u3002\uff01\uff1f\uff1b])\\s*|\\s*\\n+\\s*")

_LIST_ITEM = re.compile(r"\s*([-*+•]|\d+[.)])\s")
"""Begins a line of a list; the lines of other paragraphs are broken where they are full."""


@dataclass(frozen=True)
class Passage:
    """A piece of a document.

    Attributes:
        document: the id of its document, or where it stands in the file.
        text: what it says.
        title: what it is about; empty where the file does not say.
    """

    document: str
    text: str
    title: str = ""

    @property
    def whole(self) -> str:
        """The text behind its title."""
        return f"{self.title}: {self.text}" if self.title else self.text


def sentences(text: str) -> list[str]:
    """The sentences of a text: they end with a full stop, `!` or `?` before a space, with the full-width signs of
    Chinese and Japanese (the semicolon among them), and with a line."""
    return [piece.strip() for piece in _SENTENCE_END.split(text) if piece.strip()]


def terms(text: str) -> list[str]:
    """What a text is found by: words and numbers in small letters; of scripts without spaces, every two neighbouring
    letters (Chinese has words of two letters mostly, and where they begin is not written)."""
    found = []
    for run in _TERM.findall(text.lower()):
        if is_unspaced(run) and len(run) > 1:
            found += [run[i : i + 2] for i in range(len(run) - 1)]
        else:
            found.append(run)
    return found


class Index:
    """Finds texts by BM25 (`bm25s`, Lucene's variant)."""

    def __init__(self, texts: Sequence[str]) -> None:
        from bm25s import BM25

        corpus = [terms(text) for text in texts]
        self._vocabulary = frozenset(term for text in corpus for term in text)
        self._bm25 = BM25(method="lucene")
        if self._vocabulary:
            self._bm25.index(corpus, show_progress=False)

    def knows(self, text: str) -> bool:
        """Whether a text shares a term with any."""
        return not self._vocabulary.isdisjoint(terms(text))

    def find(self, query: str, k: int) -> list[int]:
        """The numbers of at most `k` texts that share a term with the query, the best first; of two that are as good,
        the first."""
        known = [term for term in terms(query) if term in self._vocabulary]
        if not known:
            return []
        scores = self._bm25.get_scores(known)
        return [int(i) for i in np.argsort(-scores, kind="stable")[:k] if scores[i] > 0]


@dataclass(frozen=True)
class Documents:
    """What a file of documents holds.

    Attributes:
        passages: in the order of the file, none twice.
        duplicates: how many were left out because they say what an earlier one says, under the same title.
    """

    passages: tuple[Passage, ...]
    duplicates: int = 0

    @cached_property
    def sha256(self) -> str:
        """A hash of the passages in their order."""
        return sha256(json.dumps([asdict(each) for each in self.passages]).encode()).hexdigest()

    @cached_property
    def _passage_index(self) -> Index:
        return Index([each.whole for each in self.passages])

    @cached_property
    def _sentences(self) -> list[Passage]:
        split = ((each, text) for each in self.passages for text in sentences(each.text))
        return [Passage(each.document, text, each.title) for each, text in split]

    @cached_property
    def _sentence_index(self) -> Index:
        return Index([each.whole for each in self._sentences])

    def find(self, query: str, k: int) -> list[Passage]:
        """At most `k` passages that share a term with the query, the best first."""
        return [self.passages[i] for i in self._passage_index.find(query, k)]

    def find_sentences(self, query: str, k: int) -> list[Passage]:
        """The same of single sentences."""
        return [self._sentences[i] for i in self._sentence_index.find(query, k)]

    def knows(self, text: str) -> bool:
        """Whether a text shares a term with any sentence."""
        return self._sentence_index.knows(text)

    def save(self, file: Path) -> None:
        """Write a file that `load_documents` reads as the same documents."""
        with file.open("w", encoding="utf-8") as out:
            for each in self.passages:
                out.write(json.dumps({"id": each.document, "title": each.title, "text": each.text}) + "\n")


def documents_problem(source: str) -> str | None:
    """A sentence if a file of documents cannot be used; None if it can."""
    try:
        load_documents(source)
    except DataError as error:
        return str(error)
    return None


def load_documents(source: str) -> Documents:
    """The documents in a file: JSON lines with `text`, and `id` and `title` where they have any; or text, in which a
    blank line ends a passage and a line that begins with `#` is the title of those below it.

    Raises:
        DataError: where there is no such file, it is of another kind or encoding, it is damaged (naming the first
            lines), it holds no passage, or more than `MOST_LETTERS`.
    """
    path = Path(source).expanduser()
    listed = ", ".join(ENDINGS)
    if path.is_dir():
        raise DataError(f"{source!r} is a folder; name a file in it ({listed})")
    if not path.is_file():
        beside = [file.name for file in path.parent.glob("*")] if path.parent.is_dir() else []
        raise DataError(f"there is no file {source!r}.{did_you_mean(path.name, beside)}")
    if not path.name.endswith(ENDINGS):
        raise DataError(f"{source!r} does not end in one of {listed}")
    try:
        with open_text(path) as file:
            is_table = path.name.removesuffix(".gz").endswith(".jsonl")
            found = _sound(_records(file) if is_table else _paragraphs(file))
    except UnicodeDecodeError:
        raise DataError(f"{source!r} cannot be used: {not_utf8(path)}.") from None
    except (OSError, EOFError, zlib.error, DataError) as error:
        raise DataError(f"{source!r} cannot be used: {error}") from error
    passages = tuple({(each.title, each.text): each for each in reversed(found)}.values())[::-1]
    return Documents(passages, duplicates=len(found) - len(passages))


def _sound(passages: Iterator[Passage | str]) -> list[Passage]:
    """The passages. Raises DataError naming those that are damaged, or where there are none or too many."""
    letters, damaged, found = 0, list[str](), list[Passage]()
    for each in passages:
        if isinstance(each, str):
            damaged.append(each)
            continue
        found.append(each)
        letters += len(each.whole)
        if letters > MOST_LETTERS:
            raise DataError(
                f"it holds more than {MOST_LETTERS >> 20} million letters; leave out what no reply is about"
            )
        if "\0" in each.whole:
            raise DataError("it holds zero bytes, as UTF-16 has them. Save it as UTF-8")
    if damaged:
        more = f"; and {len(damaged) - SHOWN} more" if len(damaged) > SHOWN else ""
        raise DataError(f"it is damaged: {'; '.join(damaged[:SHOWN])}{more}")
    if not found:
        raise DataError("it holds no passage")
    return found


def _records(file: TextIO) -> Iterator[Passage | str]:
    for number, line in enumerate(lines(file), 1):
        if line is None:
            yield f"line {number} is too long"
        elif line.strip():
            yield _passage(number, line)


def _passage(number: int, line: str) -> Passage | str:
    """The passage of a line of JSON, or what is wrong with it."""
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return f"line {number} is not JSON"
    if not isinstance(record, dict):
        return f"line {number} is {type_name(record)}, not an object"
    if "text" not in record:
        return f"line {number} has no key 'text', but {', '.join(map(repr, list(record)[:SHOWN])) or 'none'}"
    text, title, name = record["text"], record.get("title") or "", record.get("id")
    if not isinstance(text, str) or not text.strip():
        return f"line {number}: text is {type_name(text) if not isinstance(text, str) else 'empty'}"
    if not isinstance(title, str):
        return f"line {number}: title is {type_name(title)}"
    if not isinstance(name, str | int | None) or isinstance(name, bool):
        return f"line {number}: id is {type_name(name)}"
    return Passage(f"line {number}" if name in (None, "") else str(name), text.strip(), title.strip())


def _paragraphs(file: TextIO) -> Iterator[Passage | str]:
    title, begin, held = "", 0, list[str]()
    for number, line in enumerate([*lines(file), ""], 1):
        if line is None:
            yield f"line {number} is too long"
            continue
        heading = line.startswith("#")
        if held and (heading or not line.strip()):
            yield Passage(f"line {begin}", "".join(held).strip(), title)
            held = []
        if heading:
            title = line.lstrip("#").strip()
        elif line.strip():
            begin = begin if held else number
            held.append(("\n" if _LIST_ITEM.match(line) else " ") + line.strip())
