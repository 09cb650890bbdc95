"""`data: {preferences: [file, store]}`: what is read of each, what the splits become, and what the key is made of."""

from __future__ import annotations

import json
import random
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from prefzoo import lab
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.feedback.feedback_types import Answer, Item
from prefzoo.feedback.store import FeedbackStore
from prefzoo.feedback.stored_records import read_store
from prefzoo.recipe.check_recipe import load
from prefzoo.run.cache import rows_fingerprint
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages.data_stage import prepare


def pairs_file(path: Path, count: int = 60) -> Path:
    rows = [{key: row[key] for key in ("prompt", "chosen", "rejected")} for row in lab.preferences("train", count, 3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def answered(path: Path, prompts: list[str], choice: str = "first", start: int = 0) -> FeedbackStore:
    """A store in which Anna says of each prompt's two replies which is better."""
    store = FeedbackStore(path, random.Random(0))
    if "anna" not in store.annotators():
        store.add_annotator("anna")
    for n, prompt in enumerate(prompts, start):
        replies = [{"text": f"Certainly {n}.", "policy": None}, {"text": f"No way {n}.", "policy": None}]
        item = Item(store.item_id(prompt, n), "compare", [{"role": "user", "content": prompt}], replies)
        store.add_items([item])
        strength = "better" if choice in ("first", "second") else None
        store.record(
            Answer(f"id {n}", item.item_id, "anna", "compare", {"choice": choice, "strength": strength}, at=1e9 + n)
        )
    return store


def prepared(folder: Path, sources: Any, **data: Any) -> tuple[dict[str, list[dict]], dict, dict, str]:
    """Rows by split, manifest, preflight, and the name of the stage's folder, which has its key."""
    content = {"extends": "base", "algorithms": {"dpo": {}}, "data": {"preferences": sources, **data}}
    plan = make_plan(load(content), folder)
    stage = plan.stages["data"]
    out = folder / stage.folder.name
    out.mkdir(parents=True)
    prepare(plan, stage, out, lambda what, done, total: None)
    rows = {
        name: [json.loads(line) for line in (out / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "validation", "test")
    }
    manifest, preflight = (json.loads((out / f"{name}.json").read_text()) for name in ("manifest", "preflight"))
    return rows, manifest, preflight, stage.folder.name


def test_labels_that_are_added_move_no_row_and_train_on_no_test_prompt(tmp_path: Path) -> None:
    file = pairs_file(tmp_path / "pairs.jsonl")
    before, alone, *_ = prepared(tmp_path / "alone", str(file))
    assert "sources" not in alone
    known = {name: [row["prompt"][-1]["content"] for row in rows] for name, rows in before.items()}
    new = [f"How much is item {n}?" for n in range(20)]
    asked = [*new, *known["train"][:4], *known["validation"][:2], *known["test"][:3]]
    answered(tmp_path / "labels.sqlite", asked)
    after, manifest, preflight, _ = prepared(tmp_path / "both", [str(file), str(tmp_path / "labels.sqlite")])
    for split in ("validation", "test"):
        assert after[split] == before[split] and manifest["splits"][split] == alone["splits"][split]
    assert after["train"][: len(before["train"])] == before["train"]
    added = after["train"][len(before["train"]) :]
    assert [row["prompt"][-1]["content"] for row in added] == [*new, *known["train"][:4]]
    assert [(row["chosen"], row["rejected"]) for row in added[:2]] == [
        ("Certainly 0.", "No way 0."),
        ("Certainly 1.", "No way 1."),
    ]
    assert preflight["dropped"]["held_out_prompt"] == 5
    assert preflight["dropped_rows"]["held_out_prompt"][0] == "labels.sqlite answer 25"
    assert [source["rows"] for source in manifest["sources"]] == [
        {name: len(rows) for name, rows in before.items()},
        {"train": 24, "validation": 0, "test": 0},
    ]
    assert manifest["sources"][1] | {"rows": 0} == {
        "key": "preferences[1]",
        "source": "labels.sqlite",
        "read": 29,
        "made": 29,
        "rows": 0,
    }


def test_what_people_said_is_the_key_and_not_the_file(tmp_path: Path) -> None:
    store = answered(tmp_path / "labels.sqlite", ["a", "b", "c"])
    path = str(store.path)
    before = rows_fingerprint("preferences", path)
    store.add_items([Item("more", "compare", [{"role": "user", "content": "d"}], [{"text": "x"}, {"text": "y"}])])
    store.add_annotator("ben")
    store.next_item("ben")
    writing = sqlite3.connect(path, isolation_level=None)
    writing.execute("BEGIN IMMEDIATE")  # another process writes: readers see what was there before
    writing.execute('UPDATE answers SET value_json = \'{"choice": "second", "strength": null}\'')
    assert rows_fingerprint("preferences", path) == before
    writing.execute("ROLLBACK")
    store.undo("anna")
    fewer = rows_fingerprint("preferences", path)
    assert fewer != before and len(read_store(path, "preferences").records) == 2
    writing.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    writing.execute("VACUUM")
    assert rows_fingerprint("preferences", path) == fewer


def test_a_store_may_be_alone_or_empty_beside_a_file_and_gives_each_kind_its_own(tmp_path: Path) -> None:
    file = pairs_file(tmp_path / "pairs.jsonl")
    FeedbackStore(tmp_path / "empty.sqlite").close()
    rows, manifest, *_ = prepared(tmp_path / "run", [str(file), str(tmp_path / "empty.sqlite")])
    assert [source["made"] for source in manifest["sources"]] == [60, 0] and rows["train"]
    store = answered(tmp_path / "feedback", [f"question {n}" for n in range(40)], "second")  # by content, not by name
    store.add_items([Item("liked", "thumb", [{"role": "user", "content": "z"}], [{"text": "Yes."}])])
    store.record(Answer("thumb", "liked", "anna", "thumb", {"liked": True}))
    gold = {"choice": "first", "strength": None}
    store.add_items(
        [Item("gold", "compare", [{"role": "user", "content": "z"}], [{"text": "1"}, {"text": "2"}], gold=gold)]
    )
    store.record(Answer("checked", "gold", "anna", "compare", {"choice": "first", "strength": "better"}))
    rows, _, preflight, _ = prepared(tmp_path / "alone", str(store.path))
    every = [row for split in rows.values() for row in split]
    assert len(every) == 41 and sum(row["liked"] is True for row in every) == 1
    assert all(row["chosen"].startswith("No way") for row in every if row["chosen"])
    assert preflight["dropped"] == {"gold_question": 1}
    assert preflight["annotators"]["preferences"]["judgements"] == 40


@pytest.mark.parametrize(
    ("second", "said"),
    [
        ("missing.jsonl", "data.preferences[1]: .*missing.jsonl' is neither a file"),
        ("text.sqlite", r"data.preferences\[1\]: .*does not end in one of"),
        ("stranger.sqlite", r"data.preferences\[1\]: .*is a database, but not one of feedback"),
        ("newer.sqlite", r"data.preferences\[1\]: .*in version 7 of its form, and this prefzoo reads version 1"),
        ("pairs.jsonl", "is given twice"),
    ],
)
def test_a_source_that_cannot_be_read_is_named_by_its_place(tmp_path: Path, second: str, said: str) -> None:
    file = pairs_file(tmp_path / "pairs.jsonl", 4)
    (tmp_path / "text.sqlite").write_text("no database")
    with sqlite3.connect(tmp_path / "stranger.sqlite") as db:
        db.execute("CREATE TABLE mine (a TEXT)")
    FeedbackStore(tmp_path / "newer.sqlite").close()
    with sqlite3.connect(tmp_path / "newer.sqlite") as db:
        db.execute("PRAGMA user_version = 7")
    content = {
        "extends": "base",
        "algorithms": {"dpo": {}},
        "data": {"preferences": [str(file), str(tmp_path / second)]},
    }
    with pytest.raises(RecipeError, match=said.replace("[1]:", r"\[1\]:") if "\\" not in said else said):
        load(content)


def test_columns_name_those_of_files_and_never_those_of_a_store(tmp_path: Path) -> None:
    file = pairs_file(tmp_path / "pairs.jsonl")
    file.write_text(file.read_text().replace('"chosen"', '"good"'))
    answered(tmp_path / "labels.sqlite", ["new 1", "new 2"])
    sources = [str(file), str(tmp_path / "labels.sqlite")]
    rows, manifest, *_ = prepared(tmp_path / "run", sources, columns={"chosen": "good"})
    assert manifest["sources"][1]["rows"]["train"] == 2 and rows["train"][-1]["chosen"] == "Certainly 1."
    with pytest.raises(PrefzooError, match=r"data\.columns\.chosen: unknown column 'goods'"):
        prepared(tmp_path / "wrong", sources, columns={"chosen": "goods"})
