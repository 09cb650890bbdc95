"""The text around the first table: the title, the verdict in a sentence, and what each column means."""

from __future__ import annotations

import shlex
from pathlib import Path

from prefzoo.data.read_files import COLUMNS
from prefzoo.report.cost import format_cost
from prefzoo.report.sections import PROSE
from prefzoo.results.human_schema import WinRate
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results, Verdict
from prefzoo.results.statistics import ALPHA
from prefzoo.results.tuning_schema import Tuning
from prefzoo.run.stage_graph import START

OPEN = "†"
"""Stands behind an inconclusive verdict whose own interval leaves out 0."""
EXPLAINED_METRICS = ("gold", "proxy", "win_rate", "kl", "length", "distinct_2")
"""Metrics whose columns in the first table have a note, in order."""
EQUAL = {"flops": "FLOPs", "seconds": "seconds"}
"""What each label is given the same of, in a search for settings."""
INSTRUMENTS = {"judge": "the judge", "gold": "the gold reward", "proxy": "the reward"}
"""Whose verdicts on all test replies people's answers correct."""
MOST_NAMED = 6
"""More policies than this are not all named in a title or a sentence."""


TWO_SEEDS = "Two seeds: up to 12% of policies that are the same are called different, and not at most 5%."


def title(results: Results) -> str:
    """Return what was compared, e.g. `sft, dpo and ppo against the start: 3 seeds, 256 test prompts`; with settings as
    written beside those found, a label's name stands once."""
    untuned = {tuned.untuned for tuning in results.searches.values() for tuned in tuning.labels.values()}
    untuned &= results.algorithms.keys()
    labels = _shortened([label for label in results.algorithms if label != START and label not in untuned])
    listed = " and ".join(filter(None, (", ".join(labels[:-1]), labels[-1])))
    return f"{listed}{', tuned and as written,' if untuned else ''} against the start: {size(results)}"


def _shortened(labels: list[str]) -> list[str]:
    more = len(labels) - MOST_NAMED + 1
    return [*labels[: MOST_NAMED - 1], f"{more} more"] if more > 1 else labels


def _named(labels: list[str]) -> str:
    return ", ".join(_shortened(labels))


def size(results: Results) -> str:
    """Return how many seeds and test prompts there were."""
    seeds = len(results.recipe["seeds"])
    groups = f" in {results.groups} groups" if results.groups else ""
    return f"{seeds} seed{'s' if seeds > 1 else ''}, {results.test_prompts} test prompts{groups}"


BUDGET = {"max_steps", "num_train_epochs", "per_device_train_batch_size", "gradient_accumulation_steps"}
"""Fields under `trainer:` that change how much an algorithm trains on."""

GIVEN_ALIKE = {"budget.epochs", "training.batch_size", "generation.max_new_tokens"}
"""Keys of the recipe that `setting` says every algorithm was given alike."""


def setting(results: Results) -> str:
    """Return the model and data of the comparison, and what every algorithm was given alike."""
    recipe = results.recipe
    data, budget = recipe["data"], recipe["budget"]
    given = [data[kind] for kind in COLUMNS if data.get(kind)]
    files = [file for of_kind in given for file in ([of_kind] if isinstance(of_kind, str) else of_kind)]
    origin = ", ".join(files) or data["source"] or "lab"
    prompts = results.manifest["splits"]["train"]["prompts"]
    others = [
        label
        for label, result in results.algorithms.items()
        if BUDGET & result.differs.keys() or GIVEN_ALIKE & result.departures.keys()
    ]
    sampler = ", sampled by vLLM" if recipe["generation"].get("engine") == "vllm" else ""
    who = f"Every algorithm but {', '.join(others)} was" if others else "Every algorithm was"
    return (
        f"Model {recipe['model']['path']}, adapter {recipe['adapter']['type']}, data {origin}. {who} "
        f"given the same {prompts} training prompts, {budget['epochs']:g} epoch{'s' if budget['epochs'] != 1 else ''}, "
        f"and replies of at most {recipe['generation']['max_new_tokens']} tokens{sampler}.{_passes(results)}"
    )


