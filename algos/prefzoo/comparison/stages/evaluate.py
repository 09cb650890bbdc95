"""Measure a policy: the same test prompts, the same sampling, the same yardsticks for every one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prefzoo.comparison.records import RECORDS
from prefzoo.comparison.stages.metering import metered
from prefzoo.interface import Ledger, Policy, Progress, Prompt, Reward
from prefzoo.policies.best_of_n import BestOfNPolicy
from prefzoo.policies.language_model import LanguageModelPolicy
from prefzoo.settings import Generation


def evaluate(
    policy: Policy,
    prompts: Sequence[Prompt],
    slices: Mapping[str, str | None],
    generation: Generation,
    seed: int,
    gold: Callable[[list[Any], list[str]], list[Mapping[str, float]]] | None,
    proxy: Reward | None,
    ledger: Ledger,
    folder: Path,
    progress: Progress,
) -> None:
    """Sample one reply to each prompt, measure it, and write a line for each to `replies.jsonl`.

    A line holds the prompt, the reply, `length` in tokens (the end included), whether it was `finished`, `kl` to the
    start in nats, `proxy`, `gold` and `gold/<attribute>`, as far as the recipe has them. Only sampling is charged
    to the ledger; scoring and KL are costs of measuring.
    """
    with metered(ledger):
        drawn = policy.sample(prompts, generation, seed=10_000 + seed, ledger=ledger, progress=progress)
    ledger.inference_tokens = ledger.generated_tokens
    replies = [each[0] for each in drawn]
    texts = [reply.text for reply in replies]
    progress("scoring", 0, 2)
    truths: Sequence[Mapping[str, float]] = gold(list(prompts), texts) if gold else [{} for _ in prompts]
    scores = proxy(prompts, texts) if proxy else [None] * len(prompts)
    progress("KL to the start", 1, 2)
    if isinstance(policy, LanguageModelPolicy):
        divergences = policy.kl_to_start(prompts, replies, temperature=generation.temperature or 1.0)
    elif isinstance(policy, BestOfNPolicy):
        divergences = [policy.kl_bound] * len(prompts)
    else:
        divergences = []
    with (folder / RECORDS).open("w", encoding="utf-8") as file:
        for i, (prompt, reply) in enumerate(zip(prompts, replies, strict=True)):
            record: dict[str, Any] = {
                "prompt": prompt,
                "reply": reply.text,
                "slice": slices.get(json.dumps(prompt)),
                "length": len(reply.token_ids),
                "finished": reply.finished,
            }
            if divergences:
                record["kl"] = divergences[i]
            if scores[i] is not None:
                record["proxy"] = scores[i]
            file.write(json.dumps({**record, **truths[i]}, ensure_ascii=False) + "\n")
