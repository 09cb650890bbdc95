"""Files that are made to break what reads them: counted with a reason or refused in words, within bounds."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from data_files import look, save
from prefzoo.data import bounded_text, pair_limits, read_files, rejects, splits
from prefzoo.data.agreement import rating_agreement
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.errors import DataError

USER = {"role": "user", "content": "hi"}
PAIR = {"prompt": "hi", "chosen": "yes", "rejected": "no"}
DEEP = "[" * 100_000
NESTED = "[" * 900 + "]" * 900


@pytest.mark.parametrize(
    ("kind", "record", "reason"),
    [
        ("rankings", {"prompt": "hi", "ranking": DEEP}, "wrong_type: ranking is no list in JSON"),
        ("preferences", {**PAIR, "prompt": '[{"role":' + DEEP}, "wrong_type: prompt is no list of messages in JSON"),
        ("rankings", {"prompt": "hi", "ranking": [NESTED, "a"]}, None),
        ("preferences", {**PAIR, "prompt": json.loads(NESTED)}, "wrong_type: prompt has a list for a message"),
        ("preferences", {**PAIR, "group": json.loads(NESTED)}, "wrong_type: group is a list, not a name or a number"),
        ("ratings", {"prompt": "hi", "response": "a", "rating": 1e308}, "number_out_of_range: rating is beyond 1e+15"),
        ("ratings", {"prompt": "hi", "response": "a", "rating": -(10**400)}, "number_out_of_range: rating is beyond"),
        ("ratings", {"prompt": "hi", "response": "a", "rating": float("inf")}, "number_out_of_range: rating"),
        ("ratings", {"prompt": "hi", "response": "a", "rating": True}, "not_a_number: rating"),
        ("rankings", {"prompt": "hi", "responses": ["a", "b"], "ranks": [1, 1e300]}, "number_out_of_range: ranks"),
        ("preferences", {**PAIR, "prompt": [{"role": "\ud800", "content": "x"}]}, "unknown_role: prompt has '\\ud800'"),
        ("rankings", {"prompt": "hi", "ranking": [f"{i}" for i in range(1500)]}, "more_than_256_replies_to_one_prompt"),
    ],
)
def test_a_hostile_value_is_counted(tmp_path, kind: str, record: dict[str, Any], reason: str | None) -> None:
    good = {"preferences": PAIR, "rankings": {"prompt": "x", "ranking": ["a", "b"]}}
    sound = good.get(kind, {"prompt": "x", "response": "a", "rating": 3})
    found, places = look(kind, save([sound, record], tmp_path / "x.jsonl"))
    assert all(said.encode() for said in places)
    if reason is None:
        assert places == {} and len(found.rows) == 2
    else:
        ((said, lines),) = places.items()
        assert said.startswith(reason) and lines == ["line 2"]


def test_ratings_up_to_the_bound_have_finite_means_and_agreement(tmp_path) -> None:
    records = [{"prompt": "hi", "response": r, "rating": n} for r, n in [("a", 1e15), ("a", -1e15), ("b", 1e15)]]
    found, _ = look("ratings", save(records, tmp_path / "x.jsonl"))
    assert [row.rating for row in found.rows if row.reply] == [0.0, 1e15]
    assert found.annotators["alpha"] == rating_agreement([[1e15, -1e15], [1e15]])["alpha"]
    assert json.loads(json.dumps(found.rated)) == {"replies": 2, "lowest": -1e15, "highest": 1e15}


def test_halves_of_characters_in_names_reach_no_file(tmp_path) -> None:
    (tmp_path / "x.jsonl").write_text(
        '{"prompt": "hi", "chosen": "a", "rejected": "b", "\\ud800": 1, "annotator": "\\udfff"}\n'
        '{"\\ud801": 1, "\\ud801": 2}\n'
    )
    found, places = look("preferences", tmp_path / "x.jsonl")
    assert found.unread == ["?"] and list(found.annotators["annotators"]) == ["?"]
    assert places == {"repeated_key: ?": ["line 2"]}
    with pytest.raises(DataError) as error:
        look("preferences", tmp_path / "x.jsonl", columns={"prompt": "frage"})
    assert str(error.value).encode()


def test_values_that_python_cannot_hold_are_counted_where_they_are_read(tmp_path) -> None:
    import pyarrow
    import pyarrow.parquet

    late = pyarrow.array([10**15, 1, 2], pyarrow.timestamp("s"))
    texts = {name: pyarrow.array([f"{name} {i}" for i in range(3)]) for name in ("prompt", "chosen", "rejected")}
    for columns, used, dropped in (
        ({**texts, "created": late}, 3, {}),
        ({**texts, "chosen": late}, 0, None),
        ({**texts, "group": late}, 2, {"wrong_type: group is a value that cannot be read, not a name or a number": 1}),
    ):
        pyarrow.parquet.write_table(pyarrow.table(columns), tmp_path / "x.parquet")
        if dropped is None:
            with pytest.raises(DataError, match=r"chosen is a value that cannot be read.*: 1 \(first: row 1\)"):
                look("preferences", tmp_path / "x.parquet")
            continue
        found, _ = look("preferences", tmp_path / "x.parquet")
        assert (found.used, found.dropped.counts()) == (used, dropped)
    twice = pyarrow.table([texts["prompt"], texts["chosen"], texts["rejected"]], ["prompt", "chosen", "chosen"])
    pyarrow.parquet.write_table(twice, tmp_path / "y.parquet")
    with pytest.raises(DataError, match="two columns of one name: 'chosen'"):
        look("preferences", tmp_path / "y.parquet")


def test_a_conversation_of_six_thousand_turns_is_a_prompt(tmp_path) -> None:
    turns = [{"role": ("user", "assistant")[i % 2], "content": f"turn {i}"} for i in range(6001)]
    text = "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: turn {i}" for i in range(6001))
    records = [{**PAIR, "prompt": turns}, {**PAIR, "prompt": text}]
    found, _ = look("preferences", save(records, tmp_path / "x.jsonl"))
    assert [row.prompt for row in found.rows] == [turns, turns]


def test_replies_to_one_prompt_and_pairs_of_a_file_are_limited(tmp_path, monkeypatch) -> None:
    rated = [{"prompt": "hi", "response": f"r{i}", "rating": i} for i in range(300)]
    found, places = look("ratings", save(rated, tmp_path / "x.jsonl"))
    assert places == {"more_than_256_replies_to_one_prompt": [f"line {i}" for i in range(257, 301)]}
    assert sum(row.chosen is not None for row in found.rows) == 256 * 255 // 2
    thumbs = [{"prompt": "hi", "completion": f"r{i}", "label": i % 2 == 0} for i in range(300)]
    found, places = look("preferences", save(thumbs, tmp_path / "y.jsonl"))
    assert len(found.rows) == 128 * 128 and len(places["more_than_256_replies_to_one_prompt"]) == 44
    monkeypatch.setattr(pair_limits, "MOST_PAIRS", 10)
    ranked = [{"prompt": f"q{i}", "ranking": ["a", "b", "c"]} for i in range(5)]
    found, places = look("rankings", save(ranked, tmp_path / "z.jsonl"))
    assert places == {"beyond_10_pairs": ["line 4", "line 5"]} and found.used == 3


def test_millions_of_blank_lines_take_no_memory(tmp_path, monkeypatch) -> None:
    path = tmp_path / "x.jsonl.gz"
    path.write_bytes(gzip.compress(b"\n" * 300_000 + json.dumps(PAIR).encode(), mtime=0))
    tracemalloc.start()
    try:
        found = read_rows("preferences", str(path))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (found.read, found.used, found.dropped.counts()) == (300_001, 1, {"blank": 300_000})
    assert peak < 16e6 and len(found.dropped.places()["blank"]) == rejects.LISTED
    together = Rejects()
    together.merge(found.dropped, "a ")
    together.merge(found.dropped, "b ")
    assert together.counts() == {"blank": 600_000} and together.total() == 600_000
    other = splits.Row("other", [{**USER, "content": "ho"}])
    splits.seal({"train": found.rows, "validation": [], "test": [other]}, {}, together).save(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "dropped.jsonl").read_text().splitlines()]
    assert len(lines) == rejects.LISTED + 1 and lines[-1] == {"reason": "blank", "more": 600_000 - rejects.LISTED}
    monkeypatch.setattr(read_files, "MOST_RECORDS", 1000)
    with pytest.raises(DataError, match="more than 1000 records, blank lines included"):
        read_rows("preferences", str(path))


def test_what_unpacks_to_far_more_than_text_does_is_refused(tmp_path) -> None:
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wb") as file:
        for _ in range(80):
            file.write(b" " * (1 << 20))
    for name in ("x.jsonl.gz", "x.json.gz", "x.csv.gz"):
        path = path.rename(tmp_path / name)
        with pytest.raises(DataError, match="it holds more than 64 MiB of text, which no data set of its size does"):
            read_rows("preferences", str(path))


def test_a_line_that_is_no_record_by_its_length_is_counted(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(bounded_text, "MOST_LETTERS", 1000)
    path = tmp_path / "x.jsonl"
    path.write_text(f"{json.dumps(PAIR)}\n" + "x" * 5000 + f"\n{json.dumps(PAIR)}\n" + "y" * 1000)
    found, places = look("preferences", path)
    assert places == {"line_too_long": ["line 2", "line 4"]} and found.used == 2
    (tmp_path / "x.csv").write_text("prompt,chosen,rejected\na,b," + "c" * 5000)
    with pytest.raises(DataError, match="one of its lines has more than"):
        look("preferences", tmp_path / "x.csv")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.jsonl", gzip.compress(b"{}\n", mtime=0), "it is a gzip file, whatever its name ends in"),
        ("x.csv", b"PAR1\xff\xff", "it is a Parquet file"),
        ("x.csv", b"PK\x03\x04\xff\xff", "it is a zip file or a spreadsheet"),
        ("x.json", b"[" * 100_000, "it is not JSON"),
        ("x.json", b'[{"a": ' + b"1" * 5000 + b"}]", "it is not JSON"),
        ("x.parquet", b"PAR1" + b"\0" * 40 + b"PAR1", "cannot be read"),
    ],
)
def test_other_files_than_their_names_say_are_told(tmp_path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_rows("preferences", str(tmp_path / name))


@pytest.mark.parametrize("source", ["a" * 300 + ".jsonl", "~nosuchuser/x.jsonl", "x\0.jsonl", "a/" * 3000 + "x.jsonl"])
def test_paths_that_cannot_be_looked_at_are_told(source: str) -> None:
    with pytest.raises(DataError, match=r"cannot be looked at|is neither a file"):
        read_rows("preferences", source)


def test_reasons_are_as_many_as_a_page_holds(tmp_path: Path) -> None:
    strange = [json.dumps({f"key {i}": 1})[:-1] + f', "key {i}": 2}}\n' for i in range(500)]
    (tmp_path / "x.jsonl").write_text(json.dumps(PAIR) + "\n" + "".join(strange))
    found, places = look("preferences", tmp_path / "x.jsonl")
    assert len(places) == rejects.REASONS + 1 and len(places["repeated_key"]) == 400
    assert found.dropped.total() == 500
