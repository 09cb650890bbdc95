"""The search for settings: what it changed, whether the order of policies depends on its budget, and what it cost."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping

from prefzoo.report.cost import format_cost
from prefzoo.report.sections import PROSE, Cells, Figures, Fold, Part, Picture, Points, Section, Table, Text
from prefzoo.report.summary_text import changes_sentence, search_sentence
from prefzoo.report.tuning_figures import picture_name, score_name, setting_text
from prefzoo.results.number_format import fixed, interval, with_error
from prefzoo.results.results_schema import Results
from prefzoo.results.tuning_results import (
    ROUNDING,
    Curve,
    best_trial,
    best_within,
    budget_curves,
    order_changes,
    paired_verdict,
)
from prefzoo.results.tuning_schema import TunedLabel, Tuning, TuningTrial
from prefzoo.run.stage_graph import START

WRITTEN = "as written"
ARROW = "\N{RIGHTWARDS ARROW}"
MOST_CHANGES = 5
"""Changes of the order of policies that are named."""
LONGEST_ERROR = 120
"""Letters of a trial's error in its table; `results.json` has all of it."""
COST_COLUMNS = {"flops": "FLOPs", "seconds": "seconds", "generated_tokens": "sampled tokens"}


def tuning_sections(results: Results, pictures: Mapping[str, Picture]) -> list[Section]:
    """Return a section for each search; none where nothing was tuned."""
    return [_section(results, name, tuning, pictures) for name, tuning in results.searches.items()]


def _section(results: Results, run: str, tuning: Tuning, pictures: Mapping[str, Picture]) -> Section:
    reasons = "; ".join(f"{label} ({why})" for label, why in tuning.not_tuned.items())
    not_tuned = f" Not tuned: {reasons}." if reasons else ""
    parts: list[Part] = [Text(search_sentence(run, tuning) + not_tuned, style="")]
    parts += [Text(changed, style="")] if (changed := changes_sentence(results, tuning)) else []
    parts += [Points([note.text for note in tuning.notes])] if tuning.notes else []
    suffix = f" of {run}" if run else ""
    parts += [
        Text("As written and tuned", "heading"),
        Table(
            effect_cells(results, tuning),
            "settings as written beside those found",
            verdicts=True,
            key=f"tuning{suffix}",
        ),
        Text(PROSE["tuning_effect"]),
    ]
    if curves := budget_curves(tuning):
        drawn = [pictures[name] for name in (picture_name("expected_best", run),) if name in pictures]
        table = Table(expected_cells(curves, tuning), "expected best validation score", key=f"expected best{suffix}")
        prose = PROSE["expected_best"].format(sampler=PROSE.get(f"sampler_{tuning.sampler}", "")).replace("  ", " ")
        parts += [
            Text("Does the order depend on the tuning budget?", "heading"),
            Text(order_sentence(curves, tuning), style=""),
        ]
        parts += [Figures(drawn), table, Text(prose)]
    parts += [
        Text("What tuning cost", "heading"),
        Table(cost_cells(results, tuning), "what the search of each label took", key=f"tuning cost{suffix}"),
        Text(PROSE["tuning_cost"]),
        Text("Every trial", "heading"),
    ]
    names = [picture_name("tuning", run, label) for label in tuning.labels]
    parts.append(Figures([pictures[name] for name in names if name in pictures]))
    for label, tuned in tuning.labels.items():
        tables = [
            Table(trial_cells(tuned, score_name(tuning)), f"the trials of {label}", key=f"trials of {label}{suffix}"),
            Table(range_cells(tuned), f"what was searched for {label}"),
        ]
        parts.append(Fold(f"{label}: {len(tuned.trials)} trials", tables))
    return Section("tuning", f"Tuning{suffix}", parts)


def effect_cells(results: Results, tuning: Tuning) -> Cells:
    """Return for each tuned label its scores with the settings as written and with those found."""
    metric = results.primary
    headings = ["policy", "tuned over as written", "difference [95%]", f"{metric} as written", f"{metric} tuned"]
    headings += [
        "against the start",
        f"{score_name(tuning)} as written",
        f"{score_name(tuning)} tuned",
        "settings found",
        "searches differ by",
    ]
    return headings, [[label, *_effect(results, label, tuned)] for label, tuned in tuning.labels.items()]


