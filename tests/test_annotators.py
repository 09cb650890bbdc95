"""Several annotators: how far they agree, and the rules by which what they say becomes pairs."""

from __future__ import annotations

import gzip
import json
import math
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from conftest import HH_FILE
from data_files import save
from prefzoo import lab
from prefzoo.data import agreement, splits
from prefzoo.data.read_files import ReadOptions
from prefzoo.data.read_result import ReadResult
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.data.votes import Vote
from prefzoo.errors import DataError, RecipeError
from prefzoo.lab.simulated_annotators import POOL
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.annotators import annotator_facts

RULES = ("majority", "soft", "reliability")


def need(rule: str) -> None:
    if rule == "reliability":
        pytest.importorskip("crowdkit")


def voted(prompt: str, preference: Any, annotator: Any = None, a: str = "x", b: str = "y") -> dict[str, Any]:
    record = {"prompt": prompt, "response_a": a, "response_b": b, "preference": preference}
    return record if annotator is None else {**record, "annotator": annotator}


def read(records: list[dict[str, Any]], folder: Path, rule: str = "majority") -> tuple[ReadResult, Rejects]:
    path = save(records, folder / f"{rule}.jsonl")
    result = read_rows("preferences", str(path), ReadOptions(annotators=rule))  # type: ignore[arg-type]
    assert result.read == result.used + result.dropped.total()
    assert len({row.id for row in result.rows}) == len(result.rows)
    return result, result.dropped


def made(found: ReadResult) -> list[tuple[str, str | None, int | None]]:
    return sorted((row.prompt[0]["content"], row.chosen, row.vote or 1) for row in found.rows)


def test_alpha_is_that_of_the_textbook() -> None:
    # Four observers and twelve units: Krippendorff 2011, "Computing Krippendorff's alpha-reliability", part C.
    observers = [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3],
        [None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None],
    ]
    units = [[said for said in unit if said is not None] for unit in zip(*observers, strict=True)]
    assert agreement.krippendorff_alpha(units) == pytest.approx(0.743, abs=5e-4)
    assert agreement.krippendorff_alpha(units, agreement.squared_differences) == pytest.approx(0.849, abs=5e-4)
    assert agreement.krippendorff_alpha([[1, 1], [1, 1]]) is None  # nothing varies: chance cannot be told
    assert agreement.krippendorff_alpha([[1], [2]]) is None


def test_agreement_by_hand() -> None:
    def votes(*said: tuple[str, int | None]) -> list[Vote]:
        return [Vote(choice, name, "line 1") for name, choice in said]

    found = agreement.vote_agreement([votes(("p", 0), ("q", 0)), votes(("p", 0), ("q", 1))])
    # Both items and their mirror images: 8 judgements, 4 of each; 16 pairs of all 28 differ, 2 of the 4 within items.
    assert found["alpha"] == pytest.approx(1 - 7 * 2 / 16)
    assert (found["observed_agreement"], found["disagreed"], found["ties"]) == (0.5, 1, 0)
    found = agreement.vote_agreement(
        [votes(("p", 0), ("q", 0), ("r", 1)), votes(("p", None), ("q", 1), ("r", 1)), votes(("p", 1))]
    )
    assert found["observed_agreement"] == pytest.approx(1 / 3)
    assert found["ties"] == 1
    assert found["annotators"] == {
        "p": {"judgements": 3, "compared": 0, "agreed": 0},  # q and r are at odds, then p says neither, then is alone
        "q": {"judgements": 2, "compared": 1, "agreed": 1},  # against p and r nothing is told; then against r
        "r": {"judgements": 2, "compared": 2, "agreed": 1},
    }


def test_rules_on_the_same_votes(tmp_path) -> None:
    records = [
        voted("two of three", "a", "p"),
        voted("two of three", "b", "q", "y", "x"),  # the same, said the other way round
        voted("two of three", "b", "r"),
        voted("even", "a", "p"),
        voted("even", "b", "q"),
        voted("neither", "tie", "p"),
        voted("one and a tie", "b", "p"),
        voted("one and a tie", "tie", "q"),
    ]
    found, dropped = read(records, tmp_path)
    assert made(found) == [("one and a tie", "y", 1), ("two of three", "x", 1)]
    assert dropped.places() == {"annotators_tied": ["line 4", "line 5", "line 6"]}
    found, dropped = read(records, tmp_path, "soft")
    assert made(found) == [
        ("even", "x", 1),
        ("even", "y", 1),
        ("one and a tie", "y", 1),
        ("two of three", "x", 1),
        ("two of three", "x", 2),
        ("two of three", "y", 1),
    ]
    assert dropped.places() == {"votes_for_neither": ["line 6", "line 8"]}
    assert found.annotators["rule"] == "soft"
    kept = splits.clean(found.rows, again := Rejects())
    assert len(kept) == 6 and again.total() == 0  # votes that say the same are no duplicates


