"""The section on policies that were served: what their users said, as an A/B test."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from prefzoo.errors import PrefzooError
from prefzoo.report.sections import Part, Section, Table, Text
from prefzoo.serving.canary_test import SUSPICIOUS, CanaryTest, canary_tests

FEEDBACK = "feedback.sqlite"
"""In the folder of a run: what its users said."""


def canary_sections(out: Path) -> list[Section]:
    """A section on the canaries of a run, in the order in which they began; none where there was none.

    Args:
        out: the folder of the run.
    """
    try:
        return [_section(test) for test in canary_tests(out / FEEDBACK)]
    except (PrefzooError, sqlite3.Error) as error:  # the rest of the report does not need it
        return [Section("canary", "Served", [Text(f"{out / FEEDBACK} cannot be read: {error}", style="note")])]


def _section(test: CanaryTest) -> Section:
    main, canary = test.main.policy, test.canary.policy
    rows = []
    for arm in (test.main, test.canary):
        share = f"{sum(arm.liked) / len(arm.liked):.1%}" if arm.liked else "-"
        low, high = arm.interval
        rows.append(
            [
                arm.policy,
                str(arm.conversations),
                str(len(arm.liked)),
                share,
                f"{low:.1%} to {high:.1%}" if arm.liked else "-",
            ]
        )
    heads = ["policy", "conversations", "with a thumb", "thumbs up", "97.5% interval"]
    parts: list[Part] = [
        Text(_sentence(test), style="verdict"),
        Table((heads, rows), f"{canary} and {main}, as users saw them"),
    ]
    if test.won:
        low, high = test.won_interval
        parts.append(
            Text(
                f"Side by side, {canary} won {sum(test.won) / len(test.won):.1%} of {len(test.won)} comparisons "
                f"(95% {low:.1%} to {high:.1%}); ties and pairs of which both are bad count half.",
                style="",
            )
        )
    if abs(test.imbalance) > SUSPICIOUS:
        parts.append(
            Text(
                f"{canary} has {'more' if test.imbalance > 0 else 'fewer'} conversations than its share by "
                f"{abs(test.imbalance):.1f} standard deviations: something else than the draw divides them, and the "
                "comparison is not to be trusted.",
                style="note",
            )
        )
    parts.append(
        Text(
            "Conversations were divided at random; each counts once, by the first thumb in it. The intervals hold "
            "however often one looks (Waudby-Smith and Ramdas 2024); that of the difference joins those of the two "
            "policies. Users who give no thumb are not in it."
        )
    )
    return Section("canary", f"Served: {canary} beside {main}", parts)


def _sentence(test: CanaryTest) -> str:
    main, canary = test.main.policy, test.canary.policy
    if test.difference is None:
        return f"Not both of {canary} and {main} have a thumb yet."
    low, high = test.interval
    found = {"better": "is liked more than", "worse": "is liked less than"}.get(test.verdict)
    said = f"{canary} {found} {main}" if found else f"Whether {canary} is liked more than {main} is inconclusive"
    return f"{said}: {test.difference:+.1%} thumbs up (95% {low:+.1%} to {high:+.1%})."
