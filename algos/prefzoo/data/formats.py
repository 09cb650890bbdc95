"""Rows, and how their prompts and replies are read out of the shapes that data sets give them.

What cannot be read raises `Rejected` with the reason.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from typing import Any

from prefzoo.data.rejects import Rejected, as_text, type_name, wrong_type
from prefzoo.types import Message

# The space behind the colon belongs to the format; all other white space is the turn's own.
_TURN = re.compile(r"\r?\n\r?\n(Human|Assistant): ?")
_OPEN_TURN = re.compile(r"\r?\n\r?\nAssistant:[^\S\n]*$")
_ROLES = {"Human": "user", "Assistant": "assistant"}
_MESSAGES = re.compile(r"""\s*\[\s*\{\s*["'](role|content)["']\s*:""")
ROLES = ("system", "developer", "user", "assistant", "tool")
"""Who may speak in a list of messages; which order of them a model can take, its chat template knows."""


@dataclass(frozen=True)
class Row:
    """One training or test item: a prompt and what people said about replies to it.

    Attributes:
        id: where it came from, e.g. `"line 17"`; unique within its source.
        prompt: the conversation up to the assistant's turn.
        chosen, rejected: the preferred and the other reply; None where there is no preference.
        demonstration: a reply to imitate, of ordinary quality; None where there is none.
        slice: a named part of the prompts, e.g. `"harmful"`, or `"Chinese/harmful"`, which is a part of `"Chinese"`;
            None where the source names none.
        reply, rating: one reply and how good people found it, higher is better; None where nothing was rated.
        attributes: how good people found the reply in one respect each, by its name; None where nobody said that.
        margin: by how much `chosen` is better, where people said so.
        liked: whether people liked `reply`, where they said that of it alone, and of no reply of the other label to
            its prompt; else None.
        ranking: three or more replies, best first, no two alike in rank; None where nothing was ranked. (Of two
            replies, `chosen` and `rejected` say the same.)
        token_ids: of `chosen` and `rejected` where they are sampled replies whose text would become other tokens.
        vote: where every vote is a row, the number of this one among those that say the same, from 2 on; else None.
        group: prompts of one group stand or fall together, as rephrasings of one question do: no group is in two
            splits, and the verdict counts it once. None where the data names none; each test row has one once sealed.
    """

    id: str
    prompt: list[Message]
    chosen: str | None = None
    rejected: str | None = None
    demonstration: str | None = None
    slice: str | None = None
    reply: str | None = None
    rating: float | None = None
    liked: bool | None = None
    margin: float | None = None
    ranking: list[str] | None = None
    token_ids: dict[str, list[int]] | None = None
    vote: int | None = None
    group: str | None = None
    attributes: dict[str, float] | None = None

    def replies(self) -> list[str]:
        """Every reply in this row."""
        named = (self.chosen, self.rejected, self.demonstration, self.reply)
        return [*(reply for reply in named if reply is not None), *(self.ranking or [])]


def slices_of(name: str | None) -> list[str]:
    """The slices that a row of this `Row.slice` belongs to: `"Chinese/harmful"` is a part of `"Chinese"`."""
    parts = name.split("/") if name else []
    return ["/".join(parts[: i + 1]) for i in range(len(parts))]


def pair(row_id: str, record: dict[str, Any]) -> Row:
    """The row of a record with `chosen` and `rejected`: two transcripts that share an implicit prompt
    (`"\\n\\nHuman: ..\\n\\nAssistant: .."` as in HH-RLHF, or lists of messages), or a `prompt` beside two replies."""
    chosen, rejected = (split_transcript(record[key], key) for key in ("chosen", "rejected"))
    prompt = record.get("prompt")
    if prompt is None:
        for key, side in (("chosen", chosen), ("rejected", rejected)):
            if side is None:
                raise _no_conversation(record, key)
        assert chosen is not None and rejected is not None
        if not _same(chosen[0], rejected[0]):
            raise Rejected("prompt_mismatch", "chosen", "rejected")
        return Row(row_id, answerable(chosen[0], record), chosen=chosen[1], rejected=rejected[1])
    messages = prompt_of(prompt)
    # Beside a prompt, a side is a reply; or, as some data sets have it, the prompt over again and a reply.
    if chosen is not None and rejected is not None and _same(chosen[0], messages) and _same(rejected[0], messages):
        return Row(row_id, answerable(messages, record), chosen=chosen[1], rejected=rejected[1])
    good, bad = replies_of(record, "chosen", "rejected")
    return Row(row_id, answerable(messages, record), chosen=good, rejected=bad)


def _no_conversation(record: dict[str, Any], key: str) -> Rejected:
    """The reason why a side without a prompt beside it is no conversation with a reply at its end."""
    side = record[key]
    turns = _transcript_turns(side) if isinstance(side, str) else []
    if turns or conversation(side, key):
        return Rejected("no_reply_at_the_end", key)
    if isinstance(side, str) and side.strip():
        return Rejected("empty_value" if "prompt" in record else "missing_key", "prompt")
    return wrong_type(side, key, "a text or a list of messages")


def prompt_in(record: dict[str, Any]) -> list[Message]:
    """The prompt of a record, as messages that an assistant could answer."""
    if "prompt" not in record:
        raise Rejected("missing_key", "prompt")
    return answerable(prompt_of(record["prompt"]), record)


def prompt_of(value: Any) -> list[Message]:
    """A prompt that is a text, a transcript or a list of messages, as messages."""
    if (turns := conversation(value, "prompt")) is not None:
        return turns
    if isinstance(value, str):
        return _transcript_turns(_OPEN_TURN.sub("", value)) or [{"role": "user", "content": value}]
    raise Rejected("empty_prompt") if value is None else wrong_type(value, "prompt", "a text or a list of messages")


def answerable(messages: list[Message], record: dict[str, Any]) -> list[Message]:
    """These messages, which must end with a turn of the user, after the system's message in the record's column
    `system`, if there is one."""
    if not messages or not messages[-1]["content"].strip():
        raise Rejected("empty_prompt")
    if messages[-1]["role"] != "user":
        raise Rejected("prompt_not_by_user")
    system = record.get("system")
    if is_blank(system):
        return messages
    if not isinstance(system, str):
        raise wrong_type(system, "system", "a text")
    if messages[0]["role"] in ("system", "developer"):
        if messages[0]["content"].strip() == system.strip():
            return messages
        raise Rejected("two_system_messages", "system", detail=" is not the one in the conversation", shown=system)
    return [{"role": "system", "content": system}, *messages]


def is_blank(value: Any) -> bool:
    """Whether a cell holds nothing, blanks, or NaN, which tables write for nothing."""
    return value is None or (not value.strip() if isinstance(value, str) else value != value)


def replies_of(record: dict[str, Any], first: str, second: str) -> tuple[str, str]:
    """The replies in two columns beside a prompt; where both are texts that repeat the prompt, what follows it."""
    prompt = record["prompt"]
    sides = [(record[key], key) for key in (first, second)]
    # Where one of them begins with the words of the prompt, that is chance.
    both = isinstance(prompt, str) and all(isinstance(side, str) and side.startswith(prompt) for side, _ in sides)
    one, other = (reply_of(side.removeprefix(prompt) if both else side, key, prompt) for side, key in sides)
    return one, other


def reply_of(value: Any, key: str, prompt: Any = None) -> str:
    """The one reply in a text or a list of one message, in the column `key`, with its white space; a text may repeat
    the `prompt` first, where that is a transcript."""
    too_long = Rejected("more_than_one_message" if prompt is None else "prompt_mismatch", key)
    turns = conversation(value, key)
    if turns is not None:
        if not turns:
            raise Rejected("empty_value", key)
        if turns[-1]["role"] != "assistant":
            raise Rejected("no_reply_at_the_end", key)
        if len(turns) > 1:
            raise too_long
        return turns[0]["content"]
    if not isinstance(value, str):
        raise wrong_type(value, key, "a text or a list of one message")
    text = value
    if isinstance(prompt, str) and _OPEN_TURN.search(prompt):
        text = text.removeprefix(prompt)
        text = text if prompt.endswith(" ") else text.removeprefix(" ")  # the one behind the colon
    if split_transcript(text, key) is not None:
        raise too_long
    return text


def split_transcript(side: Any, key: str) -> tuple[list[Message], str] | None:
    """The prompt and the last reply of a conversation in the column `key`; None for anything else."""
    turns = conversation(side, key)
    if turns is None and isinstance(side, str):
        turns = _transcript_turns(side)
    if turns is None or len(turns) < 2 or turns[-1]["role"] != "assistant":
        return None
    return turns[:-1], turns[-1]["content"]


def as_list(value: Any, key: str) -> list[Any]:
    """A list, or one that a text (a cell of a CSV file) spells in JSON."""
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _from_json(value, key, "list")
    if not isinstance(value, list):
        raise wrong_type(value, key, "a list")
    return value


def conversation(value: Any, key: str) -> list[Message] | None:
    """Messages from a list of them, or from the JSON of one; None for a text that does not look like one, and for
    anything else. What must be meant as messages and is not is rejected: it would else be read as the user's words."""
    if isinstance(value, str):
        if not _MESSAGES.match(value):
            return None
        value = _from_json(value, key, "list of messages")
    if not isinstance(value, list):
        return None
    return [_message(turn, key) for turn in value]


def _from_json(text: str, key: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Rejected("wrong_type", key, detail=f" is no {what} in JSON", shown=text) from error


def _message(turn: Any, key: str) -> Message:
    if not isinstance(turn, dict):
        raise Rejected("wrong_type", key, detail=f" has {type_name(turn)} for a message", shown=as_text(turn))
    for part in ("role", "content"):
        if not isinstance(turn.get(part), str):
            problem = f"whose {part} is {type_name(turn[part])}" if part in turn else f"without {part}"
            raise Rejected("unreadable_message", key, detail=f" has one {problem}", shown=as_text(turn))
    if turn["role"] not in ROLES:
        raise Rejected("unknown_role", key, detail=f" has {turn['role'][:20]!r}, not one of {', '.join(ROLES)}")
    return {"role": sys.intern(turn["role"]), "content": turn["content"]}


def _same(a: list[Message], b: list[Message]) -> bool:
    """Whether two prompts are one, but for the white space around each turn."""
    return [(m["role"], m["content"].strip()) for m in a] == [(m["role"], m["content"].strip()) for m in b]


def _transcript_turns(text: str) -> list[Message]:
    """The turns of a transcript (`"\\n\\nHuman: .."`); none where the text is no transcript."""
    before, *parts = _TURN.split(text if _TURN.match(text) else "\n\n" + text.lstrip())
    if before.strip():
        return []
    return [{"role": _ROLES[who], "content": turn} for who, turn in zip(parts[::2], parts[1::2], strict=True)]
