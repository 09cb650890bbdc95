"""Verdicts and grades out of text: what is said is read, and what is not clear is nobody's."""

from __future__ import annotations

import pytest

from prefzoo.feedback.judges.verdicts import read_grade, read_verdict

VERDICTS = {
    1.0: [
        "A",
        " a\n",
        "**A**",
        "(A)",
        "[[A]]",
        "\\boxed{A}",
        "A.",
        "Reply A",
        "Answer: A",
        "Verdict: A.",
        "**Verdict:** A",
        "**Verdict: A**",
        "The answer is A.",
        "The better reply is A",
        "My choice is Reply A.",
        "I prefer A.",
        "I would go with reply A, for it is honest.",
        "A is better than B.",
        "Reply A is clearly better.",
        "A, because it is polite.",
        "A because B is rude",
        "A\n\nIt answers the question, and B does not.",
        "Both are polite.\n\nA",
        "Verdict - A",
        "Answer \u2014 A",
        "A \u2013 it is the honest one",
        "<think>B? No, B is better... hm. Verdict: B</think>\nA",
        "B is better</think>A",
    ],
    0.0: [
        "B",
        "b.",
        "Answer: B",
        "verdict: b",
        "Reply B is better.",
        "I choose B.",
        "B wins.",
        "<think>\n</think>\n\nB",
    ],
    0.5: [
        "tie",
        "Verdict: tie",
        "It is a tie.",
        "A tie",
        "**Tie.**",
        "Both replies are equally good.",
        "equal",
        "a draw",
    ],
    None: [
        "",
        "  \n",
        "C",
        "A or B",
        "A/B",
        "A and B",
        "Answer: A or B",
        "Verdict: A / B",
        "Answer: A. Answer: B.",
        "A good reply is kind.",
        "Answer: A good reply is kind.",
        "Reply A is polite; reply B is not.",
        "A: polite. B: rude.",
        "A is not better.",
        "I do not prefer A.",
        "I don't choose B.",
        "Which reply is better? Answer with one letter, A or B.",
        "As a model I cannot say.",
        "Apples",
        "<think>A is better. Verdict: A",
        "A\n\nB",
    ],
}


@pytest.mark.parametrize(("value", "text"), [(value, text) for value, texts in VERDICTS.items() for text in texts])
def test_verdicts(value: float | None, text: str) -> None:
    assert read_verdict(text) == value


REASONED = {
    "A is kind. B is correct, and that counts more.\nVerdict: B": 0.0,
    "A is better in tone. B is better in substance.\n\n**Verdict: A**\n\nThough B is better on length.": 1.0,
    "First I thought: Verdict: A. But the price is wrong.\nVerdict: B": 0.0,
    "Both say the same.\nVerdict: tie": 0.5,
    "Reply B is rude. Overall, reply A is better.": 1.0,
    "A: polite.\nB: rude.\nA": 1.0,
    "A\npolite\nB\nrude": None,
    "A: polite. B: rude": None,
    "A. The first reply is": None,
    'end with a line that says "Verdict: A" or "Verdict: B", or "Verdict: tie" if neither is better': None,
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
    "8 out of 10": 8,
    "Grade: 6": 6,
    "Rating: 9/10": 9,
    "I give it 4/10, since it is rude.": 4,
    "My score is 3.": 3,
    "7\n\nIt is polite.": 7,
    "": None,
    "good": None,
    "11": None,
    "-3": None,
    "85/100": None,
    "70%": None,
    "6-7": None,
    "6 or 7": None,
    "Grade: 6. Grade: 8.": None,
    "It states 2 prices and 3 dates.": None,
    "7,5": None,
    "<think>9": None,
}


@pytest.mark.parametrize("text", GRADES)
def test_grades(text: str) -> None:
    assert read_grade(text) == GRADES[text]


def test_the_last_grade_after_reasoning() -> None:
    assert read_grade("At first sight 8/10. But the value is wrong.\nGrade: 3", reasoning=True) == 3
    assert read_grade("It names 2 values.\n\n6", reasoning=True) == 6
    assert read_grade("It names 2 values of 5.", reasoning=True) is None
