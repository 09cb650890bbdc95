"""Critique and revision of replies by principles, with a transcript of every step."""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from prefzoo.interface import Bench, Policy
from prefzoo.types import Prompt, Reward, Truth

TRANSCRIPTS = "transcripts.jsonl"


@dataclass
class Step:
    """A critique and the revision that it led to; an answer that did not come to its end is an empty text."""

    principle: str
    critique: str
    revision: str


@dataclass
class Revised:
    """A reply with its revisions.

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
        """The record of this reply for the file of transcripts."""
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
    from prefzoo.bounded_template import fill_in  # here, because listing algorithms imports this file

    assert bench.assistant is not None and bench.constitution is not None
    critique_prompt, revision_prompt = bench.constitution.critique_prompt, bench.constitution.revision_prompt
    rng = random.Random(f"constitution {bench.seed}")
    samples = bench.sample(policy, prompts, 1, seed=bench.seed * 1000 + 900)
    replies = [Revised(prompt, sample.text) for prompt, (sample,) in zip(prompts, samples, strict=True)]
    for reply, (sample,) in zip(replies, samples, strict=True):
        if not bench.generation.counts(sample) or not sample.text.strip():
            reply.dropped = "empty_reply" if bench.generation.counts(sample) else "unfinished_reply"
    for i in range(revisions):
        pairs = []
        for reply in [reply for reply in replies if reply.dropped is None]:
            principle = bench.constitution.draw(reply.prompt, rng)
            if principle is None:
                reply.dropped = "no_principle_applies"
            else:
                pairs.append((reply, principle))
        values = [{"prompt": reply.prompt, "reply": reply.final, "principle": rule} for reply, rule in pairs]
        seed = bench.seed * 1000 + 910 + 2 * i
        critiques = bench.assistant([fill_in(critique_prompt, **value) for value in values], seed, bench.ledger)
        requests = [
            fill_in(revision_prompt, **value, critique=critique)
            for value, critique in zip(values, critiques, strict=True)
            if critique.strip()
        ]
        revised = iter(bench.assistant(requests, seed + 1, bench.ledger) if requests else [])
        for (reply, principle), critique in zip(pairs, critiques, strict=True):
            revision = next(revised) if critique.strip() else ""
            reply.steps.append(Step(principle.id, critique, revision))
            if not revision.strip():
                reply.dropped = "no_revision" if critique.strip() else "no_critique"
        bench.progress("revising", i + 1, revisions)
    return replies


def by_principle(file: Path, gold: Truth | None, reward: Reward | None) -> dict[str, dict[str, float]]:
    """For each principle of a file of transcripts: how often it was drawn for a revision (`revisions`) and for a
    comparison, how many of the revisions came to nothing (`unrevised`), how often the others changed the reply, and by
    how much they changed gold and the reward, in the mean over all of them.

    Args:
        gold, reward: measures, as far as there are any.
    """
    changes: dict[str, list[tuple[Prompt, str, str]]] = {}  # principle -> prompt, reply before and after
    compared: Counter[str] = Counter()
    revisions: Counter[str] = Counter()
    with file.open(encoding="utf-8") as lines:
        for record in map(json.loads, lines):
            if "steps" not in record:
                compared[record["principle"]] += 1
                continue
            before = record["reply"]
            for step in record["steps"]:
                revisions[step["principle"]] += 1
                if step["revision"].strip():
                    changes.setdefault(step["principle"], []).append((record["prompt"], before, step["revision"]))
                    before = step["revision"]
    table: dict[str, dict[str, float]] = {}
    for name in sorted({*revisions, *compared}):
        made = changes.get(name, [])
        row: dict[str, float] = {
            "revisions": revisions[name],
            "unrevised": revisions[name] - len(made),
            "comparisons": compared[name],
        }
        if made:
            row["changed"] = fmean(before != after for _, before, after in made)
            prompts, before, after = (list(column) for column in zip(*made, strict=True))
            if gold is not None:
                golds = [fmean(score["gold"] for score in gold(prompts, texts)) for texts in (before, after)]
                row["gold"] = golds[1] - golds[0]
            if reward is not None:
                row["reward"] = fmean(reward(prompts, after)) - fmean(reward(prompts, before))
        table[name] = row
    return table
