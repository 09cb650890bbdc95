"""Judges that answer in words: an oracle through every way of answering, one that always says A, failures, grades."""

from __future__ import annotations

import math
import re

import pytest

from prefzoo import lab
from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Response
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.prompt_templates import judge_templates
from prefzoo.judges.text_judge import TextJudge, soft_verdict
from prefzoo.ledger import Ledger

LOG = math.log
WAYS = {
    "text": lambda letter: Response(letter),
    "brackets": lambda letter: Response(f"**[[{letter}]]**, because it is kinder."),
    "JSON": lambda letter: Response(f'```json\n{{"verdict": "{letter}"}}\n```'),
    "log-probabilities": lambda letter: Response(
        "?", {" A": LOG(0.8 if letter == "A" else 0.1), " B": LOG(0.15 if letter == "A" else 0.9)}
    ),
    "one log-probability": lambda letter: Response(letter, {letter: LOG(0.9), "Hm": LOG(0.05)}),
    "log-probabilities of something else": lambda letter: Response(
        f"[[{letter}]]", {"[[": LOG(0.99), "A": LOG(0.004), "B": LOG(0.001)}
    ),
    "reasoning": lambda letter: Response(f"A is kind. B is right. I first thought: [[A]].\n[[{letter}]]"),
}


@pytest.fixture(scope="module")
def pairs():
    """Prompts with two replies of different gold, in either order."""
    rows = [row for row in lab.preferences("test", 60, 11)]
    kept = [
        ([{"role": "user", "content": row["prompt"]}], *((row["chosen"], row["rejected"])[:: 1 if i % 2 else -1]))
        for i, row in enumerate(rows)
        if lab.gold(row["prompt"], row["chosen"]) != lab.gold(row["prompt"], row["rejected"])
    ]
    prompts, first, second = zip(*kept, strict=True)
    better = [lab.gold(p[0]["content"], a) > lab.gold(p[0]["content"], b) for p, a, b in kept]
    assert 10 < sum(better) < len(better) - 10
    return prompts, first, second, better


class Oracle:
    """Reads the question as it was put, as a model would, and answers by gold in a way of its own."""

    def __init__(self, way, turned: bool = False) -> None:
        self.way, self.turned, self.flops = way, turned, 0.0

    def __call__(self, conversations, max_new_tokens):
        self.flops += 100.0 * len(conversations)
        return [self.way(self.letter(each[-1]["content"])) for each in conversations]

    def letter(self, asked: str) -> str:
        found = re.search(r"user: (.*)\n\nReply A: (.*)\n\nReply B: (.*)\n\n", asked, re.DOTALL)
        prompt, a, b = found.groups()
        return "A" if (lab.gold(prompt, a) > lab.gold(prompt, b)) != self.turned else "B"


def judge_with(client, reasoning: bool = False, **settings):
    settings = {"verdict": "generated", "reasoning": reasoning, **settings}
    return TextJudge(client, judge_templates(JudgeSettings(**settings)), reasoning)


@pytest.mark.parametrize("way", WAYS)
def test_an_oracle_agrees_with_gold_in_both_orders_however_it_answers(pairs, way) -> None:
    prompts, first, second, better = pairs
    judge = judge_with(Oracle(WAYS[way]), reasoning=way == "reasoning")
    assert [p > 0.5 for p in judge(prompts, first, second)] == better
    assert [p < 0.5 for p in judge(prompts, second, first)] == better
    report = judge.report()
    assert report["failures"] == report["ties"] == report["inconsistent"] == 0
    assert report["first_preferred"] * 2 == report["questions"]
    turned = judge_with(Oracle(WAYS[way], turned=True), reasoning=way == "reasoning")
    assert [p < 0.5 for p in turned(prompts, first, second)] == better, "a mapping mistake would be seen"


@pytest.mark.parametrize("way", WAYS)
def test_one_that_always_says_a_is_all_position_bias(pairs, way) -> None:
    prompts, first, second, _ = pairs
    judge = judge_with(lambda asked, _: [WAYS[way]("A")] * len(asked), reasoning=way == "reasoning")
    assert set(judge(prompts, first, second)) == {0.5}
    report = judge.report()
    assert report["ties"] == report["inconsistent"] == report["pairs"] == len(prompts)
    assert report["first_preferred"] == report["questions"] and report["failures"] == 0


def test_soft_verdicts_by_hand() -> None:
    assert soft_verdict({"A": LOG(0.6), " A": LOG(0.12), "B": LOG(0.18)}) == pytest.approx(0.8)
    # B is not listed: it has at most what the last of those listed has (0.04), and at most what is left (0.06).
    assert soft_verdict({"A": LOG(0.9), "The": LOG(0.04)}) == pytest.approx(0.9 / 0.94)
    assert soft_verdict({"\nB": LOG(0.96), "x": LOG(0.03)}) == pytest.approx(0.01 / 0.97)
    assert soft_verdict({"The": LOG(0.6), "A": LOG(0.3), "B": LOG(0.1)}) is None
    assert soft_verdict({}) is None


