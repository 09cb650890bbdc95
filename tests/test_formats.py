"""Every format that preferences come in: the same 200 of them are the same data and teach the same."""

from __future__ import annotations

import csv
import gzip
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import prefzoo
from prefzoo.data import sealed
from prefzoo.data.comparisons import read_rows
from prefzoo.data.formats import Dropped, Row
from prefzoo.data.reading import Options
from prefzoo.data.views import Views
from prefzoo.errors import DataError

Pair = dict[str, str]


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    from prefzoo import lab

    return [{k: p[k] for k in ("prompt", "chosen", "rejected")} for p in lab.preferences("train", 200, 5)]


def user(pair: Pair) -> list[dict[str, str]]:
    return [{"role": "user", "content": pair["prompt"]}]


def said(reply: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": reply}]


def transcript(pair: Pair, side: str) -> str:
    return f"\n\nHuman: {pair['prompt']}\n\nAssistant: {pair[side]}"


def voters(pair: Pair, i: int) -> list[Pair]:
    """Three annotators, of whom one disagrees; on which side the better reply stands changes."""
    sides = ("chosen", "rejected") if i % 2 else ("rejected", "chosen")
    best = "ab"[sides.index("chosen")]
    worst = "ba"[sides.index("chosen")]
    base = {"prompt": pair["prompt"], "response_a": pair[sides[0]], "response_b": pair[sides[1]]}
    return [{**base, "annotator": f"p{n}", "preference": p} for n, p in enumerate((best, worst, best))]


def both(rows: list[Any], i: int) -> list[Any]:
    return rows if i % 2 else rows[::-1]


FORMATS: dict[str, tuple[str, Callable[[Pair, int], list[Any]]]] = {
    "standard": ("preferences", lambda p, i: [p]),
    "question": ("preferences", lambda p, i: [{"question": p["prompt"], **{k: p[k] for k in ("chosen", "rejected")}}]),
    "conversational": (
        "preferences",
        lambda p, i: [{"prompt": user(p), "chosen": said(p["chosen"]), "rejected": said(p["rejected"])}],
    ),
    "implicit prompt": (
        "preferences",
        lambda p, i: [{side: [*user(p), *said(p[side])] for side in ("chosen", "rejected")}],
    ),
    "hh transcripts": (
        "preferences",
        lambda p, i: [{side: transcript(p, side) for side in ("chosen", "rejected")}],
    ),
    "ultrafeedback_binarized": (
        "preferences",
        lambda p, i: [
            {
                "prompt": p["prompt"],
                "prompt_id": str(i),
                **{side: [*user(p), *said(p[side])] for side in ("chosen", "rejected")},
                "messages": [*user(p), *said(p["chosen"])],
                "score_chosen": 8.0,
                "score_rejected": 3.0,
            }
        ],
    ),
    "a/b labels": (
        "preferences",
        lambda p, i: [
            {"prompt": p["prompt"], "response_a": p["chosen"], "response_b": p["rejected"], "preference": "A"}
            if i % 2
            else {"prompt": p["prompt"], "response_a": p["rejected"], "response_b": p["chosen"], "preference": "b"}
        ],
    ),
    "rows by annotator": ("preferences", voters),
    "lists of labels": (
        "preferences",
        lambda p, i: [
            {**voters(p, i)[0], "annotator": None, "preference": [vote["preference"] for vote in voters(p, i)]}
        ],
    ),
    "chosen by annotator": (
        "preferences",
        lambda p, i: [
            {**p, "annotator": "x"},
            {**p, "chosen": p["rejected"], "rejected": p["chosen"], "annotator": "y"},
            {**p, "annotator": "z"},
        ],
    ),
    "unpaired": (
        "preferences",
        lambda p, i: both(
            [{"prompt": p["prompt"], "completion": p[k], "label": k == "chosen"} for k in ("chosen", "rejected")], i
        ),
    ),
    "ranking": ("rankings", lambda p, i: [{"prompt": p["prompt"], "ranking": [p["chosen"], p["rejected"]]}]),
    "ranks": (
        "rankings",
        lambda p, i: [{"prompt": p["prompt"], "completions": [p["rejected"], p["chosen"]], "ranks": [2, 1]}],
    ),
    "rating a row": (
        "ratings",
        lambda p, i: both(
            [
                {"prompt": p["prompt"], "response": p["chosen"], "rating": 8},
                {"prompt": p["prompt"], "response": p["rejected"], "rating": 2.5},
            ],
            i,
        ),
    ),
    "rated completions": (
        "ratings",
        lambda p, i: [
            {
                "instruction": p["prompt"],
                "completions": [
                    {"model": "m", "response": p["rejected"], "overall_score": 2.5},
                    {"model": "n", "response": p["chosen"], "overall_score": 8},
                ],
            }
        ],
    ),
    "scores beside completions": (
        "ratings",
        lambda p, i: [{"prompt": p["prompt"], "completions": [p["rejected"], p["chosen"]], "scores": [2.5, 8]}],
    ),
}


def read(name: str, pairs: list[Pair], folder: Path, ending: str = ".jsonl") -> list[Row]:
    kind, write = FORMATS[name]
    records = [record for i, pair in enumerate(pairs) for record in write(pair, i)]
    options = Options(columns={"prompt": "instruction"} if "instruction" in records[0] else {})
    dropped = Dropped()
    found = read_rows(kind, str(save(records, folder / f"data{ending}")), dropped, options)
    assert (found.read, dropped.counts()) == (len(records), {})
    return found.rows


def save(records: list[dict[str, Any]], path: Path) -> Path:
    name = path.name.removesuffix(".gz")
    if name.endswith(".parquet"):
        import pyarrow
        import pyarrow.parquet

        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)
        return path
    with (gzip.open if path.suffix == ".gz" else open)(path, "wt", encoding="utf-8", newline="") as file:
        if name.endswith(".jsonl"):
            file.writelines(json.dumps(record) + "\n" for record in records)
        elif name.endswith(".json"):
            json.dump(records, file)
        else:
            writer = csv.DictWriter(file, list(records[0]))
            writer.writeheader()
            for record in records:
                writer.writerow({k: v if isinstance(v, str) else json.dumps(v) for k, v in record.items()})
    return path


