"""The section on policies that were served: what their users said, as an A/B test."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

from prefzoo.atomic_files import read_json, write_whole
from prefzoo.errors import PrefzooError
from prefzoo.report.sections import Part, Section, Table, Text
from prefzoo.serving.canary_test import SUSPICIOUS, CanaryTest, canary_tests

FEEDBACK = "feedback.sqlite"
"""In the folder of a run: what its users said."""
ELSEWHERE = "feedback_files.json"
"""In the folder of a run: other files in which a server of its policies kept what users said."""


def feedback_files(out: Path) -> list[Path]:
    """Return the files of a run's feedback, wherever they are."""
    try:
        elsewhere = [Path(str(file)) for file in read_json(out / ELSEWHERE, list)]
    except PrefzooError:
        elsewhere = []
    return [out / FEEDBACK, *elsewhere]


def note_feedback_file(out: Path, path: Path) -> None:
    """Write down that a server of this run keeps feedback in `path`, so that the report finds it."""
    known = {file.resolve(): None for file in feedback_files(out)}
    if path.resolve() not in known:
        write_whole(out / ELSEWHERE, json.dumps([str(file) for file in (*list(known)[1:], path.resolve())]))


def canary_sections(out: Path) -> list[Section]:
    """A section on the canaries of a run, in the order in which they began; none where there was none.

    Args:
        out: the folder of the run.
    """
    sections: list[Section] = []
    for file in feedback_files(out):
        try:
            sections += [_section(test) for test in canary_tests(file)]
        except (PrefzooError, sqlite3.Error) as error:  # the rest of the report does not need it
            sections.append(Section("canary", "Served", [Text(f"{file} cannot be read: {error}", style="note")]))
    return sections


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
