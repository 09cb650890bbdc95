"""The audit of a judge: hand-worked figures, judges with known faults, and the words for them."""

from __future__ import annotations

import pytest

from conftest import SMALL
from prefzoo import compare, lab
from prefzoo.data.formats import Row
from prefzoo.errors import RecipeError
from prefzoo.judges.build_judge import RandomJudge, gold_judge
from prefzoo.judges.judge import Judge
from prefzoo.judges.judge_audit import Audit
from prefzoo.judges.judge_audit_measures import Case, audit, figures
from prefzoo.judges.judge_audit_text import cells, sentences, verdict, warnings
from prefzoo.judges.local_judge import local_judge
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.judge_section import calibration_picture
from prefzoo.results.caveats import judge_notes
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.executor import Outcome
from prefzoo.run.stage_graph import AUDIT, LABEL_STAGE, make_plan
from test_cli import prefzoo as run

STAGE = AUDIT.format("judge")
SERVED = {"type": "openai", "endpoint": {"base_url": "http://localhost:1/v1", "model": "m"}}


def truth(prompts, completions):
    return [{"gold": lab.gold(p[-1]["content"], c)} for p, c in zip(prompts, completions, strict=True)]


@pytest.fixture(scope="module")
def rows():
    return [
        Row(
            each["id"],
            [{"role": "user", "content": each["prompt"]}],
            each["chosen"],
            each["rejected"],
            slice=each["slice"],
        )
        for each in lab.preferences("test", 300, 5)
    ]


def by(score) -> Judge:
    """A judge that prefers what scores higher, whatever is shown first."""

    def answers(prompts, x, y, questions):
        return [0.5 + 0.4 * ((score(a) > score(b)) - (score(a) < score(b))) for a, b in zip(x, y, strict=True)]

    return Judge(answers)


def test_the_truth_agrees_with_itself_in_every_respect(rows) -> None:
    found = audit(gold_judge(truth), rows, truth)
    assert found.truth == "gold" and found.agreement.share == found.consistency.share == 1.0
    assert found.first_preferred.share == 0.5 and found.ties.share == found.failures.share == 0
    assert found.pairs + found.without_truth == len(rows) and found.questions == 2 * found.pairs
    assert found.calibration.error == found.calibration.brier == 0
    assert found.length.longer_preferred.share == found.length.longer_better
    assert found.length.favour == 0
    assert "is better than a coin: it agrees with gold in 100%" in verdict(found) and not warnings(found)
    assert "No position bias was shown." in sentences(found) and "No length bias was shown." in sentences(found)
    assert set(found.slices) == {row.slice for row in rows} and len(found.slices) > 1
    assert sum(part.pairs for part in found.slices.values()) == found.pairs
    assert calibration_picture(found).png.startswith(b"\x89PNG")


def test_labels_are_the_truth_where_there_is_no_gold_and_that_is_said(rows) -> None:
    found = audit(gold_judge(truth), rows, None)
    assert found.truth == "labels" and found.pairs == len(rows) and 0.6 < found.agreement.share < 1
    assert "the labels of the data" in verdict(found) and any("No gold is known" in each for each in sentences(found))


def test_labels_that_a_judge_made_are_no_truth(rows) -> None:
    found = audit(gold_judge(truth), rows, None, labelled=False)
    assert found.truth is found.agreement is found.calibration is found.length.longer_better is None
    assert found.consistency.share == 1 and "not known" in verdict(found)
    assert not any("agrees with the" in row[0] for row in cells(found)[1])


@pytest.mark.parametrize(("p", "place"), [(0.9, "first"), (0.1, "second")])
def test_one_that_looks_at_the_place_alone_is_fully_position_biased(rows, p, place) -> None:
    found = audit(Judge(lambda prompts, x, y, q: [p] * len(x)), rows, truth)
    assert found.first_preferred.share == (p > 0.5) and found.consistency.share == 0
    assert found.ties.share == 1 and found.agreement.share == 0.5
    said = warnings(found)
    assert any(f"prefers the reply shown {place} in 100%" in each for each in said)
    assert any(each.startswith("Only ties") for each in said) and "cannot be told from a coin" in verdict(found)