def seal(rows: list[Row]) -> sealed.Sealed:
    splits = sealed.split_by_prompt(rows, {"train": 0.7, "validation": 0.1, "test": 0.2}, 0)
    return sealed.seal(splits, {}, Dropped())


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_preferences_have_the_same_manifest_in_every_format(pairs, tmp_path, name: str) -> None:
    rows = read(name, pairs, tmp_path)
    plain = seal(read("standard", pairs, tmp_path))
    if FORMATS[name][0] == "ratings":
        # Ratings say more than which reply is better, and a reward may learn from them: they are sealed, too.
        assert seal(rows).manifest["sha256"] != plain.manifest["sha256"]
        assert sorted({row.rating for row in rows if row.rating is not None}) == [2.5, 8]
        rows = [row for row in rows if row.rating is None]
    assert seal(rows).manifest == plain.manifest
    assert len(rows) == 200 and len({row.id for row in rows}) == 200


@pytest.mark.parametrize("ending", [".json", ".json.gz", ".jsonl.gz", ".csv", ".csv.gz", ".parquet"])
@pytest.mark.parametrize(
    "name", ["standard", "implicit prompt", "lists of labels", "unpaired", "ranks", "rated completions"]
)
def test_and_in_every_kind_of_file(pairs, tmp_path, name: str, ending: str) -> None:
    assert [replace(row, id="") for row in read(name, pairs, tmp_path, ending)] == [
        replace(row, id="") for row in read(name, pairs, tmp_path)
    ]


def test_dpo_learns_the_same_from_every_format(pairs, tmp_path, make_bench) -> None:
    def losses(name: str) -> list[float]:
        bench = make_bench(name=name.replace("/", " ")).replace(data=Views.of(read(name, pairs, tmp_path)))
        prefzoo.get("dpo", trainer={"logging_steps": 1, "max_steps": 4}).train(bench)
        return [e["loss"] for e in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in e]

    expected = losses("standard")
    assert len(expected) == 4 and len(set(expected)) > 1
    for name in ("hh transcripts", "rows by annotator", "unpaired", "ranks", "rated completions"):
        assert losses(name) == expected, name


def test_a_wrong_label_is_seen(pairs, tmp_path) -> None:
    """The comparison of manifests can fail: one vote more for the other side changes it."""
    turned = [{**pairs[0], "chosen": pairs[0]["rejected"], "rejected": pairs[0]["chosen"]}, *pairs[1:]]
    assert (
        seal(read("rows by annotator", turned, tmp_path)).manifest != seal(read("standard", pairs, tmp_path)).manifest
    )


def one(kind: str, records: list[Any], folder: Path, **more: Any) -> tuple[list[Row], Dropped]:
    dropped = Dropped()
    return read_rows(kind, str(save(records, folder / "x.jsonl")), dropped, **more).rows, dropped


def better(rows: list[Row]) -> list[tuple[str | None, str | None]]:
    return [(row.chosen, row.rejected) for row in rows if row.chosen]


