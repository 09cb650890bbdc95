"""What a report says around its tables: the title, the verdict in a sentence, and what each column means."""

from __future__ import annotations

from prefzoo.data.read_files import COLUMNS
from prefzoo.results.results_schema import Results, Verdict
from prefzoo.results.statistics import ALPHA
from prefzoo.run.stage_graph import START

OPEN = "†"
"""Behind a verdict that leaves open what its own interval would have shown."""
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

GIVEN_ALIKE = {"budget.epochs", "training.batch_size", "generation.max_new_tokens"}
"""Keys of the recipe that `setting` says every algorithm was given alike."""


def setting(results: Results) -> str:
    """On what it was compared, and what every algorithm was given alike."""
    recipe = results.recipe
    data, budget = recipe["data"], recipe["budget"]
    origin = ", ".join(data[kind] for kind in COLUMNS if data.get(kind)) or data["source"] or "lab"
    prompts = results.manifest["splits"]["train"]["prompts"]
    longer = [
        label
        for label, each in results.algorithms.items()
        if BUDGET & each.differs.keys() or GIVEN_ALIKE & each.departures.keys()
    ]
    who = f"Every algorithm but {', '.join(longer)} was" if longer else "Every algorithm was"
    return (
        f"Model {recipe['model']['path']}, adapter {recipe['adapter']['type']}, data {origin}. {who} "
        f"given the same {prompts} training prompts, {budget['epochs']:g} epoch{'s' if budget['epochs'] != 1 else ''}, "
        f"and replies of at most {recipe['generation']['max_new_tokens']} tokens.{_passes(results)}"
    )


def _passes(results: Results) -> str:
    """How many sequences of a row each policy may have trained on in an epoch, where that is not the same for all."""
    labels: dict[int, list[str]] = {}
    for label, each in results.algorithms.items():
        if each.replies_per_row is not None:
            labels.setdefault(each.replies_per_row, []).append(label)
    if len(labels) < 2:
        return ""
    listed = "; ".join(f"{count} ({_named(names)})" for count, names in sorted(labels.items()))
    return f" Sequences that an epoch may train on for each row of the data, by each algorithm's own word: {listed}."


def sentence(results: Results) -> str:
    """The verdict in one sentence."""
    against = [v for v in results.verdicts if v.metric == results.primary and v.b == START]
    groups = {word: [v.a for v in against if v.verdict == word] for word in ("better", "worse", "inconclusive")}
    parts = _highest(results, groups)
    than = f" than the start in {results.primary} reward"
    for word in ("better", "worse"):
        if groups[word]:
            parts.append(f"{word}{than}: {_named(groups[word])}")
            than = ""
    if groups["inconclusive"]:
        parts.append(f"no difference shown: {_named(groups['inconclusive'])}")
    lost = [label for label, each in results.algorithms.items() if each.status != "ok"]
    if lost:
        parts.append(f"without a result: {_named(lost)}")
    text = "; ".join(parts) + "." if parts else "nothing was measured."
    if len(results.recipe["seeds"]) == 1 and (groups["better"] or groups["worse"]):
        text = f"with one seed, and so of these trainings alone, {text}"
    return text[0].upper() + text[1:]


def _highest(results: Results, groups: dict[str, list[str]]) -> list[str]:
    """Which policy scored highest, and which one of those that are better than the start, where any is and all pairs
    were tested; and which cannot be told from that one."""
    metric = results.primary
    means = {label: each.summary[metric].mean for label, each in results.algorithms.items() if metric in each.summary}
    best = max(groups["better"], key=lambda label: means[label], default=None)
    pairs = [v for v in results.verdicts if v.metric == metric and best in (v.a, v.b) and START not in (v.a, v.b)]
    if best is None or not pairs:
        return []
    others = [v.b if v.a == best else v.a for v in pairs]
    open_ones = {other for other, v in zip(others, pairs, strict=True) if v.verdict == "inconclusive"}
    open_ones -= {*groups["worse"]}  # than the start, than which it is better
    alike = [label for label in others if label in open_ones]
    named = "any other policy" if len(alike) == len(others) > 2 else _named(alike)
    rest = f"not told apart from {named}" if alike else "ahead of every other policy"
    first = max(means, key=lambda label: means[label])
    if first == best:
        return [f"highest {metric} reward: {best}, {rest}"]
    return [
        f"highest {metric} reward: {first}, but not shown to be better than the start",
        f"highest of those that are: {best}, {rest}",
    ]


def left_open(verdict: Verdict) -> bool:
    """Whether its interval, which is not corrected for several comparisons, leaves out 0 and the verdict does not."""
    low, high = verdict.ci95
    return verdict.verdict == "inconclusive" and not low <= 0 <= high


def marked(verdict: Verdict) -> str:
    """The verdict as tables show it."""
    return f"{verdict.verdict}{OPEN if left_open(verdict) else ''}"


def open_words(results: Results) -> str | None:
    """What the mark in the first table says; None where there is none."""
    found = [v for v in results.verdicts if v.metric == results.primary and v.b == START and left_open(v)]
    if not found:
        return None
    several = f"{found[0].family_size} comparisons" if found[0].family_size else "comparisons"
    p_values = ", ".join(f"{v.a} p = {v.p_adjusted:.3f}" for v in found[:MOST_NAMED])
    return (
        f"{OPEN} Inconclusive although its interval leaves out 0: the verdict is corrected for the {several} with the "
        f"start (Holm: {p_values}), the interval is not."
    )


def reading(results: Results) -> dict[str, str]:
    """Each column of the table that needs one -> a sentence on what it holds."""
    metric = results.primary
    shown = {name for each in results.algorithms.values() for name in each.summary}
    seeds = (
        "prompts; with one seed, not other trainings" if len(results.recipe["seeds"]) == 1 else "trainings and prompts"
    )
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
        "±": f"Half of a 95% interval, which covers other {seeds}{_not_covered(results)}.",
        "over start": (
            "The mean difference to the start, paired by seed and prompt, with its own 95% interval, which is not "
            "corrected for the number of policies."
        ),
        "verdict": (
            f"Better or worse where that difference has p < {ALPHA:g} after Holm's correction for the number of "
            "policies; inconclusive means not shown, and not that they are equal; "
            f"with {OPEN}, the interval alone would have shown it."
        ),
    }


def _not_covered(results: Results) -> str:
    """What was made once, before the trainings, so that no seed varies it."""
    once = {"start": "start", "reward": "reward model", "label": "labelling of the data"}
    used = [key for key, ledger in results.shared.items() if any(ledger.values())]
    made = [f"another {name}" for stage, name in once.items() if any(_is(key, stage) for key in used)]
    if not made:
        return ""
    return f", but not {' or '.join(made)}: what is made once for all is made with one seed"


def _is(key: str, stage: str) -> bool:
    """Whether a key of `shared` is that one stage, in a merged table with the name of its run behind it."""
    return key == stage or key.startswith(f"{stage} (")
