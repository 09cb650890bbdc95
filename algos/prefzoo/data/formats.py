"""What a row is, and how prompts and replies are read out of the shapes that data sets give them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from prefzoo.interface import Message

_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


@dataclass(frozen=True)
class Row:
    """One training or test item: a prompt and what people said about replies to it.

    Attributes:
        id: where it came from, e.g. `"line 17"`; unique within its source.
        prompt: the conversation up to the assistant's turn.
        chosen, rejected: the preferred and the other reply; None where there is no preference.
        demonstration: a reply to imitate, of ordinary quality; None where there is none.
        slice: a named part of the prompts, e.g. `"harmful"`; None where the source names none.
        reply, rating: one reply and how good people found it, higher is better; None where nothing was rated.
        ranking: three or more replies, best first, no two alike in rank; None where nothing was ranked. (Of two
            replies, `chosen` and `rejected` say the same.)
    """

    id: str
    prompt: list[Message]
    chosen: str | None = None
    rejected: str | None = None
    demonstration: str | None = None
    slice: str | None = None
    reply: str | None = None
    rating: float | None = None
    ranking: list[str] | None = None

    def replies(self) -> list[str]:
        """Every reply in this row."""
        named = (self.chosen, self.rejected, self.demonstration, self.reply)
        return [*(reply for reply in named if reply is not None), *(self.ranking or [])]


@dataclass
class Dropped:
    """Rows that will not be used: `reason -> [(row id, the beginning of its text)]`. Nothing is dropped elsewhere."""

    rows: dict[str, list[tuple[str, str]]] = field(default_factory=dict)

    def add(self, reason: str, row_id: str, text: str) -> None:
        self.rows.setdefault(reason, []).append((row_id, " ".join(text.split())[:120]))

    def counts(self) -> dict[str, int]:
        return {reason: len(rows) for reason, rows in sorted(self.rows.items())}


class Unusable(Exception):
    """A record that cannot become a row; its text is the reason under which it is counted as dropped."""


def pair(row_id: str, record: dict[str, Any]) -> Row:
    """The row of a record with `chosen` and `rejected`: two transcripts that share an implicit prompt
    (`"\\n\\nHuman: ..\\n\\nAssistant: .."` as in HH-RLHF, or lists of messages), or a `prompt` beside two replies.

    Raises:
        Unusable: with the reason.
    """
    sides = [split_transcript(record[key]) for key in ("chosen", "rejected")]
    prompt = record.get("prompt")
    if prompt is None:
        if sides[0] is None or sides[1] is None:
            raise Unusable("unreadable")
        if sides[0][0] != sides[1][0]:
            raise Unusable("prompt_mismatch")
        messages, replies = sides[0][0], [sides[0][1], sides[1][1]]
        return Row(row_id, answerable(messages), chosen=replies[0], rejected=replies[1])
    messages = prompt_of(prompt)
    # Beside a prompt, a side is a reply; or, as some data sets have it, the prompt over again and a reply.
    if sides[0] is not None and sides[1] is not None and _same(sides[0][0], messages) and _same(sides[1][0], messages):
        chosen, rejected = sides[0][1], sides[1][1]
    else:
        chosen, rejected = (reply_of(record[key], prompt) for key in ("chosen", "rejected"))
    return Row(row_id, answerable(messages), chosen=chosen, rejected=rejected)


def prompt_of(value: Any) -> list[Message]:
    """A prompt that is a text, a transcript or a list of messages, as messages.

    Raises:
        Unusable: when it is none of these.
    """
    if (turns := conversation(value)) is not None:
        return turns
    if isinstance(value, str):
        return _transcript_turns(value.removesuffix("\n\nAssistant:")) or [{"role": "user", "content": value.strip()}]
    raise Unusable("empty_prompt" if value is None else "unreadable")


def answerable(messages: list[Message]) -> list[Message]:
    """These messages, if an assistant could answer them.

    Raises:
        Unusable: when they are empty or do not end with the user's turn.
    """
    if not messages or not messages[-1]["content"].strip():
        raise Unusable("empty_prompt")
    if messages[-1]["role"] != "user":
        raise Unusable("prompt_not_by_user")
    return messages


def reply_of(value: Any, prompt: Any = None) -> str:
    """The one reply in a text or a list of one message; a text may repeat the `prompt` first.

    Raises:
        Unusable: for anything else, a conversation of which the prompt is not the beginning among them.
    """
    turns = conversation(value)
    if turns is not None and len(turns) == 1 and turns[0]["role"] == "assistant":
        return turns[0]["content"].strip()
    if isinstance(value, str) and turns is None:
        text = value.removeprefix(prompt) if isinstance(prompt, str) and prompt else value
        if split_transcript(text) is None:
            return text.strip()
    raise Unusable("empty_reply" if value is None else "unreadable")


def split_transcript(side: Any) -> tuple[list[Message], str] | None:
    """The prompt and the last reply of a conversation; None for anything else."""
    turns = conversation(side)
    if turns is None and isinstance(side, str):
        turns = _transcript_turns(side)
    if turns is None or len(turns) < 2 or turns[-1]["role"] != "assistant":
        return None
    return turns[:-1], turns[-1]["content"].strip()


def as_list(value: Any) -> list[Any]:
    """A list, or one that a text (a cell of a CSV file) spells in JSON.

    Raises:
        Unusable: for anything else.
    """
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise Unusable("unreadable") from error
    if not isinstance(value, list):
        raise Unusable("unreadable")
    return value


def conversation(value: Any) -> list[Message] | None:
    """Messages from a list of them, or from the JSON of one; None for anything else."""
    if isinstance(value, str):
        if not re.match(r'\s*\[\s*\{\s*"(role|content)"', value):
            return None
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            return None
    if not isinstance(value, list):
        return None
    turns = []
    for turn in value:
        if not (isinstance(turn, dict) and isinstance(turn.get("role"), str) and isinstance(turn.get("content"), str)):
            return None
        turns.append({"role": turn["role"], "content": turn["content"]})
    return turns


def _same(said: list[Message], prompt: list[Message]) -> bool:
    """Whether two prompts are one, but for the white space around each turn."""
    return [(m["role"], m["content"].strip()) for m in said] == [(m["role"], m["content"].strip()) for m in prompt]


def _transcript_turns(text: str) -> list[Message]:
    if not text.startswith("\n\n"):
        text = "\n\n" + text.lstrip()
    parts = _TURN.split(text)
    if parts[0].strip():
        return []
    return [{"role": _ROLES[who], "content": said.strip()} for who, said in zip(parts[1::2], parts[2::2], strict=True)]