def test_a_verdict_read_the_wrong_way_round_is_noticed(rows) -> None:
    right = gold_judge(truth)
    found = audit(Judge(lambda *asked: [1 - p for p in right.compare_once(*asked)]), rows, truth)
    assert found.agreement.share == 0 and "wrong way round" in verdict(found)


def test_favouring_length_is_told_from_erring(rows) -> None:
    longer = audit(by(len), rows, truth)
    assert longer.length.longer_preferred.share == 1 > longer.length.longer_better
    assert longer.length.where_longer_is_better.share == 1 and longer.length.where_shorter_is_better.share == 0
    assert longer.length.favour == 1
    assert any("favours longer" in each for each in warnings(longer))
    shorter = audit(by(lambda text: -len(text)), rows, truth)
    assert shorter.length.favour == -1 and any("favours shorter" in each for each in warnings(shorter))
    coin = audit(RandomJudge(0), rows, truth)
    assert coin.length.longer_better < 0.45, "a coin prefers the longer reply more often than gold does"
    assert not any("Length" in each or "Position" in each for each in warnings(coin))
    assert any("ruled by the order" in each for each in warnings(coin))
    assert any("too sure" in each for each in warnings(coin))


def test_calibration_by_hand() -> None:
    """P(better): 0.9, 0.9 and 0.1 are 90% sure, right in 2 of 3; 0.65 and 0.5 by two orders that undo each other."""
    cases = [
        Case(0.9, 0.1, 3, None),
        Case(0.95, 0.15, 3, None),
        Case(0.1, 0.9, -3, None),
        Case(0.7, 0.4, 0, None),
        Case(0.8, 0.8, 0, None),
    ]
    found = figures(cases, True)
    assert [each.pairs for each in found.calibration.bins] == [1, 1, 0, 0, 3]
    assert found.calibration.bins[-1].right.share == pytest.approx(2 / 3)
    assert found.calibration.bins[-1].mean == pytest.approx(0.9) and found.calibration.bins[2].mean is None
    assert found.calibration.error == pytest.approx((3 * (0.9 - 2 / 3) + (1 - 0.65) + (0.5 - 0.5)) / 5)
    assert found.calibration.brier == pytest.approx((0.01 + 0.01 + 0.81 + 0.1225 + 0.25) / 5)
    assert found.calibration.sure == pytest.approx((0.9 * 3 + 0.65 + 0.5) / 5)
    assert found.agreement.share == pytest.approx(3.5 / 5) and found.ties.share == 0.2
    assert found.consistency.share == pytest.approx(4 / 5)
    assert found.first_preferred.share == pytest.approx((1 + 1 + 1 + 1 + 2) / 10)
    assert found.length.longer_preferred.share == 1 and found.length.longer_better == pytest.approx(2 / 3)


def test_the_interval_of_both_orders_by_hand() -> None:
    """Of 100 pairs 60 are consistent, 30 go to the first in both orders, 10 to the second: the share is 0.6, and its
    variance is that of values 0.5, 1 and 0: (30 x 0.4^2 + 10 x 0.6^2 + 60 x 0.1^2) / 99 / 100 = 0.0009091, as of 264
    independent questions."""
    cases = [Case(0.9, 0.1, 0, None)] * 60 + [Case(0.9, 0.9, 0, None)] * 30 + [Case(0.1, 0.1, 0, None)] * 10
    share = figures(cases, True).first_preferred
    assert share.share == pytest.approx(0.6) and share.count == 200
    assert share.ci95 == pytest.approx((0.5398, 0.6573), abs=1e-3)


def test_what_cannot_be_read_is_counted_and_undecided(rows) -> None:
    def half(prompts, x, y, q):
        return [None if i % 4 == 0 else 0.8 for i in range(len(x))]

    found = audit(Judge(half), rows[:40], None)
    assert found.failures.share == 0.25 and found.failures.count == 80
    assert found.first_preferred.share == pytest.approx(0.75 + 0.125)
    assert found.consistency.count == 30, "of an order that cannot be read nothing is known"
    assert any("No answer could be read to 20 of 80 questions" in each for each in warnings(found))
    nothing = audit(Judge(lambda p, x, y, q: [None] * len(x)), rows[:40], truth)
    assert nothing.consistency is None and nothing.ties.share == 1 and verdict(nothing).startswith("No answer of")


