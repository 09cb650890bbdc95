"""People's answers about test replies: read from the store or a file, matched, joined with the metric that decides."""

from __future__ import annotations

import json
import random
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prefzoo
from conftest import SMALL
from prefzoo.commands.comparison import rebuild
from prefzoo.commands.label_planning import plan_labels
from prefzoo.data.votes import Vote
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.feedback.feedback_types import Answer, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.report.human_section import human_pictures, human_section
from prefzoo.report.summary_text import people_note
from prefzoo.results.human_answers import ComparedPair, HumanAnswers, draw_weights, read_answers
from prefzoo.results.human_schema import Agreement, Human, HumanPair, WinRate
from prefzoo.results.human_win_rates import LABELS_FILE, RunReplies, answer_table, assign, human_notes
from prefzoo.run.evaluation_records import RECORDS, read_records
from reported import made

PROMPT = [{"role": "user", "content": "Q"}]


def choice(item_id: str, annotator: str, said: str) -> Answer:
    strength = "better" if said in ("first", "second") else None
    return Answer(uuid.uuid4().hex, item_id, annotator, "ab", {"choice": said, "strength": strength})


def compared(prompt: str, first: str, second: str, *votes: int | None, **more: Any) -> ComparedPair:
    return ComparedPair(prompt, (first, second), votes=tuple(Vote(v, f"p{i}", "") for i, v in enumerate(votes)), **more)


def test_an_answer_finds_its_cell_whichever_reply_stands_first() -> None:
    replies = RunReplies(
        {"q": [0], "r": [1]}, {"dpo": [["a", "c"], ["a", "d"]], "start": [["b", "c"], ["b", "e"]]}, [4, 7]
    )
    pairs = [
        compared("q", "b", "a", 1, seed=7),  # for the second, which is dpo's
        compared("r", "d", "e", 1, None),  # one for the start, one for neither
        compared("q", "a", "b", 1),  # with either seed: the one that has no answer yet
    ]
    people, weights, order = answer_table(("dpo", "start"), pairs, replies)
    np.testing.assert_array_equal(people, [[0.0, np.nan], [1.0, 0.25]])
    assert order.tolist() == [[2, 3], [0, 1]] and (weights == 1).all()


def test_answers_of_no_use_are_counted_with_the_reason() -> None:
    replies = RunReplies({"q": [0]}, {"dpo": [["a"]], "start": [["b"]]}, [0])
    answers = HumanAnswers(
        [
            compared("q", "a", "b", 0),
            compared("q", "a", "x", 0, 1),
            compared("z", "a", "b", 0),
            compared("q", "a", "a", 0),
        ]
    )
    assert assign(answers, replies) == {("dpo", "start"): [answers.pairs[0]]}
    assert answers.unused == {
        "other replies to a test prompt": 2,
        "a prompt that is no test prompt": 1,
        "both replies are the same": 1,
    }


def test_replies_that_another_policy_gave_too_are_of_whom_they_were_drawn_for() -> None:
    texts = {"dpo": [["a", "b", "c"]], "sft": [["a", "x", "y"]], "start": [["s", "t", "u"]]}
    replies = RunReplies({"1": [0], "2": [1], "3": [2]}, texts, [0])
    unnamed = [compared("1", "a", "s", 0), compared("2", "b", "t", 0), compared("3", "c", "u", 0)]
    assert assign(HumanAnswers([*unnamed]), replies) == {("dpo", "start"): unnamed}
    named = compared("1", "a", "s", 0, policies=("sft", "start"))
    assert assign(HumanAnswers([named, *unnamed[1:]]), replies) == {
        ("dpo", "start"): unnamed[1:],
        ("sft", "start"): [named],
    }


def test_draws_with_unequal_chances_are_weighted_so_that_their_mean_is_that_of_all() -> None:
    assert draw_weights([1.0, 1.0, 1.0], 10) == [1, 1, 1]
    # By hand, 2 of 4, the first drawn with 0.4 of 4, the second with 0.5 of 3:
    # 1 + (2 / 3) (1 / (4 * 0.4) - 1) = 0.75, 1 + (2 / 2) (1 / (3 * 0.5) - 1) = 2 / 3
    assert draw_weights([0.4, 0.5], 4) == pytest.approx([0.75, 2 / 3])
    rng, values, means = random.Random(0), [1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 0.0], []
    for _ in range(4000):
        left, drawn, chances = list(range(8)), [], []
        for _ in range(4):
            chance = [4.0 if values[i] else 1.0 for i in left]
            (at,) = rng.choices(range(len(left)), chance)
            chances.append(chance[at] / sum(chance))
            drawn.append(left.pop(at))
        means.append(np.mean([w * values[i] for w, i in zip(draw_weights(chances, 8), drawn, strict=True)]))
    assert np.mean(means) == pytest.approx(3 / 8, abs=4 * np.std(means) / 4000**0.5)
    assert np.mean([values[i] for i in drawn]) > 3 / 8


