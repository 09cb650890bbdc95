"""Dirty records: every one that is not used is counted with a reason that names the key."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from conftest import HH_FILE
from data_files import FORMATS, look, save
from prefzoo.data import splits
from prefzoo.data.rejects import Rejects
from prefzoo.errors import DataError

USER = {"role": "user", "content": "hi"}
REPLY = {"role": "assistant", "content": "yes"}
PAIR = {"prompt": "hi", "chosen": "yes", "rejected": "no"}
VOTE = {"prompt": "hi", "response_a": "yes", "response_b": "no", "preference": "a"}
RANKED = {"prompt": "hi", "responses": ["yes", "no"], "ranks": [1, 2]}
ORDERED = {"prompt": "hi", "ranking": ["yes", "no"]}
RATED = {"prompt": "hi", "response": "yes", "rating": 3}
LISTED = {"prompt": "hi", "responses": ["yes", "no"], "ratings": [3, 1]}
SHOWN = {"prompt": "hi", "completion": "yes"}
CHAT = {"messages": [USER, REPLY]}


def without(record: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in record.items() if k != key}


TYPES = "not a text or a list of one message"
BROKEN: list[tuple[str, dict[str, Any], Any, str]] = [
    ("preferences", PAIR, {"text": "x"}, "missing_key: chosen, rejected"),
    ("preferences", PAIR, without(PAIR, "rejected"), "missing_key: rejected"),
    ("preferences", PAIR, without(PAIR, "prompt"), "missing_key: prompt"),
    ("preferences", PAIR, {**PAIR, "rejected": None}, "empty_value: rejected"),
    ("preferences", PAIR, {**PAIR, "prompt": None}, "empty_value: prompt"),
    ("preferences", PAIR, {**PAIR, "prompt": " "}, "empty_prompt"),
    ("preferences", PAIR, {**PAIR, "chosen": float("nan")}, f"wrong_type: chosen is NaN, {TYPES}"),
    ("preferences", PAIR, {**PAIR, "rejected": 3}, f"wrong_type: rejected is a number, {TYPES}"),
    ("preferences", PAIR, {**PAIR, "rejected": {"text": "no"}}, f"wrong_type: rejected is an object, {TYPES}"),
    ("preferences", PAIR, {**PAIR, "prompt": 3}, "wrong_type: prompt is a number, not a text or a list of messages"),
    ("preferences", PAIR, {**PAIR, "prompt": [USER, REPLY]}, "prompt_not_by_user"),
    ("preferences", PAIR, {**PAIR, "prompt": []}, "empty_prompt"),
    ("preferences", PAIR, {**PAIR, "chosen": [USER]}, "no_reply_at_the_end: chosen"),
    ("preferences", PAIR, {**PAIR, "chosen": [{**USER, "content": "ho"}, REPLY]}, "prompt_mismatch: chosen"),
    ("preferences", PAIR, {"chosen": [USER, REPLY], "rejected": [USER]}, "no_reply_at_the_end: rejected"),
    (
        "preferences",
        PAIR,
        {"chosen": [USER, REPLY], "rejected": [{**USER, "content": "ho"}, REPLY]},
        "prompt_mismatch: chosen, rejected",
    ),
    (
        "preferences",
        PAIR,
        {**PAIR, "prompt": [{"from": "human", "value": "hi"}]},
        "unreadable_message: prompt has one without role",
    ),
    (
        "preferences",
        PAIR,
        {**PAIR, "prompt": [{"role": "user", "content": ["hi"]}]},
        "unreadable_message: prompt has one whose content is a list",
    ),
    (
        "preferences",
        PAIR,
        {**PAIR, "prompt": [{**USER, "role": "human"}]},
        "unknown_role: prompt has 'human', not one of system, developer, user, assistant, tool",
    ),
    # What a table writes for a list of messages when nobody asked it for JSON; read as a text it would be trained on.
    ("preferences", PAIR, {**PAIR, "prompt": str([USER])}, "wrong_type: prompt is no list of messages in JSON"),
    ("preferences", PAIR, {**PAIR, "rejected": str([REPLY])}, "wrong_type: rejected is no list of messages in JSON"),
    ("preferences", PAIR, [1, 2], "not_an_object: a list"),
    ("preferences", PAIR, "text", "not_an_object: a text"),
    ("preferences", PAIR, None, "not_an_object: nothing"),
    ("preferences", VOTE, without(VOTE, "preference"), "missing_key: preference"),
    ("preferences", VOTE, {**VOTE, "preference": []}, "unreadable_label: preference is not one of"),
    ("preferences", VOTE, {**VOTE, "prompt": "ho", "preference": "tie"}, "annotators_tied"),
    ("preferences", VOTE, {**VOTE, "response_b": 7}, f"wrong_type: response_b is a number, {TYPES}"),
    ("preferences", PAIR, {**SHOWN, "label": "maybe"}, "unreadable_label: label is neither true nor false"),
    ("preferences", PAIR, {**SHOWN, "label": None}, "empty_value: label"),
    ("rankings", RANKED, without(RANKED, "ranks"), "missing_key: ranks"),
    ("rankings", RANKED, {"prompt": "hi"}, "missing_key: ranking"),
    ("rankings", RANKED, {**RANKED, "ranks": [1]}, "as_many_ranks_as_replies_needed"),
    ("rankings", RANKED, {**RANKED, "ranks": [1, "second"]}, "not_a_number: ranks"),
    ("rankings", RANKED, {**RANKED, "ranks": [1, None]}, "empty_value: ranks"),
    ("rankings", RANKED, {**RANKED, "ranks": [1, 1]}, "every_reply_tied"),
    ("rankings", RANKED, {**RANKED, "ranks": "1, 2"}, "wrong_type: ranks is a text, not a list"),
    ("rankings", RANKED, {**RANKED, "responses": "['yes', 'no']"}, "wrong_type: responses is no list in JSON"),
    ("rankings", ORDERED, {**ORDERED, "ranking": ["yes"]}, "fewer_than_two_replies"),
    ("rankings", ORDERED, {**ORDERED, "ranking": []}, "fewer_than_two_replies"),
    ("rankings", ORDERED, {**ORDERED, "ranking": ["yes", None]}, "empty_value: ranking"),
    ("rankings", ORDERED, {**ORDERED, "ranking": ["yes", "no", "yes"]}, "one_reply_at_two_ranks: ranking"),
    ("ratings", RATED, without(RATED, "rating"), "missing_key: rating"),
    ("ratings", RATED, without(RATED, "response"), "missing_key: response"),
    ("ratings", RATED, {**RATED, "rating": float("nan")}, "not_a_number: rating"),
    ("ratings", RATED, {**RATED, "rating": "N/A"}, "not_a_number: rating"),
    ("ratings", RATED, {**RATED, "rating": None}, "empty_value: rating"),
    ("ratings", RATED, {**RATED, "response": 3}, f"wrong_type: response is a number, {TYPES}"),
    ("ratings", RATED, {**LISTED, "ratings": [1]}, "as_many_ratings_as_replies_needed"),
    ("ratings", RATED, {**LISTED, "responses": []}, "empty_value: responses"),
    ("ratings", RATED, {**LISTED, "responses": [{"response": "x"}]}, "missing_key: responses has one without rating"),
    ("demonstrations", SHOWN, {"prompt": "hi"}, "missing_key: completion"),
    ("demonstrations", SHOWN, {"text": "hi"}, "missing_key: prompt, completion"),
    ("demonstrations", SHOWN, {**SHOWN, "completion": None}, "empty_value: completion"),
    ("demonstrations", CHAT, {"messages": [USER]}, "no_reply_at_the_end: messages"),
    ("demonstrations", CHAT, {"messages": [USER, REPLY, USER]}, "no_reply_at_the_end: messages"),
    ("demonstrations", CHAT, {"messages": None}, "empty_value: messages"),
    ("demonstrations", CHAT, {"messages": [REPLY]}, "no_reply_at_the_end: messages"),
    ("demonstrations", CHAT, {"messages": [REPLY, REPLY]}, "prompt_not_by_user"),
    ("prompts", {"prompt": "hi"}, {"question_text": "hi"}, "missing_key: prompt"),
    ("prompts", {"prompt": "hi"}, {"prompt": 5}, "wrong_type: prompt is a number, not a text or a list of messages"),
]


@pytest.mark.parametrize(("kind", "good", "bad", "reason"), BROKEN, ids=[f"{b[0]} {b[3][:40]}" for b in BROKEN])
def test_a_broken_record_is_counted_and_its_key_named(tmp_path, kind: str, good: Any, bad: Any, reason: str) -> None:
    found, places = look(kind, save([good, good, bad], tmp_path / "x.jsonl"))
    assert found.rows
    (said,) = places
    assert said.startswith(reason) and places[said] == ["line 3"]
    _, places = look(kind, save([good, good, bad], tmp_path / "x.json"))
    assert places == {said: ["item 3"]}


def test_the_users_own_name_of_a_key_is_told(tmp_path) -> None:
    records = [{"frage": "hi", "gut": "a", "schlecht": "b"}, {"frage": "hi", "gut": "a"}]
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    _, places = look("preferences", save(records, tmp_path / "x.jsonl"), columns=columns)
    assert places == {"missing_key: schlecht": ["line 2"]}


def test_tables_keep_what_is_missing_apart_from_what_is_there(tmp_path) -> None:
    """A Parquet table of several forms has every column; what is null in it does not decide the form."""
    records = [PAIR, VOTE, {**PAIR, "rejected": None}, {**PAIR, "chosen": "other", "note": "n"}]
    keys = dict.fromkeys(key for record in records for key in record)
    wide = [{key: record.get(key) for key in keys} for record in records]
    found, places = look("preferences", save(wide, tmp_path / "x.parquet"))
    assert [row.id for row in found.rows] == ["row 1", "row 4", "row 2"]
    assert places == {"empty_value: rejected": ["row 3"]}
    assert found.unread == ["note"]
    nested = [{**PAIR, "chosen": {"text": "yes", "by": {"name": "x"}}}, {**PAIR, "chosen": None}]
    with pytest.raises(DataError, match=r"chosen is an object, .*: 1 \(first: row 1\)"):
        look("preferences", save(nested, tmp_path / "y.parquet"))


def test_replies_that_repeat_or_tie_are_not_paired_and_that_is_counted(tmp_path) -> None:
    ranked = {"prompt": "hi", "responses": ["a", "b", "b", "c"], "ranks": [1, 2, 2, 2]}
    found, places = look("rankings", save([ranked], tmp_path / "x.jsonl"))
    assert [(row.chosen, row.rejected) for row in found.rows] == [("a", "b"), ("a", "c")]
    assert (found.unpaired.counts(), places) == ({"repeated_reply": 1, "tied_replies": 1}, {})
    rated = [{"prompt": "hi", "response": r, "rating": n, "annotator": "x"} for r, n in [("a", 9), ("b", 9), ("b", 9)]]
    found, places = look("ratings", save([*rated, {**rated[0], "rating": -40}], tmp_path / "y.jsonl"))
    assert places == {"repeated_judgement: annotator says it again": ["line 3"]}
    assert found.rated == {"replies": 2, "lowest": -40, "highest": 9}
    assert {row.reply: row.rating for row in found.rows if row.reply} == {"a": -15.5, "b": 9}


def test_half_a_character_is_dropped_before_it_stops_the_writing(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(PAIR) + "\n" + json.dumps({**PAIR, "chosen": "\ud83d"}) + "\n")
    dropped = Rejects()
    kept = splits.clean(look("preferences", path)[0].rows, dropped)
    assert [row.id for row in kept] == ["line 1"] and dropped.places() == {"half_a_character": ["line 2"]}
    whole = splits.seal({"train": kept, "validation": [], "test": [splits.Row("t", [REPLY])]}, {}, dropped)
    whole.save(tmp_path)
    assert len((tmp_path / "dropped.jsonl").read_text().splitlines()) == 1


STRANGE: list[Any] = [
    *(None, "", " ", float("nan"), float("inf"), -1, 10**400, True, "[1", "[]", '[{"role": 1}]', "Human:", "tie", "\0"),
    *([], {}, [None], [1], [[]], ["a", "a"], [USER], [REPLY], [USER, REPLY], [REPLY, USER], {"role": "user"}),
    *("\n\nHuman: hi\n\nAssistant: yes", "\ud83d", [{"response": "x", "rating": 1}, {"response": "y"}], [{"score": 2}]),
]


@pytest.mark.parametrize("name", FORMATS)
def test_no_strange_value_is_lost_or_ends_in_a_traceback(tmp_path, name: str) -> None:
    kind, write = FORMATS[name]
    good = [r for i in range(3) for r in write({k: f"{k} {i}" for k in ("prompt", "chosen", "rejected")}, i)]
    options = {"columns": {"prompt": "instruction"}} if "instruction" in good[0] else {}
    for key in good[0]:
        for value in STRANGE:
            records = [*good[1:], {**good[0], key: value}]
            dropped = Rejects()
            rows = look(kind, save(records, tmp_path / "x.jsonl"), **options)[0].rows
            assert len({row.id for row in rows}) == len(rows)
            kept = splits.clean(rows, dropped)
            assert len(kept) + dropped.total() == len(rows)
            splits.save_splits({"train": kept}, tmp_path)


@pytest.mark.skipif(not HH_FILE.is_file(), reason="the HH-RLHF sample is not beside this checkout")
def test_damage_to_real_pairs_is_found_line_by_line(tmp_path) -> None:
    with gzip.open(HH_FILE, "rt", encoding="utf-8") as file:
        lines = [next(file) for _ in range(40)]
    record = json.loads(lines[0])
    lines[10] = lines[10][: len(lines[10]) // 2] + "\n"
    lines[20] = json.dumps({**record, "rejected": record["rejected"].rpartition("\n\nAssistant:")[0]}) + "\n"
    lines[30] = json.dumps({"chosen": record["chosen"]}) + "\n"
    (tmp_path / "hh.jsonl").write_text("".join(lines))
    found, places = look("preferences", tmp_path / "hh.jsonl")
    assert places == {
        "not_json": ["line 11"],
        "no_reply_at_the_end: rejected": ["line 21"],
        "missing_key: rejected": ["line 31"],
    }
    assert found.used == 37
