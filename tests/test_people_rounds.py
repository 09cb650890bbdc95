"""Rounds that wait for people: what they are asked, what a round goes by, and how a training goes on."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import torch

import prefzoo
from prefzoo.cli import main
from prefzoo.commands.audit_recipe_judge import audit_judge
from prefzoo.errors import PrefzooError, RecipeError, WaitsForPeople
from prefzoo.feedback import feedback_file
from prefzoo.feedback.feedback_types import Answer, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.judges.people_judge import PeopleJudge
from prefzoo.recipe.check_recipe import load
from prefzoo.report.rounds_section import rounds_of, rounds_pictures, rounds_section
from prefzoo.report.sections import tables
from prefzoo.results.results_schema import Milestone, SeedResult
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.worker import clear
from reported import made

PROMPTS = [[{"role": "user", "content": f"question {n}"}] for n in range(6)]
FIRST = ["a", "b", "same", "  ", "c", "d"]
SECOND = ["z", "y", "same", "x", "w", "v"]


def judge_of(folder: Path, per_round: int | None = None, asker: str = "dpo seed 0") -> PeopleJudge:
    return PeopleJudge(folder / "labels.sqlite", per_round, folder / "closed", asker)


def say(store: FeedbackStore, item: Item, choice: str, name: str = "anna") -> None:
    if name not in store.annotators():
        store.add_annotator(name)
    strength = "better" if choice in ("first", "second") else None
    answer_id = f"{name} {item.item_id} {len(store.answers(live=False))}"
    value = {"choice": choice, "strength": strength}
    store.record(Answer(answer_id, item.item_id, name, "compare", value, seconds=4.0))


def by_length(store: FeedbackStore) -> int:
    """Say of what nobody has answered that the longer reply is better; return how many."""
    done = {answer.item_id for answer in store.answers()}
    left = [item for item in store.items("compare") if item.item_id not in done]
    for item in left:
        one, other = (len(reply["text"]) for reply in item.replies)
        say(store, item, "tie" if one == other else "first" if one > other else "second")
    return len(left)


def test_a_round_is_asked_once_and_goes_by_what_was_said_when_it_was_closed(tmp_path: Path) -> None:
    judge = judge_of(tmp_path)
    with pytest.raises(WaitsForPeople, match=r"dpo seed 0 round 1 waits for people: 0 of 4 .*`prefzoo label .*sqlite`"):
        judge(PROMPTS, FIRST, SECOND)
    store = FeedbackStore(tmp_path / "labels.sqlite", random.Random(0))
    items = {item.replies[0]["text"]: item for item in store.items()}
    assert sorted(items) == ["a", "b", "c", "d"], "replies that are the same, or empty, are no question"
    assert all("dpo" not in str((item.item_id, item.prompt, item.replies)) for item in items.values())
    for text, choice in (("a", "first"), ("b", "both_bad"), ("c", "second")):
        say(store, items[text], choice)
    say(store, items["c"], "second", "ben")
    say(store, items["d"], "first")
    store.undo("anna")
    for _ in range(2):  # the same questions, however often
        with pytest.raises(WaitsForPeople, match="3 of 4 pairs"):
            judge_of(tmp_path)(PROMPTS, FIRST, SECOND)
    assert len(store.items()) == 4
    say(store, items["d"], "first")
    say(store, items["d"], "second", "ben")
    say(store, items["d"], "second", "cleo")
    judge = judge_of(tmp_path)
    said = judge(PROMPTS, FIRST, SECOND)
    assert [x for x in said if not math.isnan(x)] == [1.0, 0.5, 0.0, pytest.approx(1 / 3)]
    assert [math.isnan(x) for x in said] == [False, False, True, True, False, False]
    (report,) = judge.report()["rounds"]
    assert report["pairs"] == 6 and report["asked"] == 4 and report["not_asked"] == 0 and report["answers"] == 7
    assert (report["annotators"], report["ties"], report["both_bad"], report["disagreed"]) == (3, 0, 1, 1)
    assert (report["late"], report["taken_back"]) == (0, 0) and report["hours"] == pytest.approx(7 * 4 / 3600)
    say(store, items["a"], "second", "ben")
    say(store, items["a"], "second", "cleo")
    assert store.undo("anna") is not None
    again = judge_of(tmp_path, asker="other seed 0")
    assert str(again(PROMPTS, FIRST, SECOND)) == str(said), "a closed round stays as it was"
    (later,) = again.report()["rounds"]
    assert (later["late"], later["taken_back"], later["sha256"]) == (2, 1, report["sha256"])
    other = judge_of(tmp_path)
    with pytest.raises(WaitsForPeople, match="0 of 4 pairs"):  # other replies are another round
        other(PROMPTS, SECOND, FIRST)


def test_people_are_asked_about_so_many_pairs_of_a_round_as_the_recipe_says(tmp_path: Path) -> None:
    with pytest.raises(WaitsForPeople, match="0 of 2 pairs"):
        judge_of(tmp_path, 2)(PROMPTS, FIRST, SECOND)
    store = FeedbackStore(tmp_path / "labels.sqlite", random.Random(0))
    assert by_length(store) == 2
    judge = judge_of(tmp_path, 2)
    assert sum(not math.isnan(answer) for answer in judge(PROMPTS, FIRST, SECOND)) == 2
    assert judge.report()["rounds"][0]["not_asked"] == 2 and judge.report()["pairs"] == 2


def test_a_store_that_is_locked_foreign_or_newer_is_named_and_left_alone(tmp_path: Path, monkeypatch) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite")
    store.add_items([Item("of something else", "compare", PROMPTS[0], [{"text": "1"}, {"text": "2"}])])
    say(store, store.items()[0], "first")
    with pytest.raises(WaitsForPeople, match="0 of 4"):  # answers to other questions count for nothing
        judge_of(tmp_path)(PROMPTS, FIRST, SECOND)
    monkeypatch.setattr(feedback_file, "BUSY_SECONDS", 0.1)
    other = sqlite3.connect(tmp_path / "labels.sqlite", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(PrefzooError, match=r"labels.sqlite cannot be used .* locked"):
        judge_of(tmp_path)(PROMPTS, SECOND, FIRST)
    other.execute("ROLLBACK")
    assert len(store.items()) == 5
    other.execute("PRAGMA user_version = 9")
    with pytest.raises(PrefzooError, match="version 9 of its form"):
        judge_of(tmp_path)(PROMPTS, FIRST, SECOND)


def weights(bench: Any) -> torch.Tensor:
    from safetensors.torch import load_file

    (file,) = (bench.out / "policy").rglob("adapter_model.safetensors")
    return torch.cat([w.flatten() for _, w in sorted(load_file(file).items())])


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("iterative_dpo", {"labeller": "judge"}),
        pytest.param("iterated_rlhf", {"learner": "reinforce"}, marks=pytest.mark.slow),
        pytest.param("rlaif", {}, marks=pytest.mark.slow),
    ],
)
def test_a_training_that_waited_is_the_one_that_did_not_and_repeats_no_round(
    make_bench, tmp_path, monkeypatch, name, settings
) -> None:
    algorithm = prefzoo.get(name, rounds=2, **settings)
    learned: list[int] = []
    learn = type(algorithm).learn

    def counted(self, *arguments):
        learned.append(1)
        return learn(self, *arguments)

    monkeypatch.setattr(type(algorithm), "learn", counted)
    asked = []
    bench = make_bench(name="waits")
    for _ in range(2):
        trial = dataclasses.replace(make_bench(name="waits"), judge=judge_of(tmp_path, 5))
        with pytest.raises(WaitsForPeople):
            algorithm.train(trial)
        clear(bench.out)  # as a new process finds it
        asked.append(by_length(FeedbackStore(tmp_path / "labels.sqlite", random.Random(0))))
    waited = dataclasses.replace(make_bench(name="waits"), judge=judge_of(tmp_path, 5))
    algorithm.train(waited)
    assert asked == [5, 5] and len(learned) == 2
    at_once = dataclasses.replace(make_bench(name="at once"), judge=judge_of(tmp_path, 5))
    algorithm.train(at_once)
    assert torch.equal(weights(waited), weights(at_once))
    assert waited.report.pop("judge")["rounds"] == at_once.report.pop("judge")["rounds"]
    assert waited.report == at_once.report
    kept = [[p.parent.name for p in b.out.glob("milestones/*/milestone.json")] for b in (waited, at_once)]
    assert kept[0] == kept[1] == ["00"]
    costs = [{k: v for k, v in dataclasses.asdict(b.ledger).items() if k not in ("seconds", "peak_memory_bytes")}
             for b in (waited, at_once)]  # fmt: skip
    assert costs[0] == costs[1] and costs[0]["judge_calls"] == 10


PEOPLE = {"extends": "base", "judge": {"type": "people", "store": "labels.sqlite"}}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"judge": {"type": "people"}}, "judge.store: is missing; judge.type 'people' needs a file"),
        ({"judge": {"store": "labels.sqlite"}}, "judge.store: 'labels.sqlite' has no meaning with judge.type 'local'"),
        (
            {"algorithms": {"online_dpo": {"labeller": "judge"}}},
            "algorithms.online_dpo: people cannot be asked in every",
        ),
        ({"algorithms": {"constitutional_ai": {}}}, "algorithms.constitutional_ai: people cannot be asked"),
        ({"algorithms": {"rlaif": {"mode": "direct", "learner": "ppo"}}}, "algorithms.rlaif: people cannot be asked"),
        ({"reward": {"type": "judge"}}, "reward.type: 'judge' would ask people in every step"),
        ({"gold": "judge"}, "gold: 'judge' would ask people about all test replies"),
        ({"tuning": {"trials": 2}}, "tuning: every trial would ask people anew"),
    ],
)
def test_where_people_cannot_be_the_judge_is_told_before_anything_is_loaded(change, said) -> None:
    with pytest.raises(RecipeError, match=said):
        load({**PEOPLE, "algorithms": {"rlaif": {}}, **change})


def test_people_are_no_judge_to_audit_and_no_answer_changes_a_key(tmp_path: Path) -> None:
    recipe = load({**PEOPLE, "judge": {"type": "people", "store": str(tmp_path / "s")}, "algorithms": {"rlaif": {}}})
    before = make_plan(recipe, tmp_path).stages
    assert not any(stage.kind == "audit" for stage in before.values())
    content = {**PEOPLE, "algorithms": {"rlaif": {}}}
    with pytest.raises(RecipeError, match="people are not audited"):
        audit_judge(content, out=tmp_path / "audit")
    store = FeedbackStore(tmp_path / "s")
    say(store, _asked(store), "first")
    assert make_plan(recipe, tmp_path).stages == before


def _asked(store: FeedbackStore) -> Item:
    item = Item("one", "compare", PROMPTS[0], [{"text": "1"}, {"text": "2"}])
    store.add_items([item])
    return item


def test_the_command_that_waits_has_an_exit_code_of_its_own(monkeypatch, capsys, tmp_path: Path) -> None:
    def waits(*arguments: Any, **more: Any) -> None:
        raise WaitsForPeople("label: 3 of 7 pairs are answered")

    monkeypatch.setattr("prefzoo.commands.comparison.compare", waits)
    monkeypatch.setattr("sys.argv", ["prefzoo", "compare", "quickstart", "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 3 and "3 of 7 pairs" in capsys.readouterr().err


def test_the_report_says_what_each_round_bought(tmp_path: Path) -> None:
    """Gold is 0 of the start, then 1 and 3 on average; two seeds, two prompts."""

    def evaluated(name: str, values: list[float]) -> str:
        folder = tmp_path / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = [{"prompt": PROMPTS[i], "reply": "r", "gold": value, "proxy": 0.0} for i, value in enumerate(values)]
        (folder / "replies.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return f"{name}/replies.jsonl"

    asked = {"answers": 10, "ties": 1, "both_bad": 1, "annotators": 2, "items_with_several": 4, "disagreed": 1}
    asked |= {"hours": 0.5, "late": 3, "taken_back": 0}
    start, trained = {}, {}
    for seed, (first, second) in {"0": ([1.0, 2.0], [3.0, 2.0]), "1": ([0.0, 1.0], [4.0, 3.0])}.items():
        start[seed] = SeedResult(metrics={}, ledger={}, replies=evaluated(f"start-{seed}", [0.0, 0.0]))
        evaluated(f"people-{seed}/milestones/00", first)
        trained[seed] = SeedResult(
            metrics={},
            ledger={},
            milestones=[Milestone(name="round 1", ledger={}, metrics={})],
            details={"judge": {"rounds": [asked, asked]}},
            replies=evaluated(f"people-{seed}", second),
        )
    results = made(tmp_path / "made")
    results.algorithms["start"].seeds, results.algorithms["dpo"].seeds = start, trained
    (found,) = rounds_of(results, tmp_path).values()
    assert [each.labels for each in found] == [10, 20]
    assert [each.after["gold"].mean for each in found] == [1.0, 3.0]
    assert [each.gain.mean for each in found if each.gain] == [1.0, 2.0]
    assert [each.after["win_rate"].mean for each in found] == [pytest.approx(7 / 8), 1.0]  # one tie of four
    section = rounds_section(results, tmp_path, {})
    heads, (_, last) = next(tables(section.parts)).cells
    assert dict(zip(heads, last, strict=True)) | {"gold": "", "proxy": "", "wins": "", "bought [95%]": ""} == {
        "policy": "dpo", "round": "2", "answers so far": "20", "gold": "", "proxy": "", "wins": "", "bought [95%]": "",
        "answers": "20", "ties": "4", "people": "2", "disagreed": "2 of 8", "hours": "1.00",
    }  # fmt: skip
    assert "12 answers came late" in str(section.parts)
    (picture,) = rounds_pictures(results, tmp_path)
    assert picture.text == "dpo 0.00 after 0, 1.00 after 10, 3.00 after 20"
