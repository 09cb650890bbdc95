"""The label stage: the start answers each prompt twice, and a judge or the truth says which answer is better."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from prefzoo.data import splits
from prefzoo.data.agreement import clustered_wilson
from prefzoo.data.formats import Row
from prefzoo.data.rejects import Rejects
from prefzoo.data.row_views import cluster_of, views_of
from prefzoo.errors import PrefzooError
from prefzoo.interface import Policy
from prefzoo.judges.ai_preferences import first_better, in_words, label_pairs
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.ledger import Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.run.resources import metered
from prefzoo.run.stage_graph import Plan, Stage
from prefzoo.run.stages.recipe_inputs import gold_function, judge_of
from prefzoo.run.stages.start_stage import start_path, start_policy
from prefzoo.settings import Generation
from prefzoo.types import Completion, Judge, Progress, Prompt
from prefzoo.views import prompt_key


def label(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Make preferences of the start's own replies to the training and test prompts.

    Raises:
        PrefzooError: when not one pair of a split could be made.
    """
    recipe = plan.recipe
    ledger = Ledger()
    settings = JudgeSettings(type="gold") if recipe.data.label_with == "gold" else recipe.judge
    judge = judge_of(plan, settings, progress=progress)
    policy = start_policy(recipe, start_path(plan))
    parts = {name: splits.load_split(plan.stages["data"].folder, name) for name in splits.SPLITS}
    report: dict[str, Any] = {"with": recipe.data.label_with, "splits": {}}
    for i, name in enumerate(("train", "test")):
        before = parts[name]
        seed = 20_000 + 2 * recipe.seeds[0] + i
        with metered(ledger):
            parts[name], dropped = label_split(before, policy, judge, recipe.generation, seed, ledger, progress)
        pairs = parts[name][len(before) :]
        report["splits"][name] = {"pairs": len(pairs), "sha256": splits.sha256_of(pairs), "dropped": dropped.counts()}
        if not pairs:
            raise PrefzooError(
                f"data.label_with: of two replies to each of the {name} prompts not one pair could be made: "
                f"{in_words(dropped.counts())}"
            )
    splits.save_splits(parts, folder)
    rows = [row for split in parts.values() for row in split]
    report["judge"] = {"type": settings.type, **judge.report(), **_gold_agreement(recipe, rows)}
    (folder / "labels.json").write_text(json.dumps(report, indent=1), encoding="utf-8")
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")


def label_split(
    rows: Sequence[Row],
    policy: Policy,
    judge: Judge,
    generation: Generation,
    seed: int,
    ledger: Ledger,
    progress: Progress,
) -> tuple[list[Row], Rejects]:
    """Pairs of two sampled replies for the prompts of one split.

    Replies that make no pair are left out, with the reason (see `ai_preferences.label_pairs`).

    Args:
        rows: of the split; each distinct prompt is answered.
        policy: the start.
        judge: says which reply is better.
        generation, seed: how replies are sampled.
        ledger: is charged for the samples and for each question to the judge.
        progress: is told how far sampling is.

    Returns:
        The given rows followed by a row for each pair; and what was left out.
    """
    prompts = views_of(rows).prompts
    first_rows = {prompt_key(row.prompt): row for row in reversed(rows)}
    samples = policy.sample(prompts, generation, seed, n=2, ledger=ledger, progress=progress)
    answers = ledger.judged(judge, lambda: first_better(judge, prompts, samples, generation, judge))
    dropped = Rejects()
    pairs = []
    for pair in label_pairs(prompts, samples, answers, generation.unfinished == "keep"):
        row = first_rows[prompt_key(pair.prompt)]
        if pair.dropped:
            dropped.add(pair.dropped, row.id, pair.prompt[-1]["content"])
        else:
            sides = {"chosen": pair.better, "rejected": pair.worse}
            sampled = {side: list(r.token_ids) for side, r in sides.items() if _needs_tokens(policy, row.prompt, r)}
            labelled = replace(row, id=f"{row.id} labelled", demonstration=None, reply=None, rating=None, ranking=None)
            pairs.append(
                replace(labelled, chosen=pair.chosen, rejected=pair.rejected, token_ids=sampled or None, vote=None)
            )
    return [*rows, *pairs], dropped


def _needs_tokens(policy: Policy, prompt: Prompt, reply: Completion) -> bool:
    """Whether a reply's text alone would be trained on as another text, or with an end that it does not have."""
    if not reply.finished:
        return True
    return isinstance(policy, LanguageModelPolicy) and policy.encoded_again(prompt, reply) == "other text"


def _gold_agreement(recipe: Recipe, rows: Sequence[Row]) -> dict[str, Any]:
    """How often the pairs are ordered as the truth orders them; empty where there is no truth, or it orders none."""
    gold = gold_function(recipe)
    pairs = [row for row in rows if row.chosen is not None and row.rejected is not None]
    if gold is None or not pairs:
        return {}
    prompts = [row.prompt for row in pairs]
    chosen = gold(prompts, [row.chosen or "" for row in pairs])
    rejected = gold(prompts, [row.rejected or "" for row in pairs])
    judged = zip(pairs, chosen, rejected, strict=True)
    agrees = [(a["gold"] > b["gold"], cluster_of(row)) for row, a, b in judged if a["gold"] != b["gold"]]
    if not agrees:
        return {}
    right, clusters = zip(*agrees, strict=True)
    return {
        "gold_agreement": sum(right) / len(right),
        "gold_agreement_ci95": list(clustered_wilson(right, clusters)),
    }
