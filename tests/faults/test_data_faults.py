"""Data files of every kind, damaged in many ways: words, or numbers that add up, in bounded time."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from data_files import FORMATS, save
from prefzoo.data import splits
from prefzoo.data.near_duplicates import near_duplicates, with_test_groups
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.errors import DataError
from prefzoo.report.data_summary import reason_text, shorten_places

pytestmark = pytest.mark.faults
SECONDS = 30
"""Of processor time; a file takes a few hundredths of one."""

TEXTS = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(codec=None, categories=["Cs", "Ll", "Mn", "So", "Zs", "Cc"]), max_size=20),
    st.sampled_from(
        ["", " ", "\0", "\ud83d", "a", "tie", "[1", "[]", "true", "NaN", "1e308", "Human:", "    return x\n", "\ufeff"]
    ),
    st.sampled_from(["\n\nHuman: hi\n\nAssistant: yes", "\n\nHuman: hi", '[{"role": 1}]', '[{"role": "user"']),
    st.sampled_from([("[", 3000), ('{"a":', 3000), ("word ", 3000), ("1", 5000), ("è", 4000)]).map(
        lambda p: p[0] * p[1]
    ),
    st.integers(1, 900).map(lambda depth: "[" * depth + "]" * depth),
)
NUMBERS = st.one_of(
    st.integers(),
    st.floats(),
    st.sampled_from([1e308, -1e308, 5e-324, 10**400, 2**63, 0, True, False]),
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system", "tool", "human"]), "content": TEXTS}
    ),
    max_size=6,
)
VALUES = st.recursive(
    st.one_of(st.none(), TEXTS, NUMBERS, MESSAGES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)
ENDINGS = [".jsonl", ".json", ".csv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz"]
DAMAGES = ["none", "none", "none", "cut", "bytes", "null", "mark", "crlf", "twice", "utf16", "blank", "gzip", "empty"]


@st.composite
def records(draw: st.DrawFn) -> tuple[str, list[Any]]:
    """Sound records of a format, among them some with strange values, keys or types."""
    kind, write = FORMATS[draw(st.sampled_from(sorted(FORMATS)))]
    asked = [draw(TEXTS) if draw(st.booleans()) else f"question {i}" for i in range(draw(st.integers(1, 8)))]
    made: list[Any] = [
        record
        for i, prompt in enumerate(asked)
        for record in write({"prompt": prompt, "chosen": f"yes {i}", "rejected": draw(TEXTS)}, i)
    ]
    for _ in range(draw(st.integers(0, 6))):
        record = dict(draw(st.sampled_from(made)))
        extra = draw(st.sampled_from(["system", "group", "annotator", "label", "rating", "note", "\ud800", ""]))
        key = draw(st.sampled_from([*record, extra]))
        if draw(st.booleans()):
            record[key] = draw(VALUES)
        else:
            record.pop(key, None)
        made.insert(draw(st.integers(0, len(made))), record)
    return kind, made


def written(path: Path, made: list[Any]) -> bool:
    """Whether this kind of file can hold these records."""
    if path.name.endswith(".jsonl") or path.name.endswith(".jsonl.gz") or ".json" in path.name:
        save(made, path)
        return True
    keys = dict.fromkeys(key for record in made for key in record)
    try:
        save([{key: record.get(key) for key in keys} for record in made], path)
    except Exception:  # columns of mixed types, halves of characters
        return False
    return True


def damaged(content: bytes, how: str, draw: Any) -> bytes:
    place = draw(st.integers(0, max(0, len(content) - 1)))
    if how == "bytes":
        other = bytearray(content)
        for _ in range(draw(st.integers(1, 5))):
            if other:
                other[draw(st.integers(0, len(other) - 1))] = draw(st.integers(0, 255))
        return bytes(other)
    return {
        "none": content,
        "cut": content[:place],
        "null": content[:place] + b"\0" * 3 + content[place:],
        "mark": b"\xef\xbb\xbf" + content,
        "crlf": content.replace(b"\n", b"\r\n"),
        "twice": content + content,
        "utf16": content.decode("utf-8", "replace").encode("utf-16"),
        "blank": content.replace(b"\n", b"\n\n \n"),
        "gzip": gzip.compress(content, mtime=0),
        "empty": b"",
    }[how]


def examined(kind: str, path: Path, options: ReadOptions, folder: Path) -> str:
    """What becomes of a file, from reading to sealing."""
    try:
        result = read_rows(kind, str(path), options)
    except DataError as error:
        assert str(error).strip() and str(error).encode()
        return "refused"
    assert result.read == result.used + result.dropped.total()
    assert len({row.id for row in result.rows}) == len(result.rows)
    json.dumps([result.unread, result.rated, result.annotators]).encode()
    dropped = Rejects()
    sound = splits.clean(result.rows, dropped)

    def prompt_tokens(prompts) -> list[int]:
        return [sum(len(turn["content"].encode()) + 4 for turn in prompt) for prompt in prompts]

    fitting, shortened = splits.fit_lengths(
        sound, dropped, prompt_tokens, lambda replies: [*map(len, replies)], 200, 200
    )
    assert len(fitting) + dropped.total() == len(result.rows)
    assert set(shortened) <= {row.id for row in fitting}
    parts = splits.split_by_prompt(
        splits.with_joined_groups(fitting), {"train": 0.5, "validation": 0.1, "test": 0.4}, 0
    )
    assert sum(map(len, parts.values())) == len(fitting)
    near = near_duplicates(parts)
    parts["test"] = with_test_groups(parts["test"], near.families)
    dropped.merge(result.dropped, "file ")
    for reason, places in dropped.places().items():
        assert (reason_text(reason) + " ".join(shorten_places(places))).encode()
    try:
        sealed = splits.seal(parts, {"dropped": dropped.counts()}, dropped)
    except DataError:
        return "too few"
    sealed.save(folder)
    assert splits.load_split(folder, "test") == parts["test"]
    return "sealed"


@settings(max_examples=500, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_data_file_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    kind, made = data.draw(records())
    path = folder / f"x{data.draw(st.sampled_from(ENDINGS))}"
    if not written(path, made):
        event("not written")
        return
    how = data.draw(st.sampled_from(DAMAGES))
    path.write_bytes(damaged(path.read_bytes(), how, data.draw))
    options = ReadOptions(
        columns={"prompt": "instruction"} if any("instruction" in record for record in made) else {},
        annotators=data.draw(st.sampled_from(["majority", "soft"])),
        pairs=data.draw(st.sampled_from(["all", "adjacent", "plackett_luce"])),
    )
    began = time.process_time()
    event(examined(kind, path, options, folder))
    assert time.process_time() - began < SECONDS


@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_parquet_column_ends_in_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Columns of types that text formats do not have."""
    import pyarrow
    import pyarrow.parquet

    held = 2**63 // 1000  # Parquet has no seconds: its writer keeps them as milliseconds of 64 bits, and refuses others
    types = {
        pyarrow.timestamp("s"): st.integers(-held, held - 1),
        pyarrow.timestamp("us", tz="Nowhere/Nothing"): st.integers(0, 2**40),
        pyarrow.date32(): st.integers(-(2**31), 2**31 - 1),
        pyarrow.duration("s"): st.integers(-(2**62), 2**62),
        pyarrow.binary(): st.binary(max_size=9),
        pyarrow.decimal128(38, 2): st.decimals(-(10**30), 10**30, places=2),
        pyarrow.float64(): st.floats(),
        pyarrow.bool_(): st.booleans(),
        pyarrow.list_(pyarrow.string()): st.lists(st.one_of(st.none(), st.text(max_size=5)), max_size=4),
        pyarrow.map_(pyarrow.string(), pyarrow.int64()): st.just([("a", 1)]),
        pyarrow.string(): st.text(st.characters(codec="utf-8"), max_size=9),
        pyarrow.null(): st.none(),
    }
    folder = tmp_path_factory.getbasetemp() / "fuzzed columns"
    folder.mkdir(exist_ok=True)
    shapes = {
        "preferences": ["prompt", "chosen", "rejected", "annotator", "group", "system"],
        "ratings": ["prompt", "response", "rating", "group"],
        "rankings": ["prompt", "ranking", "annotator"],
    }
    kind = data.draw(st.sampled_from(sorted(shapes)))
    columns: dict[str, Any] = {}
    sound = {"rating": [1.0, 2.0, 3.0, 4.0, 5.0], "ranking": [["a", "b"]] * 5}
    strange = data.draw(st.sets(st.sampled_from(shapes[kind]), max_size=3))
    for key in shapes[kind]:
        if key not in strange:
            columns[key] = pyarrow.array(sound.get(key, [f"{key} {i}" for i in range(5)]))
            continue
        kind_of = data.draw(st.sampled_from([*types]))
        values = data.draw(st.lists(st.one_of(st.none(), types[kind_of]), min_size=5, max_size=5))
        try:
            columns[key] = pyarrow.array(values, type=kind_of)
        except (pyarrow.ArrowException, OverflowError, ValueError, TypeError):
            return
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "x.parquet")
    event(examined(kind, folder / "x.parquet", ReadOptions(), folder))