def _effect(results: Results, label: str, tuned: TunedLabel) -> list[str]:
    v = paired_verdict(label, tuned.untuned, results.verdicts, results.primary)
    pair = [v.verdict, f"{fixed(v.difference, '+.2f')} {interval(*v.ci95)}"] if v else ["-", "-"]
    first, best = next((trial for trial in tuned.trials if trial.number == 0), None), best_trial(tuned)
    found = changed_settings(first, best) if first and best else WRITTEN
    if found == WRITTEN:
        pair[0] = "the same"
    both = (tuned.untuned or label, label)
    against = [_against_start(results, each) for each in both]
    return [
        *pair,
        *[_test_score(results, each) for each in both],
        against[0] if against[0] == against[1] else f" {ARROW} ".join(against),
        *[_score(trial) if trial else "-" for trial in (first, best)],
        found,
        fixed(tuned.search_sd) if tuned.search_sd is not None else "-",
    ]


def _against_start(results: Results, label: str) -> str:
    v = paired_verdict(label, START, results.verdicts, results.primary)
    return v.verdict if v else "-"


def _test_score(results: Results, label: str) -> str:
    result = results.algorithms.get(label)
    summary = result.summary.get(results.primary) if result else None
    return with_error(summary.mean, summary.ci95) if summary else "-"


def _score(trial: TuningTrial) -> str:
    if trial.score is None:
        return trial.state
    if trial.standard_error is None:
        return fixed(trial.score)
    half = 1.96 * trial.standard_error
    return with_error(trial.score, (trial.score - half, trial.score + half))


def changed_settings(first: TuningTrial, best: TuningTrial) -> str:
    """Return what the best trial set otherwise than the first did, such as `beta 0.1 → 0.4`."""
    changes = [
        f"{name} {setting_text(first.settings.get(name, '-'))} {ARROW} {setting_text(value)}"
        for name, value in best.settings.items()
        if value != first.settings.get(name)
    ]
    return ", ".join(changes) or WRITTEN


def expected_cells(curves: Mapping[str, Curve], tuning: Tuning) -> Cells:
    """Return the expected best score of 1, 2, 4, .. trials and of all, or for what these of the dearest label cost."""
    whole = max(curve[-1][0] for curve in curves.values())
    first = 1.0 if tuning.equal == "trials" else whole / max(1, tuning.trials)
    doubled = [first * 2**i for i in range(int(math.log2(whole / first)) + 1)] if first else []
    budgets = [*(budget for budget in doubled if budget < whole * (1 - ROUNDING)), whole]
    scores = {label: [best_within(curve, budget) for budget in budgets] for label, curve in curves.items()}
    headings = ["policy", *[_spent(budget, tuning) for budget in budgets]]
    return headings, [[label, *["-" if x is None else fixed(x) for x in row]] for label, row in scores.items()]


def _spent(amount: float, tuning: Tuning) -> str:
    if tuning.equal == "trials":
        return f"{amount:.0f} trial{'s' if amount > 1 else ''}"
    return f"{format_cost(tuning.equal, amount)} {COST_COLUMNS[tuning.equal]}"


def order_sentence(curves: Mapping[str, Curve], tuning: Tuning) -> str:
    """Return the order of the labels with the settings as written and with all trials, and where it changes."""
    if len(curves) < 2:
        return "One policy was tuned: there is no order."
    ends = [", ".join(sorted(curves, key=lambda label: -curves[label][place][1])) for place in (0, -1)]
    changes = order_changes(curves)
    if not changes:
        return f"By expected best validation score the order is as with the settings as written: {ends[0]}."
    named = [f"{new} passes {old} at {_spent(at, tuning)}" for at, new, old in changes[:MOST_CHANGES]]
    named += [f"{len(changes) - MOST_CHANGES} more changes"] if len(changes) > MOST_CHANGES else []
    return (
        f"By expected best validation score the order is {ends[0]} with the settings as written, and {ends[1]} with "
        f"all trials: {', '.join(named)}."
    )


