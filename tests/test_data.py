"""Reading, cleaning, splitting, sealing."""

from __future__ import annotations

import gzip
import json

import pytest

from conftest import HH_FILE
from prefzoo.data import splits
from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.data.row_views import views_of
from prefzoo.errors import DataError
from prefzoo.views import prompt_key

USER = {"role": "user", "content": "hi"}


def transcript(*turns: str) -> str:
    return "".join(f"\n\n{'Human' if i % 2 == 0 else 'Assistant'}: {turn}" for i, turn in enumerate(turns))


def write(path, records) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as file:
        file.writelines((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)
    return str(path)


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz"])
def test_formats_become_the_same_row(tmp_path, name: str) -> None:
    chat = [USER]
    good, bad = {"role": "assistant", "content": "yes"}, {"role": "assistant", "content": "no"}
    result = read_rows(
        "preferences",
        write(
            tmp_path / name,
            [
                {"chosen": transcript("hi", "yes"), "rejected": transcript("hi", "no")},
                {"chosen": [*chat, good], "rejected": [*chat, bad]},
                {"prompt": chat, "chosen": [good], "rejected": [bad]},
                {"prompt": "hi", "chosen": "yes", "rejected": "no"},
                {"prompt": "hi", "chosen": [*chat, good], "rejected": [*chat, bad]},
                {"prompt": "hi", "chosen": transcript("hi", "yes"), "rejected": transcript("hi", "no")},
            ],
        ),
    )
    rows = result.rows
    assert not result.dropped.rows
    assert {(json.dumps(r.prompt), r.chosen, r.rejected) for r in rows} == {(json.dumps(chat), "yes", "no")}
    assert [r.id for r in rows] == [f"line {i}" for i in range(1, 7)]


def test_a_transcript_is_cut_at_its_last_assistant_turn(tmp_path) -> None:
    a, b = transcript("one", "two", "three", "four: a\n\nb"), transcript("one", "two", "three", "")
    row = read_rows("preferences", write(tmp_path / "x.jsonl", [{"chosen": a, "rejected": b}])).rows[0]
    assert [turn["role"] for turn in row.prompt] == ["user", "assistant", "user"]
    assert (row.chosen, row.rejected) == ("four: a\n\nb", "")


def test_what_cannot_be_used_is_named_with_its_reason(tmp_path) -> None:
    good = {"chosen": transcript("hi", "yes"), "rejected": transcript("hi", "no")}
    records = [
        good,
        good,
        {"chosen": transcript("hi", "same"), "rejected": transcript("hi", "same")},
        {"chosen": transcript("hi", "yes"), "rejected": transcript("hi", "  ")},
        {"chosen": transcript("other", "yes"), "rejected": transcript("hi", "no")},
        {"chosen": transcript("hi"), "rejected": transcript("hi", "no")},
        {"only": "this"},
        "{not json",
        {"chosen": 3, "rejected": "no"},
        {"prompt": "", "chosen": "a", "rejected": "b"},
        {"prompt": "hi", "chosen": transcript("other", "a"), "rejected": transcript("other", "b")},
        {"prompt": [USER, {"role": "assistant", "content": "yes?"}], "chosen": "a", "rejected": "b"},
    ]
    result = read_rows("preferences", write(tmp_path / "x.jsonl", records))
    dropped = result.dropped
    kept = splits.clean(result.rows, dropped)
    assert [row.id for row in kept] == ["line 1"]
    assert {reason: [row for row, _ in rows] for reason, rows in dropped.rows.items()} == {
        "duplicate_row": ["line 2"],
        "identical_pair": ["line 3"],
        "empty_reply": ["line 4"],
        "prompt_mismatch: chosen, rejected": ["line 5"],
        "prompt_mismatch: chosen": ["line 11"],
        "no_reply_at_the_end: chosen": ["line 6"],
        "missing_key: chosen, rejected": ["line 7"],
        "not_json": ["line 8"],
        "wrong_type: chosen is a number, not a text or a list of messages": ["line 9"],
        "empty_prompt": ["line 10"],
        "prompt_not_by_user": ["line 12"],
    }


def test_a_hub_id_is_loaded_through_datasets(monkeypatch) -> None:
    import datasets

    asked = {}

    def load_dataset(name, split, revision, data_dir):
        asked.update(name=name, split=split, revision=revision, data_dir=data_dir)
        return datasets.Dataset.from_list([{"chosen": transcript("hi", "yes"), "rejected": transcript("hi", "no")}])

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    options = ReadOptions(split="train_prefs", revision="abc", data_dir="part")
    rows = read_rows("preferences", "someone/pairs", options).rows
    assert asked == {"name": "someone/pairs", "split": "train_prefs", "revision": "abc", "data_dir": "part"}
    assert (rows[0].id, rows[0].chosen) == ("row 1", "yes")


def test_bad_sources_are_refused_in_words(tmp_path) -> None:
    with pytest.raises(DataError, match="neither a file"):
        read_rows("preferences", str(tmp_path / "missing.jsonl"))
    with pytest.raises(DataError, match="A row needs 'chosen' and 'rejected'"):
        read_rows("preferences", write(tmp_path / "x.jsonl", [{"text": "hi"}]))
    with pytest.raises(DataError, match="could not be loaded"):
        read_rows("preferences", "no/such")


def rows_of(*prompts: str) -> list[Row]:
    return [Row(f"line {i}", [{"role": "user", "content": p}], f"good {i}", f"bad {i}") for i, p in enumerate(prompts)]


def test_splits_share_no_prompt_and_do_not_depend_on_the_other_rows() -> None:
    rows = rows_of(*[f"question {i % 150}" for i in range(300)])
    fractions = {"train": 0.7, "validation": 0.1, "test": 0.2}
    parts = splits.split_by_prompt(rows, fractions, 0)
    where = {prompt_key(row.prompt): name for name, part in parts.items() for row in part}
    assert sum(map(len, parts.values())) == 300
    for name, part in parts.items():
        assert all(where[prompt_key(row.prompt)] == name for row in part)
    assert 0.6 < len(parts["train"]) / 300 < 0.8 and parts["validation"] and parts["test"]
    fewer = splits.split_by_prompt(rows[::2], fractions, 0)
    assert all(where[prompt_key(row.prompt)] == name for name, part in fewer.items() for row in part)
    splits.seal(parts, {}, Rejects())
    parts["test"].append(parts["train"][0])
    with pytest.raises(DataError, match="both train and test"):
        splits.seal(parts, {}, Rejects())


def test_case_and_white_space_do_not_make_a_new_prompt() -> None:
    assert prompt_key([{"role": "user", "content": "Hello  World "}]) == prompt_key(
        [{"role": "user", "content": "hello world"}]
    )


def test_the_manifest_changes_with_one_character_and_with_order() -> None:
    def sha(rows: list[Row]) -> str:
        return splits.seal({"train": rows, "validation": [], "test": rows_of("t")}, {}, Rejects()).manifest["sha256"]

    rows = rows_of("a", "b")
    edited = [rows[0], Row(rows[1].id, rows[1].prompt, rows[1].chosen, "bad 1!")]
    assert len({sha(rows), sha(edited), sha(rows[::-1])}) == 3
    assert sha(rows) == sha(rows_of("a", "b"))


def test_long_prompts_lose_their_oldest_turns_and_long_replies_their_row() -> None:
    long = [
        {"role": "user", "content": "old " * 20},
        {"role": "assistant", "content": "old"},
        {"role": "user", "content": "new question"},
    ]
    rows = [
        Row("a", long, "x", "y"),
        Row("b", [{"role": "user", "content": "word " * 30 + "end"}], "x", "y"),
        Row("c", [USER], "x " * 30, "y"),
    ]
    dropped = Rejects()

    def tokens(prompt) -> int:
        return sum(len(turn["content"].split()) for turn in prompt)

    def reply_tokens(replies) -> list[int]:
        return [len(reply.split()) for reply in replies]

    kept, shortened = splits.fit_lengths(rows, dropped, lambda prompts: [*map(tokens, prompts)], reply_tokens, 10, 10)
    assert [row.id for row in kept] == shortened == ["a", "b"]
    assert kept[0].prompt == [long[2]]
    assert kept[1].prompt[0]["content"].endswith("end") and tokens(kept[1].prompt) <= 10
    assert dropped.counts() == {"reply_too_long": 1}


def test_the_budget_keeps_the_same_prompts_whatever_the_order() -> None:
    rows = rows_of(*[f"q{i}" for i in range(50)])
    few = {row.id for row in splits.limit_prompts(rows, 10)}
    assert len(few) == 10 and few == {row.id for row in splits.limit_prompts(rows[::-1], 10)}


def test_views_derive_from_the_same_rows_and_shuffling_swaps_about_half() -> None:
    rows = rows_of(*[f"q{i % 90}" for i in range(100)])
    views = views_of(rows)
    assert (len(views.prompts), len(views.preferences), len(views.chosen())) == (90, 100, 100)
    shuffled = views.with_shuffled_labels(1)
    swapped = sum(a["chosen"] != b["chosen"] for a, b in zip(views.preferences, shuffled.preferences, strict=True))
    assert 30 < swapped < 70
    assert shuffled == views.with_shuffled_labels(1) != views.with_shuffled_labels(2)


@pytest.mark.skipif(not HH_FILE.is_file(), reason="the HH-RLHF sample is not beside this checkout")
def test_the_real_pairs_are_read_whole() -> None:
    result = read_rows("preferences", str(HH_FILE))
    dropped = result.dropped
    rows = splits.clean(result.rows, dropped)
    assert len(rows) + sum(dropped.counts().values()) == 1500
    assert dropped.counts()["empty_reply"] == 4
    assert len(splits.repeated(rows)) == 2
