"""Evaluation by dimensions: questions of their own to the judge, or rules."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefzoo import lab
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.judges import dimensions
from prefzoo.judges.build_judge import load_truth
from prefzoo.judges.dimensions import ByDimension
from prefzoo.judges.judge import Judge
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.dimension_section import dimension_cells, dimension_picture, dimension_section
from prefzoo.results.analysis import verdicts
from prefzoo.results.results_schema import Summary, Verdict
from prefzoo.results.warnings import _one_question
from prefzoo.run.stage_graph import make_plan
from reported import made

QUESTIONS = {"a": "Which is longer?", "b": "Which has more vowels?"}
PROMPTS = [[{"role": "user", "content": str(i)}] for i in range(4)]


def file_of(folder: Path, *lines: str) -> str:
    (folder / "mine.yaml").write_text("dimensions:\n" + "".join(f"  - {line}\n" for line in lines))
    return str(folder / "mine.yaml")


def by_questions(one_for_all: bool = False) -> Judge:
    """Answers `Which is longer?` and `Which has more vowels?`, or the first whatever is asked."""

    def measure(text: str, question: str | None) -> int:
        return len(text) if one_for_all or question == QUESTIONS["a"] else sum(text.count(v) for v in "aeiou")

    def compare(prompts, first, second, questions):
        both = [(measure(x, q), measure(y, q)) for x, y, q in zip(first, second, questions, strict=True)]
        return [(x > y) + 0.5 * (x == y) for x, y in both]

    return Judge(compare)


@pytest.mark.parametrize("name", dimensions.shipped())
def test_shipped_ones_are_sound(name) -> None:
    assert dimensions.problems(name) == [] and len(dimensions.load(name).dimensions) >= 5


def test_every_mistake_is_told_at_once(tmp_path) -> None:
    told = "\n".join(
        dimensions.problems(
            file_of(tmp_path, "{id: a b, question: x}", "{id: c}", "{id: d, rule: none.py:f}", "{id: e, qestion: x}")
        )
    )
    for words in (
        "dimensions.0.id",
        "(got 'a b')",
        "c: needs either a question",
        "no file 'none.py'",
        "qestion",
        "question",
    ):
        assert words in told, words
    assert "'a' is given twice" in "".join(dimensions.problems(file_of(tmp_path, *["{id: a, question: x}"] * 2)))
    assert "general" in "".join(dimensions.problems("genral"))


def test_each_question_is_asked_in_both_orders_and_rules_are_run(tmp_path) -> None:
    (tmp_path / "rules.py").write_text(
        "def words(prompts, completions):\n    return [len(c.split()) for c in completions]\n"
    )
    lines = [f"{{id: {name}, question: '{text}'}}" for name, text in QUESTIONS.items()]
    found = dimensions.load(file_of(tmp_path, *lines, f"{{id: words, rule: '{tmp_path}/rules.py:words'}}"))
    texts, others = ["aaa", "b b bbb", "e", "xx"], ["bbbb", "aa", "e", "a"]
    measure = ByDimension(found, by_questions(), [{"reply": text} for text in others])
    expected = [[0, 1, 1], [1, 0, 3], [0.5, 0.5, 1], [1, 0, 1]]
    assert [list(row.values()) for row in measure(PROMPTS, texts)] == expected
    assert list(measure(PROMPTS, texts)[0]) == ["dimension/a", "dimension/b", "dimension/words"]
    assert {name: (c["questions"], c["ties"]) for name, c in measure.asked.items()} == {"a": (8, 1), "b": (8, 1)}
    start = ByDimension(found, None, None)
    assert [list(row.values()) for row in start(PROMPTS, others)] == [[0.5, 0.5, n] for n in (1, 1, 1, 1)]
    assert start.asked == {}


def test_an_oracle_agrees_with_golds_attributes_in_all_cases() -> None:
    rows = lab.preferences("test", 96, 5)
    prompts, texts, others = (
        [row["prompt"] for row in rows],
        [row["chosen"] for row in rows],
        [r["rejected"] for r in rows],
    )
    prompts = [[{"role": "user", "content": p}] if isinstance(p, str) else p for p in prompts]
    truth = load_truth("lab")
    measure = ByDimension(dimensions.load("lab"), None, [{"reply": text} for text in others], truth)
    found = measure(prompts, texts)
    for i, (prompt, x, y) in enumerate(zip(prompts, texts, others, strict=True)):
        a, b = (lab.breakdown(prompt[-1]["content"], text) for text in (x, y))
        for name in lab.ATTRIBUTES:
            assert found[i][f"dimension/{name}"] == 0.5 + 0.5 * np.sign(a[name] - b[name]), (name, x, y)
    assert len({found[i][f"dimension/{n}"] for i in range(96) for n in lab.ATTRIBUTES}) == 3
    with pytest.raises(PrefzooError, match=r"'courtsy'.*'courtesy'"):
        misspelt = dimensions.Dimensions.model_validate({"dimensions": [{"id": "courtsy", "question": "?"}]})
        ByDimension(misspelt, None, [{"reply": "x"}], truth)(prompts[:1], texts[:1])


def test_a_judge_that_answers_one_question_for_all_is_found_out() -> None:
    rng = np.random.default_rng(0)
    one, two = (np.where(rng.random((3, 200)) < p, 1.0, 0.0) for p in (0.6, 0.6))
    alike = np.where(rng.random((3, 200)) < 0.99, one, 1 - one)
    tables = {"dpo": {"dimension/a": one, "dimension/b": alike, "dimension/c": two}}
    (warning,) = _one_question(tables)
    assert "a and b:" in warning.text and "c" not in warning.text.partition(":")[0].split("for ")[1]
    assert warning.value == pytest.approx((one == alike).mean()) and warning.ci95[0] > 0.95
    (warning,) = _one_question({"dpo": {"dimension/a": one, "dimension/b": one, "dimension/c": one}})
    assert "all dimensions" in warning.text and warning.value == 1.0
    assert [*_one_question({"dpo": {"dimension/a": one, "dimension/b": two}})] == []
    assert [*_one_question({"dpo": {"gold": one}})] == []
    rules = {"dimension/a": 5 + one, "dimension/b": 5 + one}
    assert [*_one_question({"dpo": rules})] == [], "numbers of rules are no verdicts"
    judges = [by_questions(one_for_all=True)] * 2
    texts, others = ["a" * n for n in range(1, 200)], ["b" * (200 - n) for n in range(1, 200)]
    answers = [j([PROMPTS[0]] * 199, texts, others, [q] * 199) for j, q in zip(judges, QUESTIONS.values(), strict=True)]
    (warning,) = _one_question({"x": dict(zip(("dimension/a", "dimension/b"), map(np.array, answers), strict=True))})
    assert warning.kind == "one_question"


def test_verdicts_by_dimension_are_one_family() -> None:
    rng = np.random.default_rng(3)
    start = {"gold": np.zeros((3, 64)), "dimension/a": np.full((3, 64), 0.5), "dimension/b": np.full((3, 64), 0.5)}
    tables = {"start": start}
    for label, gain in (("x", 0.3), ("y", 0.0)):
        tables[label] = {name: table + gain + rng.normal(0, 0.3, table.shape) for name, table in start.items()}
    found = [each for each in verdicts(tables) if each.metric.startswith("dimension/")]
    assert {(each.metric, each.a, each.b) for each in found} == {
        (f"dimension/{name}", label, "start") for name in "ab" for label in "xy"
    }
    assert {(each.family, each.family_size) for each in found} == {("dimensions against the start", 4)}
    assert {each.a for each in found if each.verdict == "better"} == {"x"}
    alone = [e for e in verdicts({k: {"dimension/a": t["dimension/a"]} for k, t in tables.items() if k != "y"})]
    assert len(alone) == 1 and alone[0].p_adjusted < max(e.p_adjusted for e in found if e.a == "x")


SMALL: dict[str, Any] = {"algorithms": {"dpo": {}}, "evaluation": {"dimensions": "lab"}, "judge": {"type": "gold"}}


def test_what_cannot_be_asked_is_told_before_a_model_is_loaded(tmp_path) -> None:
    def told(**changes: Any) -> str:
        with pytest.raises(RecipeError) as error:
            recipes.check({**SMALL, **changes})
        return str(error.value)

    recipes.check(SMALL)
    assert "the lab's model compares as a whole only" in told(judge={"type": "local"})
    assert "'gold' needs a truth" in told(gold="none")
    assert "'lba'" in told(evaluation={"dimensions": "lba"})
    (tmp_path / "t.jinja").write_text("{{ prompt[-1].content }} {{ first }} {{ second }}")
    asked = {"type": "openai", "endpoint": {"base_url": "http://localhost:1/v1", "model": "m"}}
    assert "does not show {{ question }}" in told(judge={**asked, "prompt": str(tmp_path / "t.jinja")})
    other = {"dimensions": "general", "judge": asked}
    recipes.check({**SMALL, "judge": {"type": "local"}, "evaluation": other})


def test_other_dimensions_measure_anew_and_train_nothing_again(tmp_path) -> None:
    plans = {}
    for name in (None, "lab", file_of(tmp_path, "{id: courtesy, question: x}")):
        recipe = recipes.check({**SMALL, "evaluation": {"dimensions": name}})
        plans[name] = {stage.name: stage.folder.name for stage in make_plan(recipe, tmp_path).stages.values()}
    first, *others = plans.values()
    for other in others:
        changed = {name for name, folder in first.items() if other[name] != folder}
        assert changed == {name for name in first if name.startswith("evaluate")}
    assert others[0] != others[1]


def test_the_report_says_who_gained_and_gave_up_what(tmp_path) -> None:
    results = made(tmp_path)
    assert dimension_section(results, ["dpo"], {}).parts == [] and dimension_picture(results, ["dpo"]) is None
    values = {"start": (0.5, 0.5), "dpo": (0.7, 0.3), "rejection_sampling": (0.6, 0.5)}
    for label, means in values.items():
        for name, mean in zip("ab", means, strict=True):
            ci95 = None if label == "start" else (mean - 0.05, mean + 0.05)
            results.algorithms[label].summary[f"dimension/{name}"] = Summary(mean=mean, ci95=ci95)
    for name, verdict in (("a", "better"), ("b", "worse")):
        row = {"difference": 0.2, "ci95": (0, 1), "p_adjusted": 0.01, "verdict": verdict}
        results.verdicts.append(Verdict(metric=f"dimension/{name}", a="dpo", b="start", **row))
    section = dimension_section(results, ["dpo", "rejection_sampling"], {})
    assert section.parts[0].items == ["dpo: better in a; worse in b."]
    headings, rows = dimension_cells(results, ["dpo", "rejection_sampling"])
    assert headings == ["policy", "a", "b"]
    assert rows[0] == ["dpo", "0.70 [0.65, 0.75] better", "0.30 [0.25, 0.35] worse"] and rows[-1] == [
        "start",
        "0.50",
        "0.50",
    ]
    picture = dimension_picture(results, ["dpo", "rejection_sampling", "start"])
    assert picture is not None and "a: dpo 0.70, rejection_sampling 0.60" in picture.text


def test_a_judges_question_is_a_part_of_a_reward_that_the_report_follows(tmp_path) -> None:
    from prefzoo.rewards.judge_reward import JudgeReward
    from prefzoo.rewards.reward_settings import RewardSettings

    judge, asked = by_questions(), list[Any]()
    once = judge.compare_once
    judge.compare_once = lambda p, x, y, questions: (asked.extend(questions), once(p, x, y, questions))[1]
    reward = JudgeReward(judge, "comparison", {"user:0": "bbbb"}, QUESTIONS["b"])
    assert reward([PROMPTS[0]], ["aa"])[0] > 0 and asked == [QUESTIONS["b"]] * 2
    assert reward.spec(tmp_path)["question"] == QUESTIONS["b"]
    part = {"type": "judge", "question": "?"}
    named = [{"loss": "regression", "attribute": "help"}, part, part, {"type": "function", "path": "a/rules.py:terse"}]
    assert RewardSettings(type="sum", of=named).names == ["help", "judge 2", "judge 3", "terse"]
    for bad, words in (({**part, "by": "grade"}, "shows one"), ({**part, "type": "random"}, "it must be 'judge'")):
        with pytest.raises(ValueError, match=words):
            RewardSettings(**bad)
    with pytest.raises(RecipeError, match=r"reward\.of\.0\.question: the lab's model compares as a whole only"):
        recipes.check({"algorithms": {"ppo": {}}, "reward": {"type": "sum", "of": [part]}})
