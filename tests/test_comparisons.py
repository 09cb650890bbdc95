"""From records to rows: pairs out of rankings, ratings, labels and annotators; demonstrations and prompts."""

from __future__ import annotations

from typing import Any

import pytest

from data_files import one, save
from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_rows import read_rows


def said(reply: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply}]


def better(rows: list[Row]) -> list[tuple[str | None, str | None]]:
    return [(row.chosen, row.rejected) for row in rows if row.chosen]


@pytest.mark.parametrize("how", ["all", "adjacent"])
def test_rankings_and_ratings_make_the_pairs_that_they_should(tmp_path, how) -> None:
    ranked = [{"prompt": "q", "responses": ["c", "a", "b1", "b2"], "ranks": [3, 1, 2, 2]}]
    found = read_rows("rankings", str(save(ranked, tmp_path / "x.jsonl")), ReadOptions(pairs=how))
    rows = found.rows
    near = {("a", "b1"), ("a", "b2"), ("b1", "c"), ("b2", "c")}
    assert set(better(rows)) == (near | {("a", "c")} if how == "all" else near)
    assert found.unpaired.counts() == {"tied_replies": 1}
    assert [row.ranking for row in rows if row.ranking] == []  # two replies share a rank: no order of all four
    rated = [{"prompt": "q", "responses": ["c", "a", "b1", "b2"], "ratings": [0, 10, 5, 5]}]
    rows, _ = one("ratings", rated, tmp_path, pairs=how)
    assert set(better(rows)) == (near | {("a", "c")} if how == "all" else near)
    assert {row.reply: row.rating for row in rows if row.reply} == {"a": 10, "b1": 5, "b2": 5, "c": 0}
    rows, _ = one("rankings", [{"prompt": "q", "ranking": ["a", "b", "c"]}], tmp_path, pairs=how)
    assert better(rows) == [("a", "b"), ("a", "c"), ("b", "c")] if how == "all" else [("a", "b"), ("b", "c")]
    assert rows[-1].ranking == ["a", "b", "c"]


def test_annotators_are_counted_with_ties_and_disagreement(tmp_path) -> None:
    def vote(prompt: str, preference: Any, a: str = "x", b: str = "y") -> dict[str, Any]:
        return {"prompt": prompt, "response_a": a, "response_b": b, "preference": preference, "annotator": "p"}

    records = [
        vote("one", ["a", "a", "b"]),
        vote("tied", "a"),
        vote("tied", "b"),
        vote("turned", "a"),
        {**vote("turned", "b", "y", "x"), "annotator": "q"},
        vote("turned", "b", "y", "x"),
        vote("even", ["tie", "a"]),
        vote("alone", "b"),
        vote("typo", "c"),
    ]
    found = read_rows("preferences", str(save(records, tmp_path / "x.jsonl")))
    assert {(r.prompt[0]["content"], r.chosen) for r in found.rows} == {
        ("one", "x"),
        ("turned", "x"),
        ("even", "x"),
        ("alone", "y"),
    }
    assert found.dropped.places() == {
        "annotators_tied": ["line 2", "line 3"],
        "repeated_judgement: annotator says it again": ["line 6"],
        "unreadable_label: preference is not one of a, response_a, b, response_b, tie, both, neither": ["line 9"],
    }
    assert (found.read, found.used) == (9, 5)
    counts = {"items": 5, "judgements": 10, "items_with_several": 4, "disagreed": 3}
    assert {key: found.annotators[key] for key in counts} == counts
    rated = [{"prompt": "q", "response": r, "rating": n} for r, n in [("a", 3), ("a", 5), ("b", 5), ("b", 5)]]
    found = read_rows("ratings", str(save(rated, tmp_path / "y.jsonl")))
    assert {row.reply: row.rating for row in found.rows if row.reply} == {"a": 4.0, "b": 5.0}
    assert better(found.rows) == [("b", "a")]
    counts = {"items": 2, "judgements": 4, "items_with_several": 2, "disagreed": 1}
    assert {key: found.annotators[key] for key in counts} == counts


def test_what_does_not_fit_its_format_is_dropped_with_a_reason(tmp_path) -> None:
    good = {"prompt": "q", "response": "r", "rating": 1}
    rows, dropped = one(
        "ratings",
        [
            good,
            {**good, "rating": "much"},
            {**good, "rating": True},
            {**good, "prompt": None},
            {**good, "response": None},
        ],
        tmp_path,
    )
    assert len(rows) == 1
    assert dropped.counts() == {"empty_prompt": 1, "not_a_number: rating": 2, "empty_value: response": 1}
    ranked = {"prompt": "q", "ranking": ["a", "b"]}
    broken = [{"prompt": "q", "ranking": ["a"]}, {"prompt": "q", "responses": ["a", "b"], "ranks": [1]}]
    _, dropped = one("rankings", [ranked, *broken], tmp_path)
    assert dropped.counts() == {"as_many_ranks_as_replies_needed": 1, "fewer_than_two_replies": 1}
    thumb = {"prompt": "q", "completion": "x", "label": True}
    rows, dropped = one(
        "preferences", [thumb, {**thumb, "completion": "y", "label": False}, {**thumb, "prompt": "z"}], tmp_path
    )
    assert better(rows) == [("x", "y")] and not dropped.counts()
    assert [(row.reply, row.liked) for row in rows] == [(None, None), ("x", True)]


def test_demonstrations_and_prompts(tmp_path) -> None:
    rows, dropped = one(
        "demonstrations",
        [
            {"prompt": "q", "completion": "r"},
            {"messages": [{"role": "user", "content": "q2"}, *said("r2")]},
            {"messages": [{"role": "user", "content": "q2"}]},
        ],
        tmp_path,
    )
    assert [(row.prompt[0]["content"], row.demonstration) for row in rows] == [("q", "r"), ("q2", "r2")]
    assert dropped.counts() == {"no_reply_at_the_end: messages": 1}
    text = tmp_path / "prompts.txt"
    text.write_text("first, with {braces}\n\n  [1, 2]\n")
    rows = read_rows("prompts", str(text)).rows
    assert [(row.id, row.prompt[0]["content"]) for row in rows] == [
        ("line 1", "first, with {braces}"),
        ("line 3", "  [1, 2]"),
    ]
    (tmp_path / "p.csv").write_text('prompt\n"[1, 2]"\n"a, b"\n')
    rows = read_rows("prompts", str(tmp_path / "p.csv")).rows
    assert [row.prompt[0]["content"] for row in rows] == ["[1, 2]", "a, b"]
