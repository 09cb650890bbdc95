"""Why replies got their rewards, as `prefzoo explain` left it, for a reader."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.results.number_format import fixed

EXPLANATIONS = "explanations.jsonl"
NAMED = 3
"""Pieces that are named in words."""
SAME = 1e-3
"""An explanation whose reward is this far from the measured one is of another reward, and is not shown."""
METHODS = {
    "gradients": "integrated gradients; tokens",
    "ablation": "how far the reward falls without a word",
}


@dataclass(frozen=True)
class Segment:
    """A stretch of a reply: its text, what it made of the reward (None between pieces), and that as a share of the
    reply's largest."""

    text: str
    value: float | None = None
    heat: float = 0.0


class Explained:
    """One explanation, a line of `explanations.jsonl`; see `commands.explain_rewards.explain`."""

    def __init__(self, line: Mapping[str, Any]) -> None:
        self.line = line
        self.pieces = [(int(begin), int(end), float(value)) for begin, end, value in line["pieces"]]

    @property
    def segments(self) -> list[Segment]:
        """The whole reply in order."""
        reply, most = self.line["reply"], max((abs(value) for *_, value in self.pieces), default=0.0)
        found, position = [], 0
        for begin, end, value in self.pieces:
            if position < begin:
                found.append(Segment(reply[position:begin]))
            found.append(Segment(reply[begin:end], value, abs(value) / most if most else 0.0))
            position = end
        return [*found, Segment(reply[position:])] if position < len(reply) else found

    @property
    def numbers(self) -> list[tuple[str, str]]:
        """Every piece and its value."""
        return [(self.line["reply"][begin:end].strip(), fixed(value, "+.3f")) for begin, end, value in self.pieces]

    @property
    def sentences(self) -> list[str]:
        """What an explanation says, without colours."""
        largest = sorted(self.pieces, key=lambda piece: -abs(piece[2]))[:NAMED]
        named = ", ".join(f"“{self.line['reply'][b:e].strip()}” {fixed(value, '+.2f')}" for b, e, value in largest)
        method, error = METHODS[self.line["method"]], self.line["error"]
        off = "without limit" if error is None else f"{error:.1%}"
        said = [f"Most weight: {named or 'none, the reply is empty'} ({method})."]
        said.append(
            f"Reward {fixed(self.line['score'])}, of the baseline {fixed(self.line['baseline'])}; the pieces add up to "
            f"the difference but for {off} of it."
        )
        for title, numbers in (("Parts", self.line["parts"]), ("Dimensions", self.line["dimensions"])):
            if numbers:
                each = [f"{name} {fixed(value, '+.2f')}" for name, value in numbers.items()]
                said.append(f"{title}: {', '.join(each)}.")
        if told := self.line.get("principles"):
            said.append(f"Principles, P(kept better than by the start's reply): {_by_principle(told)}.")
        if near := self.line["nearest"]:
            said.append(
                f"Nearest other reply ({near['label']}, {near['overlap']:.0%} of the words): reward "
                f"{fixed(near['score'])}."
            )
        return said


def _by_principle(told: Mapping[str, float | None]) -> str:
    """What each principle made of a reply, those that speak for it first; a half is neither."""
    read = sorted(((name, p) for name, p in told.items() if p is not None), key=lambda pair: -pair[1])
    ways = {
        "for it": [pair for pair in read if pair[1] > 0.5],
        "against it": [pair for pair in reversed(read) if pair[1] < 0.5],
        "neither": [pair for pair in read if pair[1] == 0.5],
    }
    said = [f"{way} {', '.join(f'{name} {p:.2f}' for name, p in pairs)}" for way, pairs in ways.items() if pairs]
    unread = [name for name, p in told.items() if p is None]
    return "; ".join([*said, *([f"no answer could be read about {', '.join(unread)}"] if unread else [])])


def read_explanations(out: Path) -> dict[tuple[str, str, str], Explained]:
    """The explanations in a run's folder, by label, prompt as JSON, and reply; none where there is no file.

    Raises:
        PrefzooError: when the file holds something else.
    """
    try:
        lines = (out / EXPLANATIONS).read_text(encoding="utf-8").splitlines()
        every = [Explained(json.loads(line)) for line in lines]
        return {key(each.line["label"], each.line["prompt"], each.line["reply"]): each for each in every}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError) as error:
        raise PrefzooError(
            f"{out / EXPLANATIONS} cannot be read ({error}); delete it, or make it anew: prefzoo explain {out}"
        ) from error


def key(label: str, prompt: Sequence[Mapping[str, Any]], reply: str) -> tuple[str, str, str]:
    """By what an explanation is found."""
    return label, json.dumps([[turn["role"], turn["content"]] for turn in prompt]), reply


def explanation_of(
    found: Mapping[tuple[str, str, str], Explained], label: str, record: Mapping[str, Any]
) -> Explained | None:
    """The explanation of a reply in a label's records; None where there is none of its measured reward."""
    each = found.get(key(label, record["prompt"], record["reply"]))
    proxy = record.get("proxy")
    if each is None or proxy is None or abs(each.line["score"] - proxy) > SAME * max(1.0, abs(proxy)):
        return None
    return each
