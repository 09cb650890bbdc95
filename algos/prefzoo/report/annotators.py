"""How several people judged the data, and by which rule their judgements became preferences, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefzoo.data.agreement import wilson

RULES = {
    "majority": "A pair is what most of them say.",
    "soft": "Every vote is a pair, so that votes count by their share.",
    "reliability": "A pair is what is likelier, each of them weighed by how often it is found to be right (one-coin "
    "Dawid-Skene), which takes for granted that most of what is said is right.",
}
PAIRS = {
    "all": "every two that differ",
    "adjacent": "neighbours only",
    "plackett_luce": "every two by their Plackett-Luce strengths, which all rankings of a prompt give together",
}
SHOWN = 12


def pair_facts(pairs_by: Mapping[str, str]) -> list[str]:
    """Which replies of rankings and of ratings are paired, by kind of data."""
    means = "; a rating is the mean of all that a reply got"
    return [
        f"Pairs of {kind}: {PAIRS[rule]}{means if kind == 'ratings' and rule != 'plackett_luce' else ''}."
        for kind, rule in pairs_by.items()
    ]


def annotator_facts(annotators: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What `data.agreement` found, by kind of data."""
    lines = []
    for kind, found in annotators.items():
        several = found["items_with_several"]
        text = f"Annotators ({kind}): {found['judgements']} judgements of {found['items']} items"
        if ties := found.get("ties"):
            text += f", of which {ties} say that neither reply is better"
        if several:
            share = found["disagreed"] / several
            text += f"; they disagree on {found['disagreed']} of the {several} that several judged ({share:.0%})"
            if (same := found.get("observed_agreement")) is not None:
                text += f"; two judgements of one item are the same in {same:.0%}"
            if (alpha := found.get("alpha")) is not None:
                text += f"; Krippendorff's alpha {alpha:.2f} (1: always agree, 0: as by chance)"
        lines.append(f"{text}.")
        if several and (rule := found.get("rule")):
            lines[-1] += f" {RULES[rule]}"
        lines += _people(kind, found.get("annotators", {}))
    return lines


def _people(kind: str, people: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Each annotator whom others can be compared with, who agrees least first."""
    compared = {name: found for name, found in people.items() if found["compared"]}
    order = sorted(compared, key=lambda name: compared[name]["agreed"] / compared[name]["compared"])
    if not order:
        return []
    more = f"; and {len(order) - SHOWN} more (preflight.json)" if len(order) > SHOWN else ""
    each = "; ".join(_person(name, compared[name]) for name in order[:SHOWN])
    return [f"By annotator ({kind}), agreement with most of the others, least first: {each}{more}."]


def _person(name: str, found: Mapping[str, Any]) -> str:
    share = found["agreed"] / found["compared"]
    low, high = wilson(share, found["compared"])
    text = f"{name} {share:.0%} of {found['compared']} (95% {low:.0%} to {high:.0%}"
    if high < 0.5:
        text += ", against the others"
    elif low <= 0.5:
        text += ", not told from chance"
    if (reliability := found.get("reliability")) is not None:
        text += f"; right in {reliability:.0%} of {found['judgements']} by the model"
    return text + ")"