def test_without_pairs_there_is_nothing_to_audit() -> None:
    row = Row("1", [{"role": "user", "content": "hi"}])
    assert audit(RandomJudge(0), [row], truth) is None
    tied = Row("1", [{"role": "user", "content": "hi"}], "x", "y")
    assert audit(RandomJudge(0), [tied], lambda p, c: [{"gold": 0.0} for _ in c]) is None


def plan_of(tmp_path, **judge):
    content = {"data": {"prompts": "a/b", "label_with": "judge"}, "judge": judge, "algorithms": {"dpo": {}}, "seeds": 1}
    return make_plan(recipes.check(content), tmp_path)


def test_the_audit_is_planned_where_the_judge_is_used_and_nothing_waits_for_it(tmp_path) -> None:
    plan = plan_of(tmp_path)
    assert list(plan.stages)[-1] == STAGE and plan.stages[STAGE].needs == (LABEL_STAGE,)
    assert not any(STAGE in (*stage.needs, *stage.after) for stage in plan.stages.values())
    fewer = plan_of(tmp_path, audit_pairs=7)
    assert fewer.stages[LABEL_STAGE].folder == plan.stages[LABEL_STAGE].folder, (
        "how much is audited does not label again"
    )
    assert fewer.stages[STAGE].folder != plan.stages[STAGE].folder
    assert STAGE not in plan_of(tmp_path, audit_pairs=0).stages
    unused = recipes.check({"algorithms": {"dpo": {}}})
    assert (
        STAGE not in make_plan(unused, tmp_path).stages
        and STAGE in make_plan(unused, tmp_path, {"judge": unused.judge}).stages
    )


def test_an_audit_that_is_missing_is_told_and_why(tmp_path) -> None:
    plan, none = plan_of(tmp_path), plan_of(tmp_path, audit_pairs=0)
    (said,) = judge_notes(plan, {STAGE: Outcome("failed", "the server died")}, {"audits": {"judge": None}})
    assert said == "The judge was not audited: its stage failed: the server died."
    (said,) = judge_notes(plan, {STAGE: Outcome("failed", "it goes on from there.")}, {"audits": {"judge": None}})
    assert said.endswith("it goes on from there.") and ".." not in said
    assert "was not run" in judge_notes(plan, {}, {"audits": {"judge": None}})[0]
    assert "audit_pairs is 0" in judge_notes(none, {}, {"audits": {"judge": None}})[0]
    assert judge_notes(make_plan(recipes.check({"algorithms": {"dpo": {}}}), tmp_path), {}, {}) == []


def test_only_a_judge_better_than_a_coin_goes_without_a_note(rows, tmp_path) -> None:
    for judge, noted in ((gold_judge(truth), False), (RandomJudge(0), True)):
        found = audit(judge, rows, truth)
        assert bool(judge_notes(plan_of(tmp_path), {}, {"audits": {"judge": found.model_dump(mode="json")}})) == noted


def test_the_command_audits_the_lab_model(tmp_path) -> None:
    out = tmp_path / "audit"
    sets = ["--set", "budget.prompts=16", "--set", "evaluation.prompts=8"]
    done = run("audit-judge", "quickstart", "--pairs", "60", *sets, "--out", str(out))
    assert done.returncode == 0, done.stderr
    assert "is better than a coin" in done.stdout and "harmful" in done.stdout and "0.9 to 1.0" in done.stdout
    found = Audit.model_validate_json((out / "judge_audit.json").read_text())
    assert found.truth == "gold" and found.pairs + found.without_truth == 60 and found.agreement.share > 0.75
    assert (out / "judge_calibration.png").read_bytes().startswith(b"\x89PNG")


