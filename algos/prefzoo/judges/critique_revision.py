"""Critique and revision by principles, step by step on record."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from prefzoo.interface import Bench, Policy
from prefzoo.types import Prompt, Reward, Truth

TRANSCRIPTS = "transcripts.jsonl"


@dataclass
class Step:
    """One critique and the revision that it led to; empty text is an answer that did not come to its end."""

    principle: str
    critique: str
    revision: str


@dataclass
class Revised:
    """A reply and what became of it.

    Attributes:
        prompt: what was answered.
        reply: the start's reply.
        steps: critiques and revisions, in order.
        dropped: why the last revision is not to be imitated; None where it is.
    """

    prompt: Prompt
    reply: str
    steps: list[Step] = field(default_factory=list)
    dropped: str | None = None

    @property
    def final(self) -> str:
        """The last revision."""
        return self.steps[-1].revision if self.steps else self.reply

    def transcript(self) -> dict[str, Any]:
        """All of it, for a file."""
        return {
            "phase": "supervised",
            "prompt": self.prompt,
            "reply": self.reply,
            "steps": [vars(step) for step in self.steps],
            "dropped": self.dropped,
        }


def revise(bench: Bench, policy: Policy, prompts: Sequence[Prompt], revisions: int) -> list[Revised]:
    """The policy's reply to each prompt, criticised and revised `revisions` times by the bench's assistant, each time
    by a principle that is drawn anew.

    A reply is left out when it was cut off or is empty, when no principle applies to its prompt, or when a critique or
    a revision of it is empty or did not come to its end.
    """
    from jinja2 import Environment, StrictUndefined  # here, because listing algorithms imports this file

    assert bench.assistant is not None and bench.constitution is not None
    environment = Environment(undefined=StrictUndefined)
    asks_critique = environment.from_string(bench.constitution.critique_prompt)
    asks_revision = environment.from_string(bench.constitution.revision_prompt)
    rng = random.Random(f"constitution {bench.seed}")
    drawn = bench.sample(policy, prompts, 1, seed=bench.seed * 1000 + 900)
    found = [Revised(prompt, reply.text) for prompt, (reply,) in zip(prompts, drawn, strict=True)]
    for each, (reply,) in zip(found, drawn, strict=True):
        if not reply.finished or not reply.text.strip():
            each.dropped = "unfinished_reply" if not reply.finished else "empty_reply"
    for i in range(revisions):
        going = [each for each in found if each.dropped is None]
        principles = [bench.constitution.draw(each.prompt, rng) for each in going]
        for each, principle in zip(going, principles, strict=True):
            if principle is None:
                each.dropped = "no_principle_applies"
        pairs = [(e, p) for e, p in zip(going, principles, strict=True) if p is not None]
        given = [{"prompt": e.prompt, "reply": e.final, "principle": p} for e, p in pairs]
        seed = bench.seed * 1000 + 910 + 2 * i
        critiques = bench.assistant([asks_critique.render(**each) for each in given], seed, bench.ledger)
        asked = [
            asks_revision.render(**each, critique=critique)
            for each, critique in zip(given, critiques, strict=True)
            if critique.strip()
        ]
        revised = iter(bench.assistant(asked, seed + 1, bench.ledger) if asked else [])
        for (each, principle), critique in zip(pairs, critiques, strict=True):
            revision = next(revised) if critique.strip() else ""
            each.steps.append(Step(principle.id, critique, revision))
            if not revision.strip():
                each.dropped = "no_revision" if critique.strip() else "no_critique"
        bench.progress("revising", i + 1, revisions)
    return found


def by_principle(file: Path, gold: Truth | None, reward: Reward | None) -> dict[str, dict[str, float]]:
    """For each principle of a file of transcripts: how often it was drawn for a revision (`revisions`) and for a
    comparison, how many of the revisions came to nothing (`unrevised`), how often the others changed the reply, and by
    how much they changed gold and the reward, in the mean over all of them.

    Args:
        gold, reward: measures, as far as there are any.
    """
    steps: dict[str, list[tuple[Prompt, str, str]]] = {}
    compared: Counter[str] = Counter()
    drawn: Counter[str] = Counter()
    with file.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if "steps" not in record:
                compared[record["principle"]] += 1
                continue
            before = record["reply"]
            for step in record["steps"]:
                drawn[step["principle"]] += 1
                if step["revision"].strip():
                    steps.setdefault(step["principle"], []).append((record["prompt"], before, step["revision"]))
                    before = step["revision"]
    table: dict[str, dict[str, float]] = {}
    for name in sorted({*drawn, *compared}):
        used = steps.get(name, [])
        row: dict[str, float] = {
            "revisions": drawn[name],
            "unrevised": drawn[name] - len(used),
            "comparisons": compared[name],
        }
        if used:
            row["changed"] = fmean(before != after for _, before, after in used)
            prompts, before, after = (list(column) for column in zip(*used, strict=True))
            if gold is not None:
                row["gold"] = _gain([each["gold"] for each in gold(prompts, before)], gold(prompts, after))
            if reward is not None:
                row["reward"] = fmean(reward(prompts, after)) - fmean(reward(prompts, before))
        table[name] = row
    return table


def _gain(before: Sequence[float], after: Sequence[Mapping[str, float]]) -> float:
    return fmean(each["gold"] for each in after) - fmean(before)
