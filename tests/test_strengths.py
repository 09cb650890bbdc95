"""Plackett-Luce: what several rankings or ratings of the same replies say together."""

from __future__ import annotations

import math
import random
from pathlib import Path
from typing import Any

import pytest

from data_files import save
from prefzoo.data.plackett_luce import plackett_luce
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_result import ReadResult
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.report.annotators import pair_facts


def read(
    kind: str, records: list[dict[str, Any]], folder: Path, pairs: str = "plackett_luce"
) -> tuple[ReadResult, Rejects]:
    options = ReadOptions(pairs=pairs)  # type: ignore[arg-type]
    found = read_rows(kind, str(save(records, folder / "x.jsonl")), options)
    assert found.read == found.used + found.dropped.total()
    assert len({row.id for row in found.rows}) == len(found.rows)
    return found, found.dropped


def better(found: ReadResult) -> set[tuple[str | None, str | None]]:
    return {(row.chosen, row.rejected) for row in found.rows if row.chosen}


def test_strengths_by_hand() -> None:
    (found,) = plackett_luce([{"a": 1, "b": 0}] * 3 + [{"a": 0, "b": 1}])
    assert found["a"] - found["b"] == pytest.approx(math.log(3), rel=0.02)  # three of four say so
    (found,) = plackett_luce([{"a": 2, "b": 1, "c": 0}, {"b": 2, "c": 1, "a": 0}, {"c": 2, "a": 1, "b": 0}])
    assert found == {"a": 0.0, "b": 0.0, "c": 0.0}  # a circle
    (found,) = plackett_luce([{"a": 3, "b": 2, "c": 2, "d": 1}])
    assert found["a"] > found["b"] == found["c"] > found["d"]
    # abc, abc, bac: c always loses, so that a and b are to each other as 2 to 1.
    scores = [{"a": 3, "b": 2, "c": 1}] * 2 + [{"b": 3, "a": 2, "c": 1}]
    (found,) = plackett_luce(scores)
    assert found["a"] - found["b"] == pytest.approx(math.log(2), rel=0.05)
    assert found["c"] < found["b"] - 3


def test_replies_that_nothing_links_are_not_compared() -> None:
    groups = plackett_luce([{"a": 1, "b": 0}, {"c": 1, "d": 0}])
    assert [list(group) for group in groups] == [["a", "b"], ["c", "d"]]
    groups = plackett_luce([{"a": 1, "b": 0}, {"c": 1, "d": 0}, {"d": 1, "b": 0}])
    assert len(groups) == 1


def test_rankings_of_several_become_pairs_by_strength(tmp_path) -> None:
    ranked = [
        {"prompt": "q", "ranking": ["a", "b", "c"], "annotator": "p"},
        {"prompt": "q", "ranking": ["b", "a", "c"], "annotator": "r"},
        {"prompt": "Q", "ranking": ["a", "b"], "annotator": "s"},
        {"prompt": "Q", "ranking": ["a", "b"], "annotator": "s"},
        {"prompt": "other", "responses": ["x", "y", "z"], "ranks": [1, 2, 2]},
        {"prompt": "apart", "ranking": ["k", "l"]},
        {"prompt": "apart", "ranking": ["m", "n"]},
        {"prompt": "even", "ranking": ["x", "y"], "annotator": "p"},
        {"prompt": "even", "ranking": ["y", "x"], "annotator": "r"},
    ]
    found, dropped = read("rankings", ranked, tmp_path)
    by_prompt = {
        prompt: {(row.chosen, row.rejected) for row in found.rows if row.chosen and row.prompt[0]["content"] == prompt}
        for prompt in ("q", "other", "apart", "even")
    }
    assert by_prompt == {
        "q": {("a", "b"), ("a", "c"), ("b", "c")},
        "other": {("x", "y"), ("x", "z")},
        "apart": {("k", "l"), ("m", "n")},
        "even": set(),
    }
    assert [row.ranking for row in found.rows if row.ranking] == [["a", "b", "c"]]
    assert found.unpaired.counts() == {"never_compared": 4, "tied_replies": 2}
    assert dropped.places() == {"repeated_judgement: annotator says it again": ["line 4"]}
    assert found.annotators["items_with_several"] == 4  # three pairs of q, one of even
    assert found.annotators["disagreed"] == 2
    assert found.annotators["annotators"]["s"] == {"judgements": 1, "compared": 0, "agreed": 0}
    assert pair_facts({"rankings": "plackett_luce"})[0].startswith("Pairs of rankings: every two by their Plackett")


def test_a_lone_ranking_gives_all_its_pairs_and_order_decides_nothing(tmp_path) -> None:
    lone = [{"prompt": f"q{i}", "ranking": [f"r{i}" for i in range(2 + i)]} for i in range(6)]
    assert better(read("rankings", lone, tmp_path)[0]) == better(read("rankings", lone, tmp_path, "all")[0])
    rng = random.Random(1)
    records = [
        {"prompt": f"q{i}", "ranking": rng.sample("abcde", rng.randint(2, 5)), "annotator": name}
        for i in range(20)
        for name in "pqr"
    ]
    first, _ = read("rankings", records, tmp_path)
    other, _ = read("rankings", rng.sample(records, len(records)), tmp_path)

    def said(found: ReadResult) -> list[tuple[Any, ...]]:
        return sorted(
            (r.prompt[0]["content"], r.chosen or "", r.rejected or "", *(r.ranking or [])) for r in found.rows
        )

    assert said(first) == said(other)
    assert first.unpaired.counts() == other.unpaired.counts()
    assert first.annotators == other.annotators


def test_ratings_on_scales_of_their_own(tmp_path) -> None:
    def rated(name: str | None, **ratings: float) -> list[dict[str, Any]]:
        return [{"prompt": "q", "response": r, "rating": n, "annotator": name} for r, n in ratings.items()]

    # p is strict and q generous; both prefer a to b, but only q saw c, and p alone saw a reply that is better than a.
    records = [*rated("p", best=4, a=3, b=1), *rated("q", a=9, b=8, c=7)]
    found, _ = read("ratings", records, tmp_path)
    assert better(found) == {(g, w) for i, g in enumerate("*abc") for w in "*abc"[i + 1 :]} - {
        ("*", w) for w in "abc"
    } | {("best", w) for w in "abc"}
    by_mean, _ = read("ratings", records, tmp_path, "all")
    assert ("c", "best") in better(by_mean)  # 7 against 4: by means the scale decides
    assert {row.reply: row.rating for row in found.rows if row.reply} == {"best": 4, "a": 6, "b": 4.5, "c": 7}
    nobody = [{"prompt": "q", "response": r, "rating": n} for r, n in (("a", 1), ("b", 2))]
    found, _ = read("ratings", nobody, tmp_path)
    assert better(found) == set() and found.unpaired.counts() == {"never_compared": 1}


def test_ratings_of_several_agree_by_their_differences(tmp_path) -> None:
    records = [
        {"prompt": "q", "response": r, "rating": n, "annotator": name}
        for r, both in (("a", (1, 2)), ("b", (5, 5)))
        for name, n in zip("pq", both, strict=True)
    ]
    found, _ = read("ratings", records, tmp_path, "all")
    # Squared differences within replies: 1 and 0; of all six pairs of ratings: 1 + 16 + 16 + 9 + 9 + 0 = 51.
    assert found.annotators["alpha"] == pytest.approx(1 - 3 * 1 / 51)
    assert found.annotators["observed_agreement"] == 0.5