def test_a_store_and_its_export_say_the_same(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite")
    sides = [{"text": "a", "policy": "dpo"}, {"text": "b", "policy": "start"}]
    items = [
        Item(f"i{n}", "ab", [{"role": "user", "content": f"Q {n}"}], sides, f"seed 1 test prompt {n}") for n in range(4)
    ]
    check = Item("gold", "ab", PROMPT, sides, gold={"choice": "first", "strength": None})
    store.add_items([*items, check, Item("t", "thumb", PROMPT, sides[:1])])
    for name in ("anna", "ben"):
        store.add_annotator(name)
    for item_id, name, said in (
        ("i0", "anna", "first"),
        ("i0", "ben", "both_bad"),
        ("i2", "anna", "tie"),
        ("gold", "ben", "first"),
    ):
        store.record(choice(item_id, name, said))
    store.record(Answer(uuid.uuid4().hex, "t", "ben", "thumb", {"liked": True}))
    store.record(choice("i3", "anna", "second"))
    store.undo("anna")
    found = read_answers(store.path)
    assert [(p.prompt, [v.choice for v in p.votes], p.both_bad, p.seed) for p in found.pairs] == [
        ("user:q 0", [0, None], 1, 1),
        ("user:q 2", [None], 0, 1),
    ]
    assert found.pairs[0].policies == ("dpo", "start") and found.answers == 5
    assert found.unused == {"to a question that checks annotators": 1, "no comparison of two replies (thumb)": 1}
    store.export(tmp_path / "labels.jsonl", "ab")
    exported = read_answers(tmp_path / "labels.jsonl")
    assert [[v.choice for v in p.votes] for p in exported.pairs] == [[0, None], [None]]
    assert exported.answers == 3 and "alike" in exported.weighting


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("gone/labels.sqlite", None, "the folder of"),
        ("labels.txt", "x", "does not end in"),
        ("labels.sqlite", b"SQLite format 3\0" + b"\0" * 100, "labels.sqlite"),
    ],
)
def test_a_file_that_cannot_be_one_of_answers_is_told_before_anything_runs(tmp_path, name, content, says) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(RecipeError) as raised:
        prefzoo.compare("quickstart", sets=[f"evaluation.human={tmp_path / name}"], out=tmp_path / "run")
    assert "evaluation.human" in str(raised.value) and says in str(raised.value)
    assert not (tmp_path / "run").exists()


def stage_folders(out: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in out.glob("*/*-*") if path.is_dir()}


def test_new_answers_change_the_report_and_train_nothing_again(small_run, tmp_path) -> None:
    first, made = small_run
    assert first.human is None
    out = tmp_path / "run"
    shutil.copytree(made, out)
    before = stage_folders(out)
    folders = {label: [out / t.replies for t in first.algorithms[label].seeds.values()] for label in ("dpo", "start")}
    dpo, start = ([read_records(file.parent) for file in files] for files in folders.values())
    cells = [
        (seed, place)
        for place in range(len(start[0]))
        for seed in range(2)
        if dpo[seed][place]["reply"] != start[seed][place]["reply"]
    ]
    assert len(cells) >= 15
    store = FeedbackStore(tmp_path / "labels.sqlite")
    store.add_annotator("anna")
    store.add_items(
        Item(
            f"{seed}-{place}", "ab", start[seed][place]["prompt"],
            [{"text": r[seed][place]["reply"], "policy": n} for r, n in ((start, "start"), (dpo, "dpo"))],
            f"seed {seed} test prompt {place + 1}",
        )
        for seed, place in cells
    )  # fmt: skip
    store.add_items([Item("other", "ab", PROMPT, [{"text": "a", "policy": "dpo"}, {"text": "b", "policy": "start"}])])
    store.record(choice("other", "anna", "first"))
    for number, (seed, place) in enumerate(cells[:5]):
        store.record(choice(f"{seed}-{place}", "anna", "second" if number else "first"))

    joined = prefzoo.compare("quickstart", seeds=2, sets=[*SMALL, f"evaluation.human={store.path}"], out=out)
    assert stage_folders(out) == before
    human = joined.human
    assert human is not None and (human.instrument, human.answers, human.used) == ("gold", 6, 5)
    assert human.unused == {"a prompt that is no test prompt": 1}
    (pair,) = human.pairs
    assert (pair.a, pair.b, pair.answered, pair.replies) == ("dpo", "start", 5, 32)
    assert pair.same_replies == 32 - len(cells) and pair.seeds == ["0", "1"]
    # 4 of 5 for dpo, where the replies differ; a tie, where they do not
    assert pair.people.mean == pytest.approx((0.8 * len(cells) + 0.5 * pair.same_replies) / 32)
    assert pair.judge.mean == pytest.approx(first.algorithms["dpo"].summary["win_rate"].mean)
    (section,) = [part for part in human_section(joined, {}).parts if part.kind == "Table"]
    assert section.cells[1][0][:2] == ["dpo - start", "5"]

    for seed, place in cells[5:15]:
        store.record(choice(f"{seed}-{place}", "anna", "second"))
    again = rebuild(out)
    assert stage_folders(out) == before
    assert again.human is not None and again.human.used == 15 and again.human.sha256 != human.sha256
    assert again.human.pairs[0].people.mean == pytest.approx((14 / 15 * len(cells) + 0.5 * pair.same_replies) / 32)
    assert 'id="people"' in (out / "report.html").read_text()
    same = {"human", "notes", "recipe", "call"}
    assert again.model_dump(exclude=same) == first.model_dump(exclude=same)
    assert json.loads((out / "results.json").read_text())["human"]["used"] == 15