def cost_cells(results: Results, tuning: Tuning) -> Cells:
    """Return what the trials of each label took, and how many trainings of the comparison that is."""
    columns = [name for name in COST_COLUMNS if any(tuned.spent.get(name) for tuned in tuning.labels.values())]
    headings = [
        "policy",
        "trials",
        "pruned",
        "failed",
        *[COST_COLUMNS[name] for name in columns],
        "in trainings of the comparison",
    ]
    rows = []
    for label, tuned in tuning.labels.items():
        states = [trial.state for trial in tuned.trials]
        seeds = results.algorithms[label].seeds.values() if label in results.algorithms else []
        flops = [trial.ledger.get("flops", 0.0) for trial in seeds]
        spent = tuned.spent.get("flops", 0.0)
        rows.append(
            [
                label,
                *[str(count) for count in (len(states), states.count("pruned"), states.count("failed"))],
                *[format_cost(name, tuned.spent.get(name, 0.0)) for name in columns],
                f"{spent * len(flops) / sum(flops):.1f}" if sum(flops) else "-",
            ]
        )
    totals = [sum(tuned.spent.get(name, 0.0) for tuned in tuning.labels.values()) for name in columns]
    counts = [str(sum(int(row[i]) for row in rows)) for i in (1, 2, 3)]
    rows.append(["all", *counts, *[format_cost(n, total) for n, total in zip(columns, totals, strict=True)], ""])
    return headings, rows


def trial_cells(tuned: TunedLabel, score: str) -> Cells:
    """Return the trials of a label in the order in which they were made."""
    names = list(dict.fromkeys(name for trial in tuned.trials for name in trial.settings))
    shared = any(trial.share < 1 for trial in tuned.trials)
    headings = [
        "trial",
        score,
        *names,
        "KL",
        "tokens",
        *(["share of the budget"] if shared else []),
        "seconds",
        "state",
    ]
    rows = []
    for trial in tuned.trials:
        marks = [
            word for word, holds in (("as written", trial.number == 0), ("won", trial.number == tuned.best)) if holds
        ]
        name = f"{trial.number} ({', '.join(marks)})" if marks else str(trial.number)
        numbers = [fixed(number) if number is not None else "-" for number in (trial.kl, trial.length)]
        numbers += [f"{trial.share:.0%}"] if shared else []
        values = [setting_text(trial.settings.get(name, "-")) for name in names]
        seconds = format_cost("seconds", trial.ledger.get("seconds", 0.0))
        state = f"{trial.state}: {textwrap.shorten(trial.error, LONGEST_ERROR)}" if trial.error else trial.state
        rows.append([name, _score(trial) if trial.score is not None else "-", *values, *numbers, seconds, state])
    return headings, rows


def range_cells(tuned: TunedLabel) -> Cells:
    """Return what was searched."""
    best = best_trial(tuned)
    rows = []
    for name, searched in tuned.space.items():
        if searched.choices is not None:
            span = ", ".join(map(str, searched.choices))
        else:
            span = f"{setting_text(searched.low)} to {setting_text(searched.high)}{' (log)' if searched.log else ''}"
        found = setting_text(best.settings.get(name, "-")) if best else "-"
        rows.append([name, span, found, searched.source or ""])
    return ["setting", "searched", "found", "by"], rows


def tuning_lines(results: Results) -> list[str]:
    """Return a line for each tuned label, for a terminal."""
    lines = []
    for tuning in results.searches.values():
        lines += [note.text for note in tuning.notes if note.text not in results.notes]
        for label, tuned in tuning.labels.items():
            verdict, difference, written, found, against, first, best, settings, _ = _effect(results, label, tuned)
            line = f"{label}: {settings}"
            if tuned.untuned is not None and difference == "-":
                line += f"; {score_name(tuning)} {first} {ARROW} {best}, not compared on test prompts"
            elif tuned.untuned is not None:
                line += f"; test {results.primary} {written} {ARROW} {found}, {difference} {verdict}"
                line += f"; against the start {against}"
            lines.append(line)
    return lines
