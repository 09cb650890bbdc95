"""Verdicts and grades out of text: what has the form that was asked for is read, and the rest is nobody's."""

from __future__ import annotations

import pytest

from prefzoo.judges.verdict_parsing import read_grade, read_verdict

VERDICTS = {
    1.0: [
        "A",
        " a\n",
        "**A**",
        "_A_",
        "(A)",
        "`A`",
        "A.",
        "[[A]]",
        "[[ a ]]",
        "**[[A]]**",
        "Reply [[A]] is better.",
        "[[A]] because B is rude. B is worse, so: [[A]]",
        "A\n\nIt answers the question, and B does not.",
        '{"verdict": "A"}',
        '```json\n{\n  "reason": "B is rude",\n  "verdict": "A"\n}\n```',
        '{"verdict":"a","reason":"kind"}',
        "<think>B? No, B is better... hm. [[B]]</think>\nA",
        "[[B]]</think>A",
    ],
    0.0: ["B", "b.", "[[B]]", '"B"', "<think>\n</think>\n\nB", "A is polite, and yet: [[B]]", '{"verdict": "B"}'],
    0.5: ["tie", "**Tie.**", "C", "[[C]]", "[[tie]]", '{"verdict": "tie"}', "Both are equally good: [[C]]"],
    None: [
        "",
        "  \n",
        "D",
        "[[D]]",
        "[[A or B]]",
        "[[A]] or [[B]]",
        "[[A]]\n[[B]]",
        "[A>B]",
        "A or B",
        "A/B",
        "A and B",
        "A, B",
        "A. B.",
        "A\n\nB",
        "A\npolite\nB\nrude",
        "A. Polite.\nB. Rude.",
        "A: 7, B: 5",
        "A, because it is polite.",
        "Answer: A",
        "Verdict: A",
        "Reply A is better.",
        "A is better than B.",
        "A good reply is kind.",
        "Both are polite.\n\nA",
        "As a model I cannot say.",
        "Apples",
        "not A",
        "A?",
        "A/10",
        "It is a tie.",
        "equal",
        '{"verdict": "A or B"}',
        '{"verdict": "A"}, {"verdict": "B"}',
        '{"answer": "A"}',
        "<think>A is better. [[A]]",
        "I'm sorry, but I can't compare A and B.",
    ],
}


@pytest.mark.parametrize(("value", "text"), [(value, text) for value, texts in VERDICTS.items() for text in texts])
def test_verdicts(value: float | None, text: str) -> None:
    assert read_verdict(text) == value


REASONED = {
    "A is kind. B is correct, and that counts more.\n[[B]]": 0.0,
    "A is better in tone. B is better in substance.\n\n**[[A]]**\n\nThough B is better on length.": 1.0,
    "First I thought: [[A]]. But the price is wrong.\n[[B]]": 0.0,
    "Both say the same.\n[[C]]": 0.5,
    "A: polite.\nB: rude.\nA": 1.0,
    'Hm.\n{"reason": "kind", "verdict": "A"}': 1.0,
    "First I thought: [[A]].\n\nB": 1.0,  # brackets go before a bare letter
    "A\npolite\nB\nrude": None,
    "A: polite. B: rude": None,
    "Reply B is rude. Overall, reply A is better.": None,
    "Both are fine.\nVerdict: A": None,
    "A. The first reply is": None,
    "[[A]] or [[B]]": None,
    "Hm: [[A]].\nend with a line of its own: [[A]] or [[B]], or [[C]] if neither is better.": None,
    "": None,
}


@pytest.mark.parametrize("text", REASONED)
def test_the_last_verdict_after_reasoning(text: str) -> None:
    assert read_verdict(text, reasoning=True) == REASONED[text]


GRADES = {
    "7": 7,
    " 10.": 10,
    "**8**": 8,
    "0": 0,
    "7.5": 7.5,
    "8/10": 8,
    "[[6]]": 6,
    "[[ 9/10 ]] since it is kind": 9,
    '{"grade": 6}': 6,
    '{"grade": "6", "reason": "kind"}': 6,
    "7\n\nIt is polite.": 7,
    "": None,
    "good": None,
    "11": None,
    "[[11]]": None,
    "-3": None,
    "85/100": None,
    "70%": None,
    "6-7": None,
    "6 or 7": None,
    "[[6]] [[8]]": None,
    "Grade: 6": None,
    "8 out of 10": None,
    "I give it 4/10, since it is rude.": None,
    "It states 2 prices and 3 dates.": None,
    "7,5": None,
    '{"grade": 61.5}': None,
    '{"grade": 6-7}': None,
    "<think>9": None,
}


@pytest.mark.parametrize("text", GRADES)
def test_grades(text: str) -> None:
    assert read_grade(text) == GRADES[text]


def test_the_last_grade_after_reasoning() -> None:
    assert read_grade("At first sight [[8]]. But the value is wrong.\n[[3]]", reasoning=True) == 3
    assert read_grade("It names 2 values.\n\n6", reasoning=True) == 6
    assert read_grade("It names 2 values of 5.", reasoning=True) is None