def test_answers_are_planned_from_a_finished_run(small_run, tmp_path) -> None:
    _, out = small_run
    with pytest.raises(PrefzooError, match=r"--agreement 0\.8"):
        plan_labels(out, 20)
    with pytest.raises(PrefzooError, match="only 32 pairs"):
        plan_labels(out, 33, 0.8)
    coin, good = (plan_labels(out, 20, agreement) for agreement in (0.5, 0.9))
    assert coin.labels == [20] and (coin.correlation, good.correlation) == (0.0, pytest.approx(0.8))
    assert good.plan.widths(20, good.correlation)[1] < good.plan.widths(20, 0.0)[1] == coin.plan.widths(20, 0.0)[1]
    assert [column.header for column in good.table().columns][:3] == ["answers", "people alone", "joined"]
    assert "agrees with people in 90%" in good.sentences()[0]


def test_answers_in_the_run_s_own_folder_are_found_and_those_of_another_run_are_told(small_run, tmp_path) -> None:
    _, made = small_run
    out = tmp_path / "run"
    shutil.copytree(made, out)
    store = FeedbackStore(out / LABELS_FILE)
    assert any("Nobody has answered" in note for note in rebuild(out).notes)
    store.add_annotator("anna")
    prompt = read_records(next(out.glob(f"trials/evaluate-start-seed-0-*/{RECORDS}")).parent)[0]["prompt"]
    for n in range(3):
        replies = [{"text": f"a {n}", "policy": "dpo"}, {"text": "b", "policy": "start"}]
        store.add_items([Item(f"i{n}", "ab", prompt, replies, f"seed 0 test prompt {n}")])
        store.record(choice(f"i{n}", "anna", "first"))
    found = rebuild(out)
    (note,) = [note for note in found.notes if note.startswith("None of the 3 answers")]
    assert "3: other replies to a test prompt" in note and found.human is not None and found.human.pairs == []
    (out / LABELS_FILE).unlink()
    for more in ("-wal", "-shm"):
        (out / f"{LABELS_FILE}{more}").unlink(missing_ok=True)
    assert rebuild(out).human is None


def test_the_report_says_what_each_says_alone_and_joined(tmp_path) -> None:
    def rate(mean: float, half: float) -> WinRate:
        ends = (mean - half, mean + half)
        return WinRate(mean=mean, ci95=ends, ci95_of_prompts=ends)

    pair = HumanPair(
        a="dpo", b="start", seeds=["1"], replies=256, same_replies=16, answered=40, answers=50, ties=5, both_bad=2,
        judge=rate(0.8, 0.05), people=rate(0.6, 0.15), joined=rate(0.62, 0.1),
        agreement=Agreement(share=0.9, ci95=(0.76, 0.96), count=30), slope=0.5, worth=61.4,
    )  # fmt: skip
    human = Human(
        file="l.sqlite", instrument="judge", answers=60, used=50, unused={"both replies are the same": 10},
        weighting="drawn with equal chances", pairs=[pair],
    )  # fmt: skip
    results = made(tmp_path).model_copy(update={"human": human})
    note = people_note(results)
    assert note is not None and "By 50 answers of people, joined with the judge: dpo wins 0.62 [0.52, 0.72]" in note
    (points, table, *_) = human_section(results, {}).parts
    text = " ".join(points.items)
    for said in (
        "50 of 60 answers in l.sqlite are used", "10 (both replies are the same)", "answered 40 of 240 pairs",
        "(5 ties, 2 of them both bad)", "in 90% of 30 (95% 76% to 96%)", "worth 61: 21 saved",
        "The judge alone says 0.80, which people's answers rule out", "contradicted the judge 3 times", "only seed 1",
    ):  # fmt: skip
        assert said in text, said
    assert table.cells[1] == [
        [
            "dpo - start",
            "40",
            "0.80 [0.75, 0.85]",
            "0.60 [0.45, 0.75]",
            "0.62 [0.52, 0.72]",
            "[0.52, 0.72]",
            "90%",
            "61",
        ]
    ]
    (picture,) = human_pictures(results)
    assert picture.name == "people" and "joined 0.62 [0.52, 0.72]" in picture.text and "dpo - start" in picture.svg
    missing = human.model_copy(update={"problem": "there is no such file yet", "pairs": []})
    assert human_section(results.model_copy(update={"human": missing}), {}).parts == []
    assert human_notes(missing) == ["People's answers are not in this report: l.sqlite: there is no such file yet."]