def _passes(results: Results) -> str:
    """How many sequences of a row each policy may have trained on in an epoch, where that is not the same for all."""
    labels: dict[int, list[str]] = {}
    for label, result in results.algorithms.items():
        if result.replies_per_row is not None:
            labels.setdefault(result.replies_per_row, []).append(label)
    if len(labels) < 2:
        return ""
    listed = "; ".join(f"{count} ({_named(names)})" for count, names in sorted(labels.items()))
    return f" Sequences that an epoch may train on for each row of the data, by each algorithm's own word: {listed}."


def sentence(results: Results) -> str:
    """Return the verdict in one sentence."""
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
    if missing := [label for label, result in results.algorithms.items() if result.status != "ok"]:
        parts.append(f"without a result: {_named(missing)}")
    if not results.scored:
        parts.insert(0, "no verdict: no reply of a trained policy was scored, neither by gold nor by a reward")
    text = "; ".join(parts) + "."
    if len(results.recipe["seeds"]) == 1 and (groups["better"] or groups["worse"]):
        text = f"with one seed, and so of these trainings alone, {text}"
    return text[0].upper() + text[1:]


def _highest(results: Results, groups: dict[str, list[str]]) -> list[str]:
    """Name the policy that scored highest, the highest of those that are better than the start, and the policies that
    cannot be told from that one; empty where no policy is better or no pairs were tested."""
    metric = results.primary
    means = {label: r.summary[metric].mean for label, r in results.algorithms.items() if metric in r.summary}
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
    """Return whether a verdict is inconclusive although its interval, which is not corrected for several comparisons,
    leaves out 0."""
    low, high = verdict.ci95
    return verdict.verdict == "inconclusive" and not low <= 0 <= high


def marked(verdict: Verdict) -> str:
    """Return the verdict as tables show it."""
    return f"{verdict.verdict}{OPEN if left_open(verdict) else ''}"


def open_note(results: Results) -> str | None:
    """Return what the mark `OPEN` in the first table means; None where no verdict has it."""
    verdicts = [v for v in results.verdicts if v.metric == results.primary and v.b == START and left_open(v)]
    if not verdicts:
        return None
    several = f"{verdicts[0].family_size} comparisons" if verdicts[0].family_size else "comparisons"
    p_values = ", ".join(f"{v.a} p = {v.p_adjusted:.3f}" for v in verdicts[:MOST_NAMED])
    return (
        f"{OPEN} Inconclusive although its interval leaves out 0: the verdict is corrected for the {several} with the "
        f"start (Holm: {p_values}), the interval is not."
    )


def seeds_note(results: Results) -> str | None:
    """Return what a verdict of two seeds is worth; None where there are more, or one (see `sentence`), or none."""
    found = any(v.metric == results.primary and v.verdict != "inconclusive" for v in results.verdicts)
    return TWO_SEEDS if found and len(results.recipe["seeds"]) == 2 else None


def people_note(results: Results) -> str | None:
    """Return what people's answers say, joined with the judge's verdicts; None where there are none."""
    if results.human is None or not results.human.pairs:
        return None
    who = INSTRUMENTS[results.human.instrument]
    parts = [
        f"{pair.a} wins {rate(pair.joined)} over {pair.b} (people alone {rate(pair.people)}; {who} {rate(pair.judge)})"
        for pair in results.human.pairs[:MOST_NAMED]
    ]
    more = len(results.human.pairs) - MOST_NAMED
    listed = "; ".join([*parts, *([f"{more} more pairs"] if more > 0 else [])])
    return f"By {results.human.used} answers of people, joined with {who}: {listed}."


def rate(each: WinRate) -> str:
    """Return a win rate with its interval."""
    return f"{fixed(each.mean)} {interval(*each.ci95, sign='')}"


def search_note(results: Results, run: str, tuning: Tuning) -> str:
    """Return that settings were searched, which labels have them as written, and which verdicts that changed."""
    of_run = f"In {run}, " if run else ""
    untuned = [tuned.untuned for tuned in tuning.labels.values() if tuned.untuned in results.algorithms]
    written = f" ({', '.join(map(str, untuned))}: as written)" if untuned else ""
    trials = f"{_trials(tuning)} each" if tuning.equal == "trials" else f"trials of equal {EQUAL[tuning.equal]}"
    labels = _named([*tuning.labels])
    text = f"{of_run}{labels}: settings found in {trials}, on validation prompts{written}."
    return " ".join(filter(None, (text, changes_sentence(results, tuning))))


