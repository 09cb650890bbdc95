"""Measure a policy: the same test prompts, the same sampling, the same yardsticks for every one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.interface import MILESTONES, HasLogProbabilities, Policy
from prefzoo.judges.critique_revision import TRANSCRIPTS, by_principle
from prefzoo.ledger import Ledger
from prefzoo.models.policy_kinds import kl_to_start, load_policy
from prefzoo.run.evaluation_records import JUDGING, PRINCIPLES, RECORDS, not_numbers
from prefzoo.run.stages.gold_metric import AgainstTheStart
from prefzoo.run.stages.time_and_memory import metered
from prefzoo.settings import Generation
from prefzoo.types import Progress, Prompt, Reward, Truth


@dataclass(frozen=True)
class Measure:
    """How every policy of a comparison is measured.

    Attributes:
        prompts: one reply is sampled to each.
        slices: a prompt, as JSON, to the slice that it belongs to.
        generation, seed: how replies are sampled.
        gold: the truth, or None.
        proxy: the reward that was learned from, or None.
        progress: is told how far it is.
        start: loads the start policy, for the KL of a policy that has log-probabilities alone.
    """

    prompts: Sequence[Prompt]
    slices: Mapping[str, str | None]
    generation: Generation
    seed: int
    gold: Truth | None
    proxy: Reward | None
    progress: Progress
    start: Callable[[], HasLogProbabilities]

    def __call__(self, policy: Policy, ledger: Ledger, folder: Path) -> None:
        """Sample one reply to each prompt, measure it, and write a line for each to `replies.jsonl` in `folder`.

        A line holds the prompt, the reply, `length` in tokens (the end included), whether it was `finished`, `kl` to
        the start in nats, `proxy`, `gold` and `gold/<attribute>`, as far as the recipe has them. Where a judge decides,
        what it was asked goes into a file beside it. Only sampling is charged to the ledger; scoring and KL are costs
        of measuring.

        Raises:
            PrefzooError: when a measurement is infinite or not a number.
        """
        with metered(ledger):
            drawn = policy.sample(
                self.prompts, self.generation, seed=10_000 + self.seed, ledger=ledger, progress=self.progress
            )
        ledger.inference_tokens = ledger.generated_tokens
        replies = [each[0] for each in drawn]
        texts = [reply.text for reply in replies]
        self.progress("scoring", 0, 2)
        truths: Sequence[Mapping[str, float]] = (
            self.gold(list(self.prompts), texts) if self.gold else [{} for _ in self.prompts]
        )
        if isinstance(self.gold, AgainstTheStart):
            (folder / JUDGING).write_text(json.dumps(self.gold.report(), indent=1), encoding="utf-8")
        scores = self.proxy(self.prompts, texts) if self.proxy else [None] * len(self.prompts)
        self.progress("KL to the start", 1, 2)
        divergences = kl_to_start(policy, self.prompts, replies, self.generation.temperature or 1.0, self.start)
        records: list[dict[str, Any]] = []
        for i, (prompt, reply) in enumerate(zip(self.prompts, replies, strict=True)):
            record: dict[str, Any] = {
                "prompt": prompt,
                "reply": reply.text,
                "slice": self.slices.get(json.dumps(prompt)),
                "length": len(reply.token_ids),
                "finished": reply.finished,
            }
            if divergences is not None:
                record["kl"] = divergences[i]
            if scores[i] is not None:
                record["proxy"] = scores[i]
            records.append({**record, **truths[i]})
        if bad := not_numbers(records):
            raise PrefzooError(f"measured what is no finite number: {', '.join(bad)}")
        with (folder / RECORDS).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def measure_on_the_way(measure: Measure, truth: Truth | None, trained: Path, folder: Path) -> None:
    """Measure the policies that a trial kept on the way, each into a folder of its own, and what its critiques did.

    Nothing of it is charged: it is a cost of measuring.

    Args:
        truth: what critiques are measured by, on training prompts; None where there is none.
        trained: the trial's folder.
        folder: the evaluation's.
    """
    for kept in sorted((trained / MILESTONES).glob("*")):
        out = folder / MILESTONES / kept.name
        out.mkdir(parents=True)
        measure(load_policy(kept / "policy"), Ledger(), out)
        shutil.copy(kept / "milestone.json", out)
    if (trained / TRANSCRIPTS).is_file():
        found = by_principle(trained / TRANSCRIPTS, truth, measure.proxy)
        (folder / PRINCIPLES).write_text(json.dumps(found, indent=1), encoding="utf-8")
