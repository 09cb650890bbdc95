"""Every format that preferences come in: the same 200 of them are the same data and teach the same."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

import prefzoo
from data_files import FORMATS, Pair, one, save
from prefzoo.data import splits
from prefzoo.data.formats import Row
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.data.row_views import views_of
from prefzoo.errors import DataError


@pytest.fixture(scope="module")
def pairs() -> list[Pair]:
    from prefzoo import lab

    return [{k: p[k] for k in ("prompt", "chosen", "rejected")} for p in lab.preferences("train", 200, 5)]


def read(name: str, pairs: list[Pair], folder: Path, ending: str = ".jsonl") -> list[Row]:
    kind, write = FORMATS[name]
    records = [record for i, pair in enumerate(pairs) for record in write(pair, i)]
    options = ReadOptions(columns={"prompt": "instruction"} if "instruction" in records[0] else {})
    found = read_rows(kind, str(save(records, folder / f"data{ending}")), options)
    assert (found.read, found.dropped.counts()) == (len(records), {})
    return found.rows


def seal(rows: list[Row]) -> splits.SealedSplits:
    parts = splits.split_by_prompt(rows, {"train": 0.7, "validation": 0.1, "test": 0.2}, 0)
    return splits.seal(parts, {}, Rejects())


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
@pytest.mark.parametrize("name", FORMATS)
def test_and_in_every_kind_of_file(pairs, tmp_path, name: str, ending: str) -> None:
    assert [replace(row, id="") for row in read(name, pairs, tmp_path, ending)] == [
        replace(row, id="") for row in read(name, pairs, tmp_path)
    ]


def test_dpo_learns_the_same_from_every_format(pairs, tmp_path, adapted) -> None:
    def losses(name: str, given: list[Pair] = pairs) -> list[float]:
        bench = adapted("lora", name=name.replace("/", " ")).replace(data=views_of(read(name, given, tmp_path)))
        prefzoo.get("dpo", trainer={"logging_steps": 1, "max_steps": 3}).train(bench)
        return [e["loss"] for e in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in e]

    expected = losses("standard")
    assert len(expected) == 3 and len(set(expected)) > 1
    for name in FORMATS:
        assert losses(name) == expected, name
    turned = [{**p, "chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs]
    assert losses("standard", turned) != expected


def test_a_wrong_label_is_seen(pairs, tmp_path) -> None:
    """The comparison of manifests can fail: one vote more for the other side changes it."""
    turned = [{**pairs[0], "chosen": pairs[0]["rejected"], "rejected": pairs[0]["chosen"]}, *pairs[1:]]
    assert (
        seal(read("rows by annotator", turned, tmp_path)).manifest != seal(read("standard", pairs, tmp_path)).manifest
    )


def test_columns_are_renamed_and_checked(pairs, tmp_path) -> None:
    records = [{"frage": p["prompt"], "gut": p["chosen"], "schlecht": p["rejected"]} for p in pairs]
    columns = {"prompt": "frage", "chosen": "gut", "rejected": "schlecht"}
    rows, _ = one("preferences", records, tmp_path, columns=columns)
    assert seal(rows).manifest == seal(read("standard", pairs, tmp_path)).manifest
    with pytest.raises(DataError, match=r"data.columns.prompt: unknown column 'frge'. Did you mean 'frage'"):
        one("preferences", records, tmp_path, columns={**columns, "prompt": "frge"})


def test_order_in_the_file_does_not_move_a_prompt_to_another_split(pairs, tmp_path) -> None:
    shuffled = random.Random(0).sample(pairs, len(pairs))
    first, second = (seal(read("standard", each, tmp_path)).splits["test"] for each in (pairs, shuffled))
    assert {row.prompt[0]["content"] for row in first} == {row.prompt[0]["content"] for row in second}
