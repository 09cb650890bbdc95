"""Read preference pairs from files and from the Hugging Face hub into one kind of row."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefzoo.errors import DataError
from prefzoo.interface import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}
FILE_ENDINGS = (".jsonl", ".json", ".jsonl.gz", ".json.gz")


@dataclass(frozen=True)
class Row:
    """One training or test item: a prompt and what people said about replies to it.

    Attributes:
        id: where it came from, e.g. `"line 17"`; unique within its source.
        prompt: the conversation up to the assistant's turn.
        chosen, rejected: the preferred and the other reply; None where there is no preference.
        demonstration: a reply to imitate, of ordinary quality; None where there is none.
        slice: a named part of the prompts, e.g. `"harmful"`; None where the source names none.
    """

    id: str
    prompt: list[Message]
    chosen: str | None = None
    rejected: str | None = None
    demonstration: str | None = None
    slice: str | None = None


@dataclass
class Dropped:
    """Rows that will not be used: `reason -> [(row id, the beginning of its text)]`. Nothing is dropped elsewhere."""

    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, reason: str, row_id: str, text: str) -> None:
        self.rows.setdefault(reason, []).append((row_id, " ".join(text.split())[:120]))

    def counts(self) -> dict[str, int]:
        return {reason: len(rows) for reason, rows in sorted(self.rows.items())}


def source_problem(source: str) -> str | None:
    """A sentence if `source` is neither a file that exists nor a hub id; None if it may be one."""
    path = Path(source).expanduser()
    if path.is_file():
        return None
    meant_as_file = source.endswith(FILE_ENDINGS) or source.startswith((".", "/", "~")) or source.count("/") != 1
    if path.exists() or meant_as_file:
        return f"{source!r} is neither a file ({', '.join(FILE_ENDINGS)}) nor a hub id (owner/name)"
    return None


def read_preferences(
    source: str, dropped: Dropped, revision: str | None = None, data_dir: str | None = None
) -> list[Row]:
    """Rows of chosen/rejected pairs from a JSON, JSONL or gzip file, or from the train split of a hub dataset.

    A row holds either two transcripts that share an implicit prompt (`"\\n\\nHuman: ..\\n\\nAssistant: .."` as in
    HH-RLHF, or lists of messages), or a `prompt` (text or messages) beside the two replies. What cannot be read goes
    to `dropped`.

    Raises:
        DataError: when the file or dataset does not exist, or not one row of it can be read.
    """
    rows = []
    count = 0
    for row_id, record in _records(source, revision, data_dir):
        count += 1
        if isinstance(record, dict) and {"chosen", "rejected"} <= record.keys():
            parsed = _parse(row_id, record)
            if isinstance(parsed, Row):
                rows.append(parsed)
            else:
                dropped.add(parsed, row_id, str(record["chosen"]))
        else:
            dropped.add("unreadable", row_id, str(record))
    if not rows:
        raise DataError(
            f"data.preferences: none of the {count} rows of {source!r} is a pair. A row needs 'chosen' and 'rejected': "
            f"two transcripts with a shared prompt, or two replies beside a 'prompt'. Dropped: {dropped.counts()}."
        )
    return rows


def _records(source: str, revision: str | None, data_dir: str | None) -> Iterator[tuple[str, Any]]:
    path = Path(source).expanduser()
    if problem := source_problem(source):
        raise DataError(f"data.preferences: {problem}.")
    if path.is_file():
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            if path.name.removesuffix(".gz").endswith(".json"):
                for number, record in enumerate(json.load(file), 1):
                    yield f"item {number}", record
                return
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", _json_or_text(line)
        return
    from datasets import load_dataset

    try:
        dataset = load_dataset(source, split="train", revision=revision, data_dir=data_dir)
    except Exception as error:  # the hub client raises a dozen unrelated classes; the user needs one sentence
        raise DataError(f"data.preferences: the hub dataset {source!r} could not be loaded: {error}") from error
    for number, record in enumerate(dataset, 1):
        yield f"row {number}", record


def _json_or_text(line: str) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError:
        return line


def _parse(row_id: str, record: dict[str, Any]) -> Row | str:
    """The row, or the reason for which it cannot be one."""
    sides = [_split_transcript(record[key]) for key in ("chosen", "rejected")]
    if (prompt := record.get("prompt")) is not None:
        messages = _messages(prompt)
        if messages is None:
            return "unreadable"
        # Beside a prompt, a side is a reply; or, as some data sets have it, the prompt over again and a reply.
        if sides[0] is not None and sides[1] is not None and sides[0][0] == sides[1][0] == messages:
            replies: list[str | None] = [side[1] for side in sides if side is not None]
        else:
            replies = [_reply(record[key], prompt) for key in ("chosen", "rejected")]
    else:
        if sides[0] is None or sides[1] is None:
            return "unreadable"
        if sides[0][0] != sides[1][0]:
            return "prompt_mismatch"
        messages, replies = sides[0][0], [sides[0][1], sides[1][1]]
    if replies[0] is None or replies[1] is None:
        return "unreadable"
    if not messages or not messages[-1]["content"].strip():
        return "empty_prompt"
    if messages[-1]["role"] != "user":
        return "prompt_not_by_user"
    return Row(row_id, messages, chosen=replies[0], rejected=replies[1])


def _messages(prompt: Any) -> list[Message] | None:
    if isinstance(prompt, str):
        return _transcript_turns(prompt.removesuffix("\n\nAssistant:")) or [{"role": "user", "content": prompt.strip()}]
    if _is_conversation(prompt):
        return [{"role": turn["role"], "content": turn["content"]} for turn in prompt]
    return None


def _reply(side: Any, prompt: Any) -> str | None:
    """The one reply in `side`; None for a whole conversation, of which the prompt is not the beginning."""
    if isinstance(side, str):
        text = side.removeprefix(prompt) if isinstance(prompt, str) and prompt else side
        return None if _split_transcript(text) is not None else text.strip()
    if _is_conversation(side) and len(side) == 1 and side[0]["role"] == "assistant":
        return side[0]["content"].strip()
    return None


def _split_transcript(side: Any) -> tuple[list[Message], str] | None:
    if isinstance(side, str):
        turns = _transcript_turns(side)
    elif _is_conversation(side):
        turns = [{"role": turn["role"], "content": turn["content"]} for turn in side]
    else:
        return None
    if len(turns) < 2 or turns[-1]["role"] != "assistant":
        return None
    return turns[:-1], turns[-1]["content"].strip()


def _transcript_turns(text: str) -> list[Message]:
    if not text.startswith("\n\n"):
        text = "\n\n" + text.lstrip()
    parts = _TURN.split(text)
    if parts[0].strip():
        return []
    return [{"role": _ROLES[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)]


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)
        for turn in value
    )
