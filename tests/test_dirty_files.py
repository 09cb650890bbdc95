"""Dirty files: what stands in them and is no record is counted where it stands, or the file is refused in words."""

from __future__ import annotations

import csv
import gzip
import json

import pytest

from data_files import look, save
from prefzoo.data.read_rows import read_rows
from prefzoo.errors import DataError

USER = {"role": "user", "content": "hi"}
PAIR = {"prompt": "hi", "chosen": "yes", "rejected": "no"}


def test_blank_lines_and_broken_json_are_counted_where_they_are(tmp_path) -> None:
    path = tmp_path / "x.jsonl"
    twice = '{"prompt": "hi", "chosen": "a", "chosen": "b", "rejected": "c"}'
    path.write_text(f"\n{json.dumps(PAIR)}\n   \noops\n{json.dumps(PAIR)}\n" + "1" * 5000 + f"\n\n{twice}\n")
    found, places = look("preferences", path)
    assert places == {
        "blank": ["line 1", "line 3", "line 7"],
        "not_json": ["line 4", "line 6"],
        "repeated_key: chosen": ["line 8"],
    }
    assert [row.id for row in found.rows] == ["line 2", "line 5"]
    (tmp_path / "p.txt").write_text("one\n\ntwo\n \n")
    found, places = look("prompts", tmp_path / "p.txt")
    assert (found.read, found.used, places) == (4, 2, {"blank": ["line 2", "line 4"]})


def test_csv_rows_are_named_by_the_line_on_which_they_begin(tmp_path) -> None:
    path = tmp_path / "x.csv"
    path.write_text(
        "prompt,chosen,rejected\n"  # line 1
        '"two\nlines","a\n\nb",c\n'  # lines 2 to 5
        "one,a,b\n"  # line 6
        "\n"
        "short,a\n"  # line 8
        "long,a,b,c\n"
        ",,\n"  # line 10
        '"quote" here,a,b\n'
        "empty,,b\n"  # line 12
        '"said ""no""",a,b\n'
    )
    found, places = look("preferences", path)
    assert [(row.id, row.prompt[0]["content"], row.chosen) for row in found.rows] == [
        ("line 2", "two\nlines", "a\n\nb"),
        ("line 6", "one", "a"),
        ("line 13", 'said "no"', "a"),
    ]
    assert places == {
        "blank": ["line 7", "line 10"],
        "broken_quotes": ["line 11"],
        "empty_value: chosen": ["line 12"],
        "missing_cells": ["line 8"],
        "surplus_cells": ["line 9"],
    }


@pytest.mark.parametrize("ending", [".csv", ".jsonl", ".json", ".csv.gz"])
def test_a_byte_order_mark_and_windows_line_ends_change_nothing(tmp_path, ending: str) -> None:
    records = [{**PAIR, "prompt": f"q{i}"} for i in range(3)]
    plain = save(records, tmp_path / f"plain{ending}")
    opener = gzip.open if ending.endswith(".gz") else open
    with opener(plain, "rb") as file:
        content = file.read().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    with opener(tmp_path / f"windows{ending}", "wb") as file:
        file.write(b"\xef\xbb\xbf" + content)
    assert look("preferences", tmp_path / f"windows{ending}")[0].rows == look("preferences", plain)[0].rows


def test_transcripts_survive_windows_line_ends(tmp_path) -> None:
    with (tmp_path / "x.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["chosen", "rejected"])
        writer.writerow([f"\r\n\r\nHuman: hi\r\n\r\nAssistant: {reply}" for reply in ("yes", "no")])
    (row,) = look("preferences", tmp_path / "x.csv")[0].rows
    assert (row.prompt, row.chosen, row.rejected) == ([USER], "yes", "no")


WORDS = "cannot be read"


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.json", b"{not json", "is not JSON"),
        ("x.json", b'{"a": 1}', "an object, not a list"),
        ("x.json", b'{"a": 1}\n{"a": 2}\n', "A file with a record in each line ends in .jsonl"),
        ("x.json", b"", "is not JSON"),
        ("x.jsonl", b"", "is empty"),
        ("x.csv", b"prompt,chosen,rejected\n", "is empty"),
        ("x.jsonl", b"\n\n", r"none of the 2 rows .* Dropped: blank: 2 \(first: line 1\)"),
        ("x.jsonl", b"\xff\xfe", WORDS),
        ("x.jsonl", json.dumps(PAIR).encode() + b'\n{"prompt": "caf\xe9"}', "byte 0xe9 in line 2 is not UTF-8"),
        ("x.csv", b"prompt,chosen,rejected\na,b,c\na,\x93b,c\n", "byte 0x93 in line 3 is not UTF-8"),
        ("x.csv", b'prompt,chosen,rejected\na,b,c\na,"b,c\nd,e,f\n', "begins in line 3 do not end"),
        ("x.csv", b"prompt,chosen,chosen\na,b,c\n", "two columns of one name: 'chosen'"),
        ("x.csv", b"prompt;chosen;rejected\na;b;c\n", "separated by semicolons: its headings are 'prompt;chosen;"),
        ("x.csv", b'\xef\xbb\xbf\n"prompt";"chosen"\n"a";"b"\n', "separated by semicolons"),
        ("x.csv.gz", gzip.compress(b"prompt\tchosen\trejected\na\tb\tc\n", mtime=0), "separated by tabs"),
        ("x.jsonl.gz", b"no gzip", WORDS),
        ("x.jsonl.gz", gzip.compress(json.dumps(PAIR).encode() * 9999, mtime=0)[:-30], WORDS),
        ("x.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:12] + b"\xff\xff\xff", WORDS),
        ("x.parquet", b"no parquet", WORDS),
        ("x.parquet", b"", WORDS),
        ("x.txt", b"a line", "does not end in one of"),
    ],
)
def test_broken_files_are_told_in_words(tmp_path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        read_rows("preferences", str(tmp_path / name))


def test_semicolons_within_cells_separate_nothing(tmp_path) -> None:
    (tmp_path / "x.csv").write_text("prompt,chosen,rejected\nq;1,a;b,c;d\n")
    (row,) = look("preferences", tmp_path / "x.csv")[0].rows
    assert (row.chosen, row.rejected) == ("a;b", "c;d")
    (tmp_path / "p.csv").write_text("prompt\none; two\n")
    (row,) = look("prompts", tmp_path / "p.csv")[0].rows
    assert row.prompt[0]["content"] == "one; two"


def test_a_folder_is_no_file(tmp_path) -> None:
    with pytest.raises(DataError, match=r"is a folder; name a file in it \(.jsonl"):
        read_rows("preferences", str(tmp_path))