def test_a_soft_label_is_the_share_of_votes(tmp_path) -> None:
    found, _ = read([voted("q", ["a"] * 3 + ["b", "tie"])], tmp_path, "soft")
    margin = {"x": 0.7, "y": -0.7}  # score of the chosen reply less that of the rejected one
    loss = sum(math.log1p(math.exp(-margin[row.chosen or ""])) for row in found.rows) / len(found.rows)
    assert loss == pytest.approx(0.75 * math.log1p(math.exp(-0.7)) + 0.25 * math.log1p(math.exp(0.7)))
    assert [row.id for row in found.rows] == [f"line 1 vote {n}" for n in (1, 2, 3, 4)]


@pytest.mark.parametrize("rule", RULES)
def test_the_order_of_records_and_of_replies_decides_nothing(tmp_path, rule) -> None:
    need(rule)
    rng = random.Random(3)
    records = [voted(f"q{i}", rng.choice(["a", "a", "a", "b", "tie"]), name) for i in range(12) for name in "pqrs"]
    turn = {"a": "b", "b": "a", "tie": "tie"}
    turned = [voted(r["prompt"], turn[r["preference"]], r["annotator"], "y", "x") for r in records]
    first, lost = read(records, tmp_path, rule)
    for other in (rng.sample(records, len(records)), turned, rng.sample(turned, len(turned))):
        found, dropped = read(other, tmp_path, rule)
        assert made(found) == made(first)
        assert dropped.counts() == lost.counts()
        assert found.annotators == first.annotators


@pytest.mark.parametrize("rule", RULES)
def test_one_vote_on_each_pair_is_that_pair_whatever_the_rule(tmp_path, rule) -> None:
    need(rule)
    records = [voted(f"q{i}", "ab"[i % 2], "p") for i in range(6)]
    found, dropped = read(records, tmp_path, rule)
    plain = [{"prompt": f"q{i}", "chosen": "xy"[i % 2], "rejected": "yx"[i % 2]} for i in range(6)]
    assert splits.sha256_of(found.rows) == splits.sha256_of(read(plain, tmp_path)[0].rows)
    assert dropped.total() == 0
    assert found.annotators["annotators"]["p"]["compared"] == 0
    (line,) = annotator_facts({"preferences": found.annotators})
    assert line == "Annotators (preferences): 6 judgements of 6 items."  # alone, nobody is called reliable


def test_names_that_are_none_are_nobody(tmp_path) -> None:
    names = ["", "  ", math.nan, None, "p", " p ", 3]
    records = [{**voted("q", "a"), "annotator": name} for name in names]
    found, dropped = read(records, tmp_path)
    assert found.annotators["judgements"] == 6 and set(found.annotators["annotators"]) == {"p", "3"}
    assert dropped.places() == {"repeated_judgement: annotator says it again": ["line 6"]}
    pytest.importorskip("crowdkit")
    found, dropped = read(records, tmp_path, "reliability")
    assert dropped.counts() == {"empty_value: annotator": 4, "repeated_judgement: annotator says it again": 1}
    assert len(found.rows) == 1


def by_five(seed: int, prompts: int) -> tuple[list[dict[str, Any]], dict[tuple[str, frozenset[str]], str]]:
    """Judgements of three of the lab's annotators, of one who throws a coin and of one who prefers the worse reply nine
    times in ten; and the better reply of each pair by the lab's rule."""
    rng = random.Random(seed)
    records, truth = [], {}
    for row in lab.preferences("train", prompts, seed):
        prompt, a, b = row["prompt"], row["chosen"], row["rejected"]
        gold_a, gold_b = lab.gold(prompt, a), lab.gold(prompt, b)
        if gold_a == gold_b:
            continue
        truth[prompt, frozenset((a, b))] = a if gold_a > gold_b else b
        said = {each.name: each.prefers_first(prompt, a, b, rng) for each in POOL[:3]}
        said["coin"] = rng.random() < 0.5
        said["contrary"] = (gold_a < gold_b) != (rng.random() < 0.1)
        records += [voted(prompt, "a" if first else "b", name, a, b) for name, first in said.items()]
    return records, truth


def right(rows: Iterable[Any], truth: dict[tuple[str, frozenset[str]], str]) -> float:
    each = [truth[row.prompt[0]["content"], frozenset((row.chosen, row.rejected))] == row.chosen for row in rows]
    return sum(each) / len(each)