def test_reasoning_is_not_read_by_its_first_token() -> None:
    said = Response("A is short, yet B is right.\n[[B]]", {"A": LOG(0.99)})
    (p,) = judge_with(lambda asked, _: [said] * len(asked), reasoning=True).compare_once([[]], ["x"], ["y"], [None])
    assert p == 0.0


def test_what_cannot_be_read_is_counted_shown_and_decides_nothing() -> None:
    """Of 4 pairs in both orders: 3 pairs with one readable order each, 1 with none; 5 of 8 answers fail."""
    first = [Response("A"), Response("Both have merits. " * 40), Response("", failure="HTTP 500"), Response("A or B")]
    second = [Response("", failure="timed out"), Response("B"), Response("A"), Response("Hm.")]
    answers = iter([first, second])
    judge = judge_with(lambda asked, _: next(answers))
    assert judge([[]] * 4, list("aceg"), list("bdfh")) == [0.75, 0.75, 0.25, 0.5]
    report = judge.report()
    assert report["failures"] == 5 and report["unanswered"] == 2 and report["questions"] == 8
    examples = report["failure_examples"]
    assert [each["failure"] for each in examples] == ["unreadable", "HTTP 500", "unreadable", "timed out", "unreadable"]
    assert examples[0]["answer"].startswith("Both have merits.") and len(examples[0]["answer"]) == 300


def test_only_the_first_few_failures_are_shown() -> None:
    judge = judge_with(lambda asked, _: [Response("?")] * len(asked))
    assert set(judge([[]] * 20, ["x"] * 20, ["y"] * 20)) == {0.5}
    assert judge.report()["failures"] == 40 and len(judge.report()["failure_examples"]) == 5


def test_grades_out_of_words() -> None:
    answers = [
        Response("7"),
        Response("[[9]]: it is kind."),
        Response("It is fine."),
        Response("", failure="timed out"),
        Response("12"),
    ]
    judge = judge_with(lambda asked, _: answers)
    assert judge.grade([[]] * 5, list("abcde")) == [7.0, 9.0, None, None, None]
    report = judge.report()
    assert (report["grades"], report["questions"], report["failures"], report["unanswered"]) == (5, 5, 3, 1)
    assert "Reply: c" not in str(report["failure_examples"])


def test_grades_are_asked_for_the_reply_that_they_are_of() -> None:
    def lengths(asked, _):
        replies = [re.search("Reply: (.*)", each[-1]["content"])[1] for each in asked]
        return [Response(f"[[{len(reply)}]]") for reply in replies]

    for reasoning in (False, True):
        judge = judge_with(lengths, reasoning)
        assert judge.grade([[{"role": "user", "content": "Q"}]] * 3, ["abc", "", "abcdefghij"]) == [3, 0, 10]


def test_a_principle_is_asked_and_never_dropped() -> None:
    asked = []

    def client(conversations, max_new_tokens):
        asked.extend(each[-1]["content"] for each in conversations)
        return [Response("A")] * len(conversations)

    judge = judge_with(client)
    judge([[], []], ["x", "x"], ["y", "y"], ["Which reply is kinder?", None])
    assert ["Which reply is kinder?" in each for each in asked] == [True, False, True, False]


def test_how_long_answers_may_be_and_operations() -> None:
    lengths = []

    def client(conversations, max_new_tokens):
        lengths.append(max_new_tokens)
        return [Response("A")] * len(conversations)

    words = judge_templates(JudgeSettings())
    for judge in (TextJudge(client, words), TextJudge(client, words, True), TextJudge(client, words, True, 99)):
        judge([[]], ["x"], ["y"])
    assert lengths == [16, 16, 512, 512, 99, 99]
    oracle = Oracle(WAYS["text"])
    oracle.letter = lambda asked: "A"
    judge, ledger = judge_with(oracle), Ledger()
    ledger.judged(judge, lambda: judge([[]] * 3, ["x"] * 3, ["y"] * 3))
    assert ledger.judge_calls == 6 and ledger.flops == 600.0


def test_a_judge_that_does_not_grade_says_so() -> None:
    judge = TextJudge(Oracle(WAYS["text"]), judge_templates(JudgeSettings(), lab=True), name="the judge lab")
    with pytest.raises(PrefzooError, match=r"the judge lab compares replies, but does not grade them .* judge\.path"):
        judge.grade([[]], ["x"])
