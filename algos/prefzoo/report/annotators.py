"""Sentences on how several people judged the data, and by which rule their judgements became preferences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefzoo.data.agreement import wilson
from prefzoo.report.sections import PROSE

PAIRS = {
    "all": "every two that differ",
    "adjacent": "neighbours only",
    "plackett_luce": "every two by their Plackett-Luce strengths, which all rankings of a prompt give together",
}
MOST_NAMED = 12
"""Annotators of one kind of data that are named."""


def pair_facts(pairs_by: Mapping[str, str]) -> list[str]:
    """Return which replies of rankings and of ratings are paired, by kind of data."""
    means = "; a rating is the mean of all that a reply got"
    return [
        f"Pairs of {kind}: {PAIRS[rule]}{means if kind == 'ratings' and rule != 'plackett_luce' else ''}."
        for kind, rule in pairs_by.items()
    ]


def annotator_facts(annotators: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what `data.agreement` measured, by kind of data."""
    lines = []
    for kind, agreement in annotators.items():
        several = agreement["items_with_several"]
        text = f"Annotators ({kind}): {agreement['judgements']} judgements of {agreement['items']} items"
        if ties := agreement.get("ties"):
            text += f", of which {ties} say that neither reply is better"
        if several:
            share = agreement["disagreed"] / several
            text += f"; they disagree on {agreement['disagreed']} of the {several} that several judged ({share:.0%})"
            if (same := agreement.get("observed_agreement")) is not None:
                text += f"; two judgements of one item are the same in {same:.0%}"
            if (alpha := agreement.get("alpha")) is not None:
                text += f"; Krippendorff's alpha {alpha:.2f} (1: always agree, 0: as by chance)"
        if (seconds := agreement.get("median_seconds")) is not None:
            text += f"; half of the judgements took {seconds:.1f} s or less"
        lines.append(f"{text}.")
        if several and (rule := agreement.get("rule")):
            lines[-1] += f" {PROSE[rule]}"
        lines += _people(kind, agreement.get("annotators", {}))
    return lines


def _people(kind: str, people: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return a sentence on the annotators who share items with others, those who agree least first."""
    compared = {name: person for name, person in people.items() if person["compared"]}
    order = sorted(compared, key=lambda name: compared[name]["agreed"] / compared[name]["compared"])
    if not order:
        return []
    more = f"; and {len(order) - MOST_NAMED} more (preflight.json)" if len(order) > MOST_NAMED else ""
    shares = "; ".join(_person(name, compared[name]) for name in order[:MOST_NAMED])
    return [f"By annotator ({kind}), agreement with most of the others, least first: {shares}{more}."]


def _person(name: str, person: Mapping[str, Any]) -> str:
    share = person["agreed"] / person["compared"]
    low, high = wilson(share, person["compared"])
    text = f"{name} {share:.0%} of {person['compared']} (95% {low:.0%} to {high:.0%}"
    if high < 0.5:
        text += ", against the others"
    elif low <= 0.5:
        text += ", not told from chance"
    if (reliability := person.get("reliability")) is not None:
        text += f"; right in {reliability:.0%} of {person['judgements']} by the model"
    if (seconds := person.get("median_seconds")) is not None:
        text += f"; {seconds:.1f} s each"
    return text + ")"
