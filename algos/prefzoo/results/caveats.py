"""What a reader must know before believing the table."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefzoo.errors import with_full_stop
from prefzoo.judges.judge_audit import Audit
from prefzoo.judges.judge_audit_text import verdict
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.results.analysis import ALL, PromptGroups
from prefzoo.results.results_schema import Verdict
from prefzoo.results.statistics import SKEWED
from prefzoo.results.tuning_schema import Tuning
from prefzoo.run.executor import Outcome
from prefzoo.run.stage_graph import AUDIT, START, Plan
from prefzoo.trainers.recipe_deviations import SAMPLED_REPLIES

TWO_SEEDS = (
    "Two seeds tell little of how much trainings differ: depending on that, of pairs of policies that are the same 3 "
    "to 12% are called different, and not at most 5% (docs/calibration.md). A third seed makes verdicts surer."
)
FEW_GROUPS = 30
"""Groups of prompts of which there are fewer are said to be few."""


def notes(
    recipe: Recipe,
    algorithms: Mapping[str, Any],
    reward: Mapping[str, Any],
    manifest: Mapping[str, Any],
    tuning: Tuning | None = None,
) -> list[str]:
    """Return sentences about what limits this comparison; that labels differ in what was searched for each is none."""
    sentences = []
    if len(recipe.seeds) == 1:
        sentences.append("One seed: the intervals cover other prompts, not another training run.")
    if len(recipe.seeds) == 2:
        sentences.append(TWO_SEEDS)
    if manifest["splits"]["test"]["prompts"] < recipe.evaluation.prompts:
        sentences.append(f"There are only {manifest['splits']['test']['prompts']} test prompts.")
    parts = recipe.reward.places
    trainers = {"start": recipe.start.parameters.get("trainer"), **{key: part.trainer for key, part in parts.items()}}
    for key, settings in trainers.items():
        if settings:
            sentences.append(f"The {key} was trained with arguments of its own: {json.dumps(settings)}.")
    for key, part in parts.items():
        if part.adapter is not None and part.adapter != recipe.adapter:
            shape = json.dumps(part.adapter.model_dump(exclude_defaults=True) or {"type": "lora"})
            sentences.append(f"The {key} was trained with an adapter of its own: {shape}.")
    if recipe.gold_source == "none":
        sentences.append(f"No truth is known here: the verdict is by the proxy reward, which {_used_by(algorithms)}.")
    interval = reward.get("ci95")
    if interval and interval[0] <= 0.5 <= interval[1]:
        low, high = interval
        sentences.append(
            f"The reward cannot be told from chance on held-out pairs (accuracy {reward['test_accuracy']:.2f}, 95% "
            f"{low:.2f} to {high:.2f}): what learns from it learns noise. More pairs, `reward.trainer` (learning_rate, "
            "num_train_epochs), or another model may make it better."
        )
    if reward.get("error"):
        sentences.append(with_full_stop(f"There is no proxy reward: its stage {reward['error']}"))
    if recipe.data.shuffle_labels:
        sentences.append("Negative control: preference labels were shuffled; nothing should have been learned.")
    if recipe.reward.type == "random":
        sentences.append("Negative control: the reward is noise.")
    if recipe.uses_judge and recipe.judge.type == "random":
        sentences.append("Negative control: the judge tosses a coin.")
    details = {label: [s.details for s in result.seeds.values()] for label, result in algorithms.items()}
    for label, trials in {"reward": [reward], **details}.items():
        differs = [sentence for trial in trials for sentence in trial.get("model", {}).get("differs", ())]
        sentences += [f"The model of {label}: {sentence}." for sentence in dict.fromkeys(differs)]
    return sentences + _label_notes(algorithms, tuning)


def _label_notes(algorithms: Mapping[str, Any], tuning: Tuning | None) -> list[str]:
    """Return sentences on what single labels had that the others had not."""
    sentences: list[str] = []
    own: list[str] = []
    for label, result in algorithms.items():
        searched = tuning.labels[label].space if tuning is not None and label in tuning.labels else {}
        arguments = {name: value for name, value in result.differs.items() if f"trainer.{name}" not in searched}
        if arguments:
            own.append(f"{label} ({', '.join(f'{name} {_used([value])}' for name, value in arguments.items())})")
        if result.departures:
            used = ", ".join(
                f"{key} {_used(departure.used)} (recipe: {_used([departure.recipe])})"
                for key, departure in result.departures.items()
            )
            sentences.append(f"{label} did not use what the recipe says: {used}.")
        if result.algorithm == "best_of_n":
            sentences.append(f"The KL of {label} is the upper bound log n - (n - 1) / n, not a measurement.")
    if own:
        sentences.append(f"Trained with arguments of their own, beside those given to all: {', '.join(own)}.")
    return sentences


def group_notes(groups: PromptGroups) -> list[str]:
    """Return sentences on prompts that are analysed together."""
    of_all = groups.get(ALL)
    if of_all is None:
        return []
    sizes = np.bincount(of_all)
    sentences = [
        f"The {len(of_all)} test prompts are {len(sizes)} groups (near-duplicates, or the data's own groups), the "
        f"largest of {sizes.max()}: every number is a mean over groups, each of which counts once, and every interval "
        "is one over groups."
    ]
    if len(sizes) < FEW_GROUPS:
        sentences.append(
            f"Only {len(sizes)} groups: more prompts of the same groups would not make the verdicts surer, and of so "
            "few the intervals take for granted that they are not far from normally distributed."
        )
    return sentences


def power_difference(verdicts: Sequence[Verdict], metric: str, seeds: int) -> float | None:
    """Return half of the smallest difference to the start that could have been found where none was, in one digit; None
    where every difference was shown, or where one seed tells nothing of how trainings differ."""
    sizes = [
        v.detectable
        for v in verdicts
        if (v.metric, v.b, v.verdict) == (metric, START, "inconclusive") and v.detectable is not None
    ]
    if seeds < 2 or not sizes or min(sizes) <= 0:
        return None
    return float(f"{min(sizes) / 2:.1g}")


def skew_notes(verdicts: Sequence[Verdict], metric: str) -> list[str]:
    """Return a sentence on the differences to the start that a few prompts make; none where there are none."""
    labels = [v.a for v in verdicts if v.metric == metric and v.b == START and abs(v.skewness or 0.0) > SKEWED]
    if not labels:
        return []
    return [
        f"A few prompts with extreme scores make much of the difference to the start of {', '.join(labels)}. Intervals "
        "and p-values allow for it as far as these prompts show it; what rarer ones would add, this comparison cannot "
        "tell. The interquartile mean and the win rate do not depend on them."
    ]


def _used(values: Sequence[Any]) -> str:
    return " and ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)


def judge_notes(plan: Plan, outcomes: Mapping[str, Outcome], judge: Mapping[str, Any]) -> list[str]:
    """Return sentences on judges: untrusted by their audit, or not audited and why, or both teaching and deciding."""
    recipe = plan.recipe
    sentences = []
    for name, settings in recipe.audited.items():
        stage = AUDIT.format(name)
        if (report := judge["audits"][name]) is not None:
            audit = Audit.model_validate(report)
            sentences += [] if audit.trusted else [verdict(audit)]
            continue
        if stage in plan.stages:
            outcome = outcomes.get(stage)
            why = f"its stage {outcome.status}: {outcome.error}" if outcome else "its stage was not run"
        elif settings.audit_pairs == 0:
            why = "audit_pairs is 0"
        else:
            why = "the data has no pairs to hold its verdicts against"
        sentences.append(with_full_stop(f"The {name} was not audited: {why}"))
    if recipe.final_judge is not None:
        sentences.append(
            "No truth is known here: the verdict is by a judge, who compares each reply with the start's to the same "
            "prompt; what is called gold is P(better)."
        )
        if recipe.evaluation.same_judge:
            sentences.append("The judge that decides also taught: a gain may be to its taste, and not in quality.")
    return sentences


def ungraded(algorithms: Mapping[str, Any]) -> list[str]:
    """Return a sentence on how often the final judge could not be read, by policy, where it happened."""
    sentences = []
    for label, result in algorithms.items():
        names = ("failures", "questions", "undecided", "pairs")
        failed, asked, undecided, pairs = (sum(s.judging.get(name, 0) for s in result.seeds.values()) for name in names)
        if failed:
            sentences.append(f"{label} {failed} of {asked} ({undecided} of {pairs} replies in neither order)")
    if not sentences:
        return []
    return [
        "Questions to which the final judge gave no answer that could be read: "
        f"{'; '.join(sentences)}. Each counts as undecided, which draws a policy towards the start."
    ]


OTHER_TOKENS = 0.05
"""Share of sampled replies above which it is said that they were trained on in other tokens than sampled."""


def encoded_otherwise(algorithms: Mapping[str, Any]) -> list[str]:
    """Return a sentence on each label that learned from many sampled replies in other tokens of the same text."""
    sentences = []
    for label, result in algorithms.items():
        counts = [count for trial in result.seeds.values() for count in trial.details.get(SAMPLED_REPLIES, ())]
        replies, others = (sum(c[key] for c in counts) for key in ("replies", "other_tokens_of_the_same_text"))
        if others > OTHER_TOKENS * replies:
            sentences.append(
                f"{label} learned from {replies} sampled replies, {others} of them ({others / replies:.0%}) in other "
                "tokens of the same text than were sampled: text is encoded in one way, and sampled in any."
            )
    return sentences


def _used_by(algorithms: Mapping[str, Any]) -> str:
    """Name the labels that asked the reward in training or (best-of-n) to choose an answer, by their ledgers."""
    users = [
        label for label, result in algorithms.items() if any(s.ledger["reward_calls"] for s in result.seeds.values())
    ]
    return f"{', '.join(users)} used: a gain there may be an error of the reward" if users else "no policy used"