def search_sentence(run: str, tuning: Tuning) -> str:
    """Return what each label was given for the search of its settings."""
    of_run = f"In {run}, " if run else ""
    seeds = f"{len(tuning.seeds)} seed{'s' if len(tuning.seeds) != 1 else ''}"
    amounts = {name: value for name, value in tuning.budget.items() if isinstance(value, int | float)}
    budget = ", ".join(f"{n:g} {name if n != 1 else name.removesuffix('s')}" for name, n in amounts.items())
    given, how = _trials(tuning), tuning.sampler
    if tuning.equal != "trials":
        given = f"the {EQUAL[tuning.equal]} of {given} of the dearest label"
        how = f"{format_cost(tuning.equal, tuning.allowance)}; {how}" if tuning.allowance else how
    return (
        f"{of_run}{', '.join(tuning.labels)} were each given {given} ({how}), the first with the settings "
        f"as written. A trial was trained with {seeds}{f' and {budget}' if budget else ''}, and scored on "
        f"{tuning.prompts} validation prompts."
    )


def _trials(tuning: Tuning) -> str:
    return f"{tuning.trials} trial{'s' if tuning.trials != 1 else ''}"


def changes_sentence(results: Results, tuning: Tuning) -> str:
    """Return which verdicts against the start tuning changed; empty where no label was measured both ways."""
    pairs = [tuned for tuned in tuning.labels.values() if tuned.untuned in results.algorithms]
    if not pairs:
        return ""
    changes = [f"{each.label} ({each.untuned} as written, {each.tuned} tuned)" for each in tuning.changed_verdicts]
    changed = f"{len(changes)} of {len(pairs)} verdicts: {', '.join(changes)}" if changes else "no verdict"
    return f"Against the start, tuning changed {changed}."


def power_note(results: Results, out: Path | None) -> str | None:
    """Return what to do about verdicts that are inconclusive; None where there are none. `out` is the folder of the
    comparison, where that is known."""
    labels = [v.a for v in results.verdicts if (v.metric, v.b, v.verdict) == (results.primary, START, "inconclusive")]
    if not labels:
        return None
    named = f"Inconclusive ({_named(labels)}) means not shown."
    if len(results.recipe["seeds"]) == 1:
        return f"{named} How many prompts and seeds would show it cannot be told from one seed; compare with --seeds 3."
    if results.power_difference is None:
        return None
    command = f"prefzoo power {shlex.quote(str(out)) if out else 'DIR'} --difference {results.power_difference:g}"
    return f"{named} How many seeds and prompts a difference takes to be found: {command}"


def column_notes(results: Results) -> dict[str, str]:
    """Return for each column of the first table that needs it a sentence on what it holds."""
    metric = results.primary
    measured = {name for result in results.algorithms.values() for name in result.summary}
    seeds = (
        "prompts; with one seed, not other trainings" if len(results.recipe["seeds"]) == 1 else "trainings and prompts"
    )
    texts = {name: PROSE[name].format(metric=metric) for name in EXPLAINED_METRICS if name in measured}
    if "gold" in texts and results.recipe["gold"] == "judge":
        texts["gold"] = PROSE["gold_by_judge"]
    return texts | {
        "±": "Half of a 95% interval, or both of its ends where they are not as far from the number; it covers other "
        f"{seeds}{_not_covered(results)}.",
        "over start": PROSE["over_start"],
        "verdict": PROSE["verdict"].format(alpha=ALPHA),
    }


def _not_covered(results: Results) -> str:
    """Name what was made once, before the trainings, so that no seed varies it."""
    once = {"start": "start", "reward": "reward model", "label": "labelling of the data"}
    used = [key for key, ledger in results.shared.items() if any(ledger.values())]
    # in a merged table the name of the run stands behind that of the stage, in brackets
    fixed = [
        f"another {name}" for stage, name in once.items() if any(f"{key} (".startswith(f"{stage} (") for key in used)
    ]
    return f", but not {' or '.join(fixed)}: what is made once for all is made with one seed" if fixed else ""