def test_the_command_says_what_it_cannot_audit_on(tmp_path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("Where are you?\n")
    (tmp_path / "mine.yaml").write_text(
        f"data: {{prompts: {file}}}\nstart: none\nreward: {{type: random}}\nalgorithms: {{rejection_sampling: {{}}}}\n"
    )
    done = run("audit-judge", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "out"))
    assert done.returncode == 2 and "has no pairs of replies to audit a judge on" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"gold": "judge", "data": {"prompts": "a/b", "label_with": "judge"}}, "likes what it taught"),
        ({"gold": "judge", "evaluation": {"judge": {"path": "lab"}}, "data": {"prompts": "a/b", "label_with": "judge"}},
         "likes what it taught"),
        ({"gold": "judge", "data": {"prompts": "a/b", "label_with": "judge"}, "judge": {**SERVED, "reasoning": True},
          "evaluation": {"judge": SERVED}}, "likes what it taught"),
        ({"gold": "judge", "judge": {"type": "gold"}}, "judge.type: 'gold' is the truth"),
        ({"gold": "judge", "evaluation": {"judge": {"type": "gold"}}}, "evaluation.judge.type: 'gold' is the truth"),
        ({"gold": "judge", "evaluation": {"same_judge": True}}, "taught nothing"),
        ({"evaluation": {"same_judge": True}}, "evaluation.same_judge: has no meaning unless gold is 'judge'"),
        ({"evaluation": {"judge": {}}}, "evaluation.judge: has no meaning unless gold is 'judge'"),
        ({"gold": "juge"}, "Did you mean 'judge'"),
        ({"gold": "judge", "data": {"prompts": "a/b", "label_with": "gold"}}, "needs a truth to label with"),
    ],
)  # fmt: skip
def test_a_judge_does_not_decide_on_what_it_taught(content, says) -> None:
    with pytest.raises(RecipeError, match=says):
        recipes.check({"algorithms": {"dpo": {}}, **content})


def test_unless_the_recipe_says_it_knows_or_names_another(tmp_path) -> None:
    taught = {"gold": "judge", "data": {"prompts": "a/b", "label_with": "judge"}, "algorithms": {"dpo": {}}}
    same = recipes.check({**taught, "evaluation": {"same_judge": True}})
    assert list(same.audited) == ["judge"]
    notes = judge_notes(make_plan(same, tmp_path), {}, {"audits": {"judge": None}})
    assert any("The judge that decides also taught" in note for note in notes)
    other = recipes.check({**taught, "evaluation": {"judge": {"path": "owner/other"}}})
    plan = make_plan(other, tmp_path)
    assert list(other.audited) == ["judge", "final judge"]
    assert [stage.name for stage in plan.stages.values() if stage.kind == "audit"] == [
        "audit judge",
        "audit final judge",
    ]
    assert "evaluate start seed 0" in plan.stages["evaluate dpo seed 0"].needs
    again = make_plan(recipes.check({**taught, "evaluation": {"judge": {"path": "owner/third"}}}), tmp_path)
    for name, changes in (("data", False), ("train dpo seed 0", False), ("evaluate dpo seed 0", True)):
        assert (again.stages[name].folder != plan.stages[name].folder) == changes, name
    assert recipes.check({"gold": "judge", "algorithms": {"dpo": {}}}).final_judge.type == "local"
    recipes.check({**taught, "judge": SERVED, "evaluation": {"judge": {}}})


def test_a_judge_decides_by_comparing_with_the_start(tmp_path) -> None:
    sets = [*SMALL, "gold=judge", "reward.type=random", "judge.audit_pairs=20"]
    found = compare("quickstart", ["dpo"], seeds=1, sets=sets, out=tmp_path)
    start, dpo = found.algorithms["start"], found.algorithms["dpo"]
    assert start.summary["gold"].mean == 0.5 == start.summary["win_rate"].mean and found.primary == "gold"
    first, second = (read_records((tmp_path / each.seeds["0"].replies).parent) for each in (start, dpo))
    judge = local_judge(str(MODEL_DIR), True, {"dtype": "float32", "trust_remote_code": False, "quantization": None})
    expected = judge([r["prompt"] for r in second], [r["reply"] for r in second], [r["reply"] for r in first])
    assert [r["gold"] for r in second] == pytest.approx(expected, abs=1e-4) and len(set(expected)) > 4
    assert all(a["reply"] != b["reply"] or b["gold"] == 0.5 for a, b in zip(first, second, strict=True))
    assert found.judge["audits"]["judge"]["truth"] == "labels" and found.judge["audits"]["judge"]["pairs"] == 20
    assert any("the verdict is by a judge" in note for note in found.notes)
    assert "How probable the judge finds it" in (tmp_path / "report.md").read_text()
