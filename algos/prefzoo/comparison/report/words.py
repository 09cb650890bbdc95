"""What a report says around its tables: the title, the verdict in a sentence, and what each column means."""

from __future__ import annotations

from prefzoo.comparison.plan import START
from prefzoo.comparison.results import Results
from prefzoo.comparison.statistics import ALPHA
from prefzoo.data.reading import COLUMNS

MOST_NAMED = 6
"""More policies than this are not all named in a title or a sentence."""


def title(results: Results) -> str:
    """What was compared, e.g. `sft, dpo and ppo against the start: 3 seeds, 256 test prompts`."""
    labels = [label for label in results.algorithms if label != START]
    labels = _shortened(labels)
    listed = " and ".join(part for part in (", ".join(labels[:-1]), labels[-1]) if part)
    return f"{listed} against the start: {size(results)}"


def _shortened(labels: list[str]) -> list[str]:
    if len(labels) <= MOST_NAMED:
        return labels
    return [*labels[: MOST_NAMED - 1], f"{len(labels) - MOST_NAMED + 1} more"]


def _named(labels: list[str]) -> str:
    return ", ".join(_shortened(labels))


def size(results: Results) -> str:
    """How many seeds and test prompts there were."""
    seeds = len(results.recipe["seeds"])
    return f"{seeds} seed{'s' if seeds > 1 else ''}, {results.test_prompts} test prompts"


BUDGET = {"max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"}
"""Fields under `trainer:` that change how much an algorithm trains on."""


def setting(results: Results) -> str:
    """On what it was compared, and what every algorithm was given alike."""
    recipe = results.recipe
    data, budget = recipe["data"], recipe["budget"]
    origin = ", ".join(data[kind] for kind in COLUMNS if data.get(kind)) or data["source"] or "lab"
    prompts = results.manifest["splits"]["train"]["prompts"]
    longer = [label for label, each in results.algorithms.items() if BUDGET & each.differs.keys()]
    who = f"Every algorithm but {', '.join(longer)} was" if longer else "Every algorithm was"
    return (
        f"Model {recipe['model']['path']}, adapter {recipe['adapter']['type']}, data {origin}. {who} "
        f"given the same {prompts} training prompts, {budget['epochs']:g} epoch{'s' if budget['epochs'] != 1 else ''}, "
        f"and replies of at most {recipe['generation']['max_new_tokens']} tokens."
    )


def sentence(results: Results) -> str:
    """The verdict in one sentence."""
    against = [v for v in results.verdicts if v.metric == results.primary and v.b == START]
    groups = {word: [v.a for v in against if v.verdict == word] for word in ("better", "worse", "inconclusive")}
    parts = []
    if len(groups["better"]) > 1:
        parts += _highest(results, groups["better"])
    if groups["better"]:
        parts.append(f"better than the start in {results.primary} reward: {_named(groups['better'])}")
    if groups["worse"]:
        parts.append(f"worse: {_named(groups['worse'])}")
    if groups["inconclusive"]:
        parts.append(f"no difference shown: {_named(groups['inconclusive'])}")
    lost = [label for label, each in results.algorithms.items() if each.status != "ok"]
    if lost:
        parts.append(f"without a result: {_named(lost)}")
    text = "; ".join(parts) + "." if parts else "nothing was measured."
    return text[0].upper() + text[1:]


def _highest(results: Results, better: list[str]) -> list[str]:
    """Which policy scored highest, and which cannot be told from it, where all pairs were tested."""
    found = results.algorithms
    first = max(better, key=lambda label: found[label].summary[results.primary].mean)
    pairs = [
        v for v in results.verdicts if v.metric == results.primary and first in (v.a, v.b) and START not in (v.a, v.b)
    ]
    alike = [v.b if v.a == first else v.a for v in pairs if v.verdict == "inconclusive"]
    if not pairs:
        return []
    rest = f"not told apart from {_named(alike)}" if alike else "ahead of every other policy"
    return [f"highest {results.primary} reward: {first}, {rest}"]


def reading(results: Results) -> dict[str, str]:
    """Each column of the table that needs one -> a sentence on what it holds."""
    metric = results.primary
    shown = {name for each in results.algorithms.values() for name in each.summary}
    seeds = "seeds and prompts" if len(results.recipe["seeds"]) > 1 else "prompts; with one seed, not other trainings"
    truth = "The mean gold reward of the test replies: the truth, as far as this data knows it."
    if results.recipe["gold"] == "judge":
        truth = "How probable the judge finds it that a reply is better than the start's: 0.50 is as good."
    words = {
        "gold": truth,
        "proxy": "The mean of the reward that algorithms may learn from.",
        "win_rate": (
            f"Win rate against the start: the share of test prompts that a policy answers with a higher {metric} "
            "reward than the start does, ties counted half, so that the start has 0.50."
        ),
        "kl": (
            "KL to the start, in nats a reply: how far a policy has moved, estimated on its own test replies as the "
            "exact divergence of the two next-token distributions, summed over each reply's tokens (Amini et al. 2025)."
        ),
        "length": "The mean length of a reply, its end included.",
        "distinct_2": "Different pairs of neighbouring words as a share of all, over all replies.",
    }
    said = {name: text for name, text in words.items() if name in shown}
    return said | {
        "±": f"Half of a 95% interval, which covers other {seeds}.",
        "over start": "The mean difference to the start, paired by seed and prompt, with its own 95% interval.",
        "verdict": (
            f"Better or worse where that difference has p < {ALPHA:g} after Holm's correction for the number of "
            "policies (the interval is not corrected); inconclusive means not shown, and not that they are equal."
        ),
    }
