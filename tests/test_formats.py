"""Every format that preferences come in: the same 200 of them are the same data and teach the same."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import prefzoo
from data_files import one, save
from prefzoo.data import sealed
from prefzoo.data.comparisons import read_rows
from prefzoo.data.formats import Row
from prefzoo.data.reading import Options
from prefzoo.data.reasons import Dropped
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
@pytest.mark.parametrize("name", FORMATS)
def test_and_in_every_kind_of_file(pairs, tmp_path, name: str, ending: str) -> None:
    assert [replace(row, id="") for row in read(name, pairs, tmp_path, ending)] == [
        replace(row, id="") for row in read(name, pairs, tmp_path)
    ]


def test_dpo_learns_the_same_from_every_format(pairs, tmp_path, make_bench) -> None:
    def losses(name: str, given: list[Pair] = pairs) -> list[float]:
        bench = make_bench(name=name.replace("/", " ")).replace(data=Views.of(read(name, given, tmp_path)))
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
    rows, _ = one("preferences", records, tmp_path, options=Options(columns=columns))
    assert seal(rows).manifest == seal(read("standard", pairs, tmp_path)).manifest
    with pytest.raises(DataError, match=r"data.columns.prompt: unknown column 'frge'. Did you mean 'frage'"):
        one("preferences", records, tmp_path, options=Options(columns={**columns, "prompt": "frge"}))


def test_order_in_the_file_does_not_move_a_prompt_to_another_split(pairs, tmp_path) -> None:
    shuffled = random.Random(0).sample(pairs, len(pairs))
    first, second = (seal(read("standard", each, tmp_path)).splits["test"] for each in (pairs, shuffled))
    assert {row.prompt[0]["content"] for row in first} == {row.prompt[0]["content"] for row in second}