@pytest.mark.parametrize("seed", [0, 1])
def test_reliability_finds_the_truth_more_often_than_a_majority_with_bad_annotators(tmp_path, seed) -> None:
    pytest.importorskip("crowdkit")
    records, truth = by_five(seed, 200)
    by_majority = right(read(records, tmp_path)[0].rows, truth)
    found, _ = read(records, tmp_path, "reliability")
    assert right(found.rows, truth) > by_majority + 0.08
    people = found.annotators["annotators"]
    assert people["contrary"]["reliability"] < 0.3
    assert people["coin"]["reliability"] == pytest.approx(0.5, abs=0.1)
    assert min(people[each.name]["reliability"] for each in POOL[:3]) > 0.7
    _, line = annotator_facts({"preferences": found.annotators})
    assert "least first: contrary " in line
    texts = {part.strip().split()[0]: part for part in line.split("least first: ")[1].split("); ")}
    assert "against the others" in texts["contrary"] and "not told from chance" in texts["coin"]
    assert not any("against" in texts[each.name] or "chance" in texts[each.name] for each in POOL[:3])


def test_who_always_says_the_first_is_found_to_know_nothing(tmp_path) -> None:
    pytest.importorskip("crowdkit")
    rng = random.Random(5)
    records = []
    for i in range(120):
        good_first = i % 2 == 0
        sides = ("good", "bad") if good_first else ("bad", "good")
        for name in "pqr":
            truthful = rng.random() < 0.85
            records.append(voted(f"q{i}", "a" if truthful == good_first else "b", name, *sides))
        records.append(voted(f"q{i}", "a", "first", *sides))
    found, _ = read(records, tmp_path, "reliability")
    people = found.annotators["annotators"]
    assert people["first"]["reliability"] == pytest.approx(0.5, abs=0.06)
    assert sum(row.chosen == "good" for row in found.rows) >= 105  # of 120; 113 are expected of three at 0.85


@pytest.mark.skipif(not HH_FILE.is_file(), reason="the HH-RLHF sample is not beside this checkout")
@pytest.mark.parametrize("rule", RULES)
def test_real_pairs_judged_by_three(tmp_path, rule) -> None:
    need(rule)
    rng = random.Random(0)
    with gzip.open(HH_FILE, "rt", encoding="utf-8") as file:
        pairs = [json.loads(line) for line in file]
    records = []
    for pair in pairs:
        for name, errs in (("p", 0.1), ("q", 0.2), ("r", 0.3)):
            sides = ("rejected", "chosen") if rng.random() < errs else ("chosen", "rejected")
            records.append({"chosen": pair[sides[0]], "rejected": pair[sides[1]], "annotator": name})
    found, _ = read(records, tmp_path, rule)
    assert found.read == 4500
    people = found.annotators["annotators"]
    p, q, r = (people[name]["agreed"] / people[name]["compared"] for name in "pqr")
    assert p > q > r
    # At least two of three are right with probability 0.902; a single vote with 0.8 on average.
    original = {(row.prompt[-1]["content"], row.chosen) for row in read(pairs, tmp_path)[0].rows}
    kept = splits.clean(found.rows, Rejects())
    agree = sum((row.prompt[-1]["content"], row.chosen) in original for row in kept) / len(kept)
    assert agree == pytest.approx({"majority": 0.902, "soft": 0.8, "reliability": 0.902}[rule], abs=0.03)
    assert 0.2 < found.annotators["alpha"] < 0.5
    if rule == "reliability":
        found_right = {name: person["reliability"] for name, person in people.items()}
        assert found_right == pytest.approx({"p": 0.9, "q": 0.8, "r": 0.7}, abs=0.05)


def problems(data: dict[str, Any]) -> str:
    with pytest.raises(RecipeError) as error:
        recipes.check({"algorithms": {"dpo": {}}, "data": data})
    return str(error.value)


def test_mistakes_are_named(tmp_path, monkeypatch) -> None:
    file = str(save([{**voted("q", "a"), "anotator": "p"}], tmp_path / "x.jsonl"))
    said = problems({"preferences": file, "annotators": "majorty"})
    assert "data.annotators" in said and "'majority'" in said and "majorty" in said
    monkeypatch.setattr("prefzoo.recipe.data_check.find_spec", lambda name: None)
    said = problems({"preferences": file, "annotators": "reliability"})
    assert "pip install 'prefzoo[annotators]'" in said
    assert "unknown column 'annotator'. Did you mean 'anotator'?" in said and "data.columns.annotator" in said
    said = problems({"ratings": "a/b", "annotators": "soft"})
    assert "data.annotators: 'soft' decides votes in data.preferences, or in data.rankings" in said
    options = ReadOptions(annotators="reliability")
    with pytest.raises(DataError, match="needs to know who said what"):
        read_rows("preferences", file, options)
