"""Warnings as a page shows them: those that say the same of several policies once, and none against the verdict."""

from __future__ import annotations

from prefzoo.report.summary_text import left_open
from prefzoo.results.results_schema import Results
from prefzoo.run.stage_graph import START

OF_THE_VERDICT = ("over_optimization", "slice", "length_explains")
"""Kinds that speak of the difference to the start over all prompts, which has a verdict."""


def warned(results: Results) -> list[str]:
    """The sentences of all warnings, in order."""
    open_ones = {v.a: v for v in results.verdicts if v.metric == results.primary and v.b == START and left_open(v)}
    policies: dict[str, list[str]] = {}
    for sign in results.warnings:
        text = sign.text
        if sign.policy in open_ones and sign.kind in OF_THE_VERDICT:
            v = open_ones[sign.policy]
            text += (
                f" Corrected for {v.family_size} comparisons, the difference in {v.metric} reward over all prompts is "
                "not shown."
            )
        who = sign.policy if sign.policy and text.startswith(f"{sign.policy}: ") else ""
        policies.setdefault(text.removeprefix(who), []).append(who)
    return [", ".join(dict.fromkeys(names)) + told for told, names in policies.items()]
