"""What policies make of the chosen and rejected replies of test pairs, in numbers and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prefzoo.report.sections import PROSE, Cells, Figures, Part, Picture, Points, Section, Table, Text
from prefzoo.results.analysis import PAIRS
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results, Summary
from prefzoo.results.trial_metrics import ACCURACIES

COLUMNS = {
    "implicit_accuracy": "right by log-ratio [95%]",
    "likelihood_accuracy": "right by likelihood [95%]",
    "chosen": "chosen, nats",
    "rejected": "rejected, nats",
    "margin": "margin, nats [95%]",
    "gold_correlation": "correlation with gold",
}
CHANCE = 0.5


def likelihood_section(results: Results, labels: Sequence[str], drawn: Mapping[str, Picture]) -> Section:
    """Return the section; empty where no policy was measured on pairs. `labels` in the order of the rows."""
    cells = likelihood_cells(results, labels)
    if not cells[1]:
        return Section("likelihood", "", [])
    parts: list[Part] = [Points(sentences)] if (sentences := readings(results, labels)) else []
    parts += [
        Table(cells, "what policies make of test pairs", key="test pairs"),
        *([Figures([drawn["likelihoods"]])] if "likelihoods" in drawn else []),
        Text(PROSE["likelihoods"]),
    ]
    return Section("likelihood", "Chosen and rejected replies", parts)


def likelihood_cells(results: Results, labels: Sequence[str]) -> Cells:
    """Return a row for each policy that scores tokens."""
    found = {label: _numbers(results, label) for label in labels}
    columns = [name for name in COLUMNS if any(name in numbers for numbers in found.values())]
    rows = [[label, *[_cell(name, numbers) for name in columns]] for label, numbers in found.items() if numbers]
    return ["policy", *[COLUMNS[name] for name in columns]], rows if columns else []


def readings(results: Results, labels: Sequence[str]) -> list[str]:
    """Return what was seen of which policies, in sentences; a policy may be in several."""
    seen: dict[str, list[str]] = {}
    for label in labels:
        numbers = _numbers(results, label)
        for name in _patterns(numbers, results.algorithms[label].over_start.get(results.primary)):
            seen.setdefault(name, []).append(label)
        if "unlikely" in numbers:
            seen[f"{label}: {numbers['unlikely'].mean:.0%} {PROSE['likelihood_unlikely']}"] = []
    ordered = sorted(seen, key=lambda name: [*PATTERNS, name].index(name))
    return [f"{', '.join(seen[name])}: {PROSE[name]}" if seen[name] else name for name in ordered]


PATTERNS = (
    "likelihood_intended",
    "likelihood_rejected_fell",
    "likelihood_displaced",
    "likelihood_both_rose",
    "likelihood_no_margin",
    "likelihood_wrong_way",
    "likelihood_ranks_and_loses",
    "likelihood_gains_without_ranking",
)
"""What may be seen, by the name of its sentence."""


def _patterns(numbers: Mapping[str, Summary], gain: Summary | None) -> list[str]:
    """Return the names of what is seen of one policy; a change counts where its 95% interval leaves out 0."""
    if "margin" not in numbers:
        return []
    chosen, rejected, margin = (_sign(numbers[name]) for name in ("chosen", "rejected", "margin"))
    accuracy = _sign(numbers["implicit_accuracy"], CHANCE)
    if margin <= 0:
        found = ["likelihood_wrong_way" if margin < 0 else "likelihood_no_margin"]
    elif chosen < 0 and rejected < 0:
        found = ["likelihood_displaced"]
    elif chosen > 0 and rejected > 0:
        found = ["likelihood_both_rose"]
    else:
        found = ["likelihood_intended" if chosen > 0 else "likelihood_rejected_fell"]
    if accuracy > 0 and gain is not None and _sign(gain) < 0:
        found.append("likelihood_ranks_and_loses")
    if accuracy <= 0 and gain is not None and _sign(gain) > 0:
        found.append("likelihood_gains_without_ranking")
    return found


def _sign(summary: Summary, zero: float = 0.0) -> int:
    """Return 1 or -1 where the interval is above or below `zero`, else 0."""
    if summary.ci95 is None:
        return 0
    return int(summary.ci95[0] > zero) - int(summary.ci95[1] < zero)


def _numbers(results: Results, label: str) -> dict[str, Summary]:
    summary = results.algorithms[label].summary
    return {name.removeprefix(PAIRS): value for name, value in summary.items() if name.startswith(PAIRS)}


def _cell(name: str, numbers: Mapping[str, Summary]) -> str:
    if name not in numbers:
        return "-"
    summary = numbers[name]
    share = f"{PAIRS}{name}" in ACCURACIES
    text = fixed(summary.mean) if share else fixed(summary.mean, "+.2f")
    if summary.ci95 and (share or name == "margin"):
        text += f" {interval(*summary.ci95, sign='' if share else '+')}"
    return text