@pytest.mark.parametrize("how", ["all", "adjacent"])
def test_rankings_and_ratings_make_the_pairs_that_they_should(tmp_path, how) -> None:
    ranked = [{"prompt": "q", "responses": ["c", "a", "b1", "b2"], "ranks": [3, 1, 2, 2]}]
    rows, dropped = one("rankings", ranked, tmp_path, pairs=how)
    near = {("a", "b1"), ("a", "b2"), ("b1", "c"), ("b2", "c")}
    assert set(better(rows)) == (near | {("a", "c")} if how == "all" else near)
    assert dropped.counts() == {"tied_replies": 1}
    assert [row.ranking for row in rows if row.ranking] == []  # two replies share a rank: no order of all four
    rated = [{"prompt": "q", "responses": ["c", "a", "b1", "b2"], "ratings": [0, 10, 5, 5]}]
    rows, dropped = one("ratings", rated, tmp_path, pairs=how)
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
        vote("turned", "b", "y", "x"),
        vote("even", ["tie", "a"]),
        vote("alone", "b"),
        vote("typo", "c"),
    ]
    dropped = Dropped()
    found = read_rows("preferences", str(save(records, tmp_path / "x.jsonl")), dropped)
    assert {(r.prompt[0]["content"], r.chosen) for r in found.rows} == {
        ("one", "x"),
        ("turned", "x"),
        ("even", "x"),
        ("alone", "y"),
    }
    assert dropped.counts() == {"annotators_tied": 1, "unreadable_label": 1}
    assert found.annotators == {"items": 5, "judgements": 10, "items_with_several": 4, "disagreed": 3}
    rated = [{"prompt": "q", "response": r, "rating": n} for r, n in [("a", 3), ("a", 5), ("b", 5), ("b", 5)]]
    found = read_rows("ratings", str(save(rated, tmp_path / "y.jsonl")), dropped)
    assert {row.reply: row.rating for row in found.rows if row.reply} == {"a": 4.0, "b": 5.0}
    assert better(found.rows) == [("b", "a")]
    assert found.annotators == {"items": 2, "judgements": 4, "items_with_several": 2, "disagreed": 1}


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
    assert dropped.counts() == {"empty_prompt": 1, "not_a_number": 2, "unreadable": 1}
    ranked = {"prompt": "q", "ranking": ["a", "b"]}
    broken = [{"prompt": "q", "ranking": ["a"]}, {"prompt": "q", "responses": ["a", "b"], "ranks": [1]}]
    _, dropped = one("rankings", [ranked, *broken], tmp_path)
    assert dropped.counts() == {"as_many_ranks_as_replies_needed": 1, "fewer_than_two_replies": 1}
    thumb = {"prompt": "q", "completion": "x", "label": True}
    _, dropped = one(
        "preferences", [thumb, {**thumb, "completion": "y", "label": False}, {**thumb, "prompt": "z"}], tmp_path
    )
    assert dropped.counts() == {"no_reply_of_the_other_label": 1}


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
    assert dropped.counts() == {"unreadable": 1}
    text = tmp_path / "prompts.txt"
    text.write_text("first, with {braces}\n\n  [1, 2]\n")
    rows = read_rows("prompts", str(text), Dropped()).rows
    assert [(row.id, row.prompt[0]["content"]) for row in rows] == [
        ("line 1", "first, with {braces}"),
        ("line 3", "[1, 2]"),
    ]
    (tmp_path / "p.csv").write_text('prompt\n"[1, 2]"\n"a, b"\n')
    rows = read_rows("prompts", str(tmp_path / "p.csv"), Dropped()).rows
    assert [row.prompt[0]["content"] for row in rows] == ["[1, 2]", "a, b"]


def test_columns_are_renamed_and_checked(pairs, tmp_path) -> None:
    records = [{"frage": p["prompt"], "gut": p["chosen"], "schlecht": p["rejected"]} for p in pairs]
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    rows, _ = one("preferences", records, tmp_path, options=Options(columns=columns))
    assert seal(rows).manifest == seal(read("standard", pairs, tmp_path)).manifest
    with pytest.raises(DataError, match=r"data.columns.prompt: unknown column 'frge'. Did you mean 'frage'"):
        one("preferences", records, tmp_path, options=Options(columns={**columns, "prompt": "frge"}))


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.json", b"{not json", "is not JSON"),
        ("x.json", b'{"a": 1}', "not a list"),
        ("x.jsonl", b"\xff\xfe", "cannot be read"),
        ("x.jsonl.gz", b"no gzip", "cannot be read"),
        ("x.parquet", b"no parquet", "cannot be read"),
        ("x.txt", b"a line", "does not end in one of"),
    ],
)
def test_broken_files_are_told_in_words(tmp_path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_rows("preferences", str(tmp_path / name), Dropped())


def test_order_in_the_file_does_not_move_a_prompt_to_another_split(pairs, tmp_path) -> None:
    shuffled = random.Random(0).sample(pairs, len(pairs))
    first, second = (seal(read("standard", each, tmp_path)).splits["test"] for each in (pairs, shuffled))
    assert {row.prompt[0]["content"] for row in first} == {row.prompt[0]["content"] for row in second}
