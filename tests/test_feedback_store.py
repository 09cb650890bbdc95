"""The file that keeps people's answers: nothing lost, nothing twice, everyone a queue."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import uuid
from pathlib import Path
from typing import Any

import pytest

from prefzoo.errors import PrefzooError
from prefzoo.feedback.feedback_types import Answer, AnsweredAlready, FeedbackError, Item
from prefzoo.feedback.store import FeedbackStore


def pairs(count: int, kind: str = "compare", **more: Any) -> list[Item]:
    return [
        Item(f"i{n}", kind, [{"role": "user", "content": f"question {n}"}],
             [{"text": f"answer {n}", "policy": "start"}, {"text": f"other answer {n}", "policy": "dpo"}], **more)
        for n in range(count)
    ]  # fmt: skip


def answer(item_id: str, annotator: str, choice: str = "first", **more: Any) -> Answer:
    strength = "better" if choice in ("first", "second") else None
    value = {"choice": choice, "strength": strength}
    return Answer(uuid.uuid4().hex, item_id, annotator, more.pop("kind", "compare"), value, **more)


@pytest.fixture
def store(tmp_path: Path) -> FeedbackStore:
    opened = FeedbackStore(tmp_path / "labels.sqlite", random.Random(0))
    opened.add_items(pairs(30))
    for name in ("anna", "ben"):
        opened.add_annotator(name)
    return opened


def test_an_answer_is_written_once_and_undone_once(store: FeedbackStore) -> None:
    shown = store.next_item("anna")
    assert shown is not None and store.current_item("anna") == shown == store.next_item("anna")  # until it is answered
    first = answer(shown.item.item_id, "anna", shown_order=shown.order)
    assert store.record(first) and not store.record(first)  # sent twice
    with pytest.raises(AnsweredAlready):
        store.record(answer(shown.item.item_id, "anna", "second"))
    following = store.next_item("anna")
    assert following is not None and following.item != shown.item
    undone = store.undo("anna")
    assert undone is not None and undone.item_id == shown.item.item_id
    again = store.current_item("anna")
    assert again is not None and (again.item.item_id, again.order) == (shown.item.item_id, shown.order)
    assert not store.record(first)  # a late repetition does not bring it back
    assert store.answers() == [] and len(store.answers(live=False)) == 1
    assert store.record(answer(shown.item.item_id, "anna", "tie"))
    assert store.current_item("anna") == following
    assert [kept.value["choice"] for kept in store.answers("compare")] == ["tie"]
    assert store.undo("ben") is None


def test_a_file_of_another_form_is_refused_in_words(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    FeedbackStore(path).close()
    FeedbackStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 7")
    with pytest.raises(PrefzooError, match="version 7 of its form, and this prefzoo reads version 1"):
        FeedbackStore(path)
    with sqlite3.connect(tmp_path / "other.sqlite") as db:
        db.execute("CREATE TABLE t (x)")
    with pytest.raises(PrefzooError, match="not one of feedback"):
        FeedbackStore(tmp_path / "other.sqlite")
    (tmp_path / "text.sqlite").write_text("no database" * 100)
    with pytest.raises(PrefzooError, match=r"text\.sqlite cannot be used as a file of feedback"):
        FeedbackStore(tmp_path / "text.sqlite")
    with pytest.raises(PrefzooError, match="cannot be used as a file of feedback"):
        FeedbackStore(tmp_path / "no folder" / "labels.sqlite")


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("compare", {"choice": "third"}),
        ("compare", {"choice": "tie", "strength": "better"}),
        ("compare", {"choice": ["first"]}),
        ("compare", "first"),
        ("ab", {"choice": "first", "strength": "much"}),
        ("rank", {"ranks": [1]}),
        ("rank", {"ranks": [1, True]}),
        ("rank", {"ranks": [0, 3]}),
        ("rate", {"ratings": {}}),
        ("rate", {"ratings": {"safety": 11}}),
        ("rate", {"ratings": {"safety": float("nan")}}),
        ("span", {"spans": [{"start": 2, "end": 2, "reason": "x"}]}),
        ("span", {"spans": [{"start": 0, "end": 99, "reason": "x"}]}),
        ("span", {"spans": [{"start": 0, "end": 2, "reason": " "}]}),
        ("rewrite", {"text": " \n"}),
        ("rewrite", {"text": "half \ud800"}),
        ("rewrite", {"text": "x" * 200_000}),
        ("thumb", {"liked": 1}),
    ],
)
def test_what_is_no_answer_is_refused_and_leaves_nothing(tmp_path: Path, kind: str, value: Any) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite")
    replies = [{"text": "one", "policy": None}, {"text": "two", "policy": None}]
    count = 2 if kind in ("compare", "ab", "rank") else 1
    store.add_items([Item("i", kind, [{"role": "user", "content": "?"}], replies[:count])])
    store.add_annotator("anna")
    with pytest.raises(FeedbackError):
        store.record(Answer("a", "i", "anna", kind, value))
    assert store.answers(live=False) == []


def test_items_annotators_and_ids_that_do_not_fit_are_refused(store: FeedbackStore) -> None:
    for wrong in (answer("none", "anna"), answer("i1", "nobody"), answer("i1", "anna", kind="ab"),
                  answer("i1", "anna", shown_order=[1, 1]), answer("i1", "anna", seconds=float("inf"))):  # fmt: skip
        with pytest.raises(FeedbackError):
            store.record(wrong)
    kept = answer("i1", "anna")
    store.record(kept)
    with pytest.raises(AnsweredAlready):
        store.record(Answer(kept.answer_id, "i2", "ben", "compare", kept.value))
    with pytest.raises(FeedbackError, match="replies are not what"):
        store.add_items([Item("x", "compare", [{"role": "user", "content": "?"}], [{"text": "one"}])])
    for name in ("", " ", "a\nb", "x" * 101):
        with pytest.raises(FeedbackError):
            store.add_annotator(name)


def test_tokens_are_told_apart_and_kept_as_hashes_alone(store: FeedbackStore) -> None:
    link = store.add_annotator("carl")
    session = store.open_session("carl")
    assert store.annotator_of(link) == store.annotator_of(session) == "carl"
    renewed = store.add_annotator("carl")
    assert store.annotator_of(link) is None and store.annotator_of(renewed) == store.annotator_of(session) == "carl"
    for forged in ("", renewed[:-1], renewed + "x", "' OR 1=1 --", "\ud800"):
        assert store.annotator_of(forged) is None
    store.close()
    assert not any(token.encode() in store.path.read_bytes() for token in (link, session, renewed))


def test_everyone_has_a_queue_and_meets_on_the_common_share(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite", random.Random(1))
    store.add_items(pairs(300))
    assert store.add_items(pairs(300)) == 0  # a restart adds nothing
    store.setting("overlap", "0.3")
    for name in ("anna", "ben"):
        store.add_annotator(name)
    for _ in range(40):
        for name in ("anna", "ben"):
            shown = store.next_item(name)
            assert shown is not None
            store.record(answer(shown.item.item_id, name))
    seen = {name: {a.item_id for a in store.answers() if a.annotator == name} for name in ("anna", "ben")}
    both = seen["anna"] & seen["ben"]
    assert len(seen["anna"]) == len(seen["ben"]) == 40 and 4 <= len(both) <= 22  # 12 expected
    assert store.progress("anna")["answered"] == 40
    while (shown := store.next_item("anna")) is not None:
        store.record(answer(shown.item.item_id, "anna"))
    assert store.progress("anna")["left"] == 0
    assert {a.item_id for a in store.answers()} == {f"i{n}" for n in range(300)}  # nobody's item is forgotten


def test_what_the_reward_is_least_sure_of_comes_first_with_a_known_probability(tmp_path: Path) -> None:
    from dataclasses import replace

    store = FeedbackStore(tmp_path / "labels.sqlite", random.Random(2))
    store.add_items(replace(item, uncertainty=n / 100) for n, item in enumerate(pairs(100)))
    store.setting("rule", "uncertain")
    store.add_annotator("anna")
    drawn = []
    for left in range(100, 60, -1):
        shown = store.next_item("anna")
        assert shown is not None
        first = shown.probability > 0.5 / left  # among the first tenth
        assert shown.probability == pytest.approx(0.1 / left + (0.9 / max(1, round(left / 10)) if first else 0))
        drawn.append(int(shown.item.item_id[1:]))
        store.record(answer(shown.item.item_id, "anna"))
    assert sum(drawn) / 40 > 70
    assert {item.probability for item in store.items() if int(item.item_id[1:]) not in drawn} == {1.0}
    assert [a.probability for a in store.answers()] == [
        next(i.probability for i in store.items() if i.item_id == a.item_id) for a in store.answers()
    ]


def test_what_annotators_disagree_on_comes_first(store: FeedbackStore) -> None:
    store.setting("rule", "disagreement")
    store.setting("overlap", "0")
    for n in range(10):
        store.record(answer(f"i{n}", "anna"))
        store.record(answer(f"i{n}", "ben", "second" if n == 3 else "first"))
    hits = 0
    for third in range(40):
        store.add_annotator(f"third {third}")
        shown = store.next_item(f"third {third}")
        assert shown is not None
        hits += shown.item.item_id == "i3"
    assert hits > 25  # 36 expected


def test_gold_questions_are_mixed_in_and_leave_no_data(store: FeedbackStore, tmp_path: Path) -> None:
    store.add_items([Item(f"g{n}", "compare", *_gold(n)) for n in range(5)])  # type: ignore[misc]
    while (shown := store.next_item("anna")) is not None:
        store.record(answer(shown.item.item_id, "anna"))
    asked = [a.item_id for a in store.answers() if a.item_id.startswith("g")]
    assert sorted(asked) == [f"g{n}" for n in range(5)]
    assert store.export(tmp_path / "out.jsonl", "compare") == {"written": 30, "gold": 5, "all_tied": 0}


def _gold(n: int) -> tuple[Any, ...]:
    replies = [{"text": "right", "policy": None}, {"text": "wrong", "policy": None}]
    return [{"role": "user", "content": f"gold {n}"}], replies, "gold", None, 1.0, {"choice": "first", "strength": None}


def test_answers_from_many_threads_are_all_there_once(store: FeedbackStore) -> None:
    names = [f"t{n}" for n in range(8)]
    for name in names:
        store.add_annotator(name)
    store.setting("overlap", "1")

    def label(name: str) -> None:
        while (shown := store.next_item(name)) is not None:
            said = answer(shown.item.item_id, name)
            store.record(said)
            store.record(said)
        store.close()

    threads = [threading.Thread(target=label, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted((a.annotator, a.item_id) for a in store.answers()) == sorted(
        (n, f"i{i}") for n in names for i in range(30)
    )


def test_which_side_stands_first_is_chance(tmp_path: Path) -> None:
    store = FeedbackStore(tmp_path / "labels.sqlite", random.Random(3))
    store.add_items(pairs(200))
    store.add_annotator("anna")
    turned = 0
    while (shown := store.next_item("anna")) is not None:
        turned += shown.order[0]
        store.record(answer(shown.item.item_id, "anna", shown_order=shown.order))
    assert 72 < turned < 128  # four standard deviations about 100
    assert json.dumps([item.item_id for item in store.items()])
