"""The section on people's answers: win rates by the judge alone, by people alone, and joined."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from prefzoo.report import axes
from prefzoo.report.annotators import annotator_facts
from prefzoo.report.figures import draw
from prefzoo.report.sections import PROSE, Cells, Figures, Fold, Part, Picture, Points, Section, Table, Text
from prefzoo.report.summary_text import INSTRUMENTS, rate
from prefzoo.results.human_schema import Human, HumanPair, WinRate
from prefzoo.results.number_format import fixed, interval
from prefzoo.results.results_schema import Results

PICTURE = "people"
FEW_CONTRADICTIONS = 5
"""Below this number the error of a judge is hardly known (docs/people-and-judges.md)."""
MOST_DRAWN = 8
"""Pairs in the picture."""


def human_section(results: Results, drawn: Mapping[str, Picture]) -> Section:
    """Return the section; empty where the recipe names no answers, or none could be read."""
    human = results.human
    if human is None or human.problem is not None:
        return Section("people", "", [])
    parts: list[Part] = [Points([counts(human), *readings(human), *annotator_facts(_named(human))])]
    if human.pairs:
        parts += [
            Table(rate_cells(human), "win rates by people and the judge", key="people"),
            *([Figures([drawn[PICTURE]])] if PICTURE in drawn else []),
            Text(PROSE["people"].format(instrument=INSTRUMENTS[human.instrument])),
            Fold("What more answers brought", [Table(growth_cells(human), "by number of answers")], only=("html",)),
        ]
    return Section("people", "People's answers", parts)


def _named(human: Human) -> dict[str, dict[str, object]]:
    return {"test replies": human.annotators} if human.annotators.get("items_with_several") else {}


def counts(human: Human) -> str:
    """Return how many answers are used, and why others are not."""
    text = f"{human.used} of {human.answers} answers in {human.file} are used, {human.weighting}"
    if human.unused:
        text += "; not used: " + ", ".join(f"{count} ({reason})" for reason, count in human.unused.items())
    return f"{text}."


def readings(human: Human) -> list[str]:
    """Return for each pair how far the judge agrees with people, and what it was good for."""
    who = INSTRUMENTS[human.instrument]
    lines = []
    for pair in human.pairs:
        text = f"{pair.a} - {pair.b}: people answered {pair.answered} of {pair.replies - pair.same_replies} pairs"
        text += " of different replies"
        text += f" ({pair.ties} ties, {pair.both_bad} of them both bad)" if pair.ties else ""
        if pair.agreement is not None:
            low, high = pair.agreement.ci95
            text += f"; {who} prefers the same reply in {pair.agreement.share:.0%} of {pair.agreement.count}"
            text += f" (95% {low:.0%} to {high:.0%})"
        saved = round(pair.worth) - pair.answered
        text += f"; with it they are worth {round(pair.worth)}: {saved} saved" if saved > 0 else "; it saves none"
        low, high = pair.joined.ci95
        if not low <= pair.judge.mean <= high:
            text += f". {who.capitalize()} alone says {fixed(pair.judge.mean)}, which people's answers rule out"
        lines.append(f"{text}.")
        if pair.slope > 0 and pair.agreement is not None:
            against = pair.agreement.count - round(pair.agreement.share * pair.agreement.count)
            if against < FEW_CONTRADICTIONS:
                lines.append(
                    f"{pair.a} - {pair.b}: people contradicted {who} {against} times, which tells little of how often "
                    "it is wrong; the joined interval is a rough one."
                )
        if len(pair.seeds) == 1:
            lines.append(f"{pair.a} - {pair.b}: only seed {pair.seeds[0]} has answers; no other training is covered.")
    return lines


def rate_cells(human: Human) -> Cells:
    """Return a row for each pair of policies."""
    columns = [f"{INSTRUMENTS[human.instrument].removeprefix('the ')} alone [95%]", "people alone [95%]"]
    headings = ["pair", "answered", *columns, "joined [95%]", "joined, these trainings [95%]", "agree", "worth"]
    return headings, [_row(pair) for pair in human.pairs]


def _row(pair: HumanPair) -> list[str]:
    return [
        f"{pair.a} - {pair.b}",
        str(pair.answered),
        *[rate(each) for each in (pair.judge, pair.people, pair.joined)],
        interval(*pair.joined.ci95_of_prompts, sign=""),
        "-" if pair.agreement is None else f"{pair.agreement.share:.0%}",
        f"{pair.worth:.0f}",
    ]


def growth_cells(human: Human) -> Cells:
    """Return a row for each number of answers of a pair, in the order in which they were given."""

    def width(each: WinRate) -> str:
        return f"{fixed(each.mean)}, {each.ci95_of_prompts[1] - each.ci95_of_prompts[0]:.2f} wide"

    rows = [
        [f"{pair.a} - {pair.b}", str(step.answered), width(step.people), width(step.joined)]
        for pair in human.pairs
        for step in pair.so_far
    ]
    return ["pair", "answered", "people alone", "joined"], rows


def human_pictures(results: Results) -> list[Picture]:
    """Draw the win rates; nothing where there are none."""
    if results.human is None or not results.human.pairs:
        return []
    human = results.human
    pairs, name = human.pairs[:MOST_DRAWN], INSTRUMENTS[human.instrument].removeprefix("the ")
    text = "; ".join(
        f"{pair.a} - {pair.b} {name} {rate(pair.judge)}, people {rate(pair.people)}, joined {rate(pair.joined)}"
        for pair in pairs
    )
    drawing = partial(axes.win_rates, pairs=pairs, instrument=name)
    return [draw(PICTURE, PROSE["people_picture"], text, drawing, 1.5 + 0.62 * len(pairs))]
