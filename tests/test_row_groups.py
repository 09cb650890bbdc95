"""Groups of prompts: the data's own, and families of near-duplicates among the test prompts."""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import Any

import pytest

from data_files import look, save
from prefzoo.commands.comparison import prepare_data
from prefzoo.data import splits
from prefzoo.data.formats import Row
from prefzoo.data.near_duplicates import near_duplicates, with_test_groups
from prefzoo.errors import DataError
from prefzoo.report.data_summary import data_facts
from prefzoo.views import prompt_key

WORDS = [f"word{i}" for i in range(500)]
SHARES = {"train": 0.6, "validation": 0.1, "test": 0.3}


def asked(text: str, group: str | None = None) -> Row:
    return Row(text, [{"role": "user", "content": text}], "good", "bad", group=group)


def families(count: int, size: int, rng: random.Random) -> list[str]:
    """Prompts of 30 words; those of a family have other last words."""
    bases = [[rng.choice(WORDS) for _ in range(30)] for _ in range(count)]
    return [" ".join([*base[:-1], f"variant{i}"]) for base in bases for i in range(size)]


def three_words(text: str) -> set[tuple[str, ...]]:
    words = text.lower().split()
    return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}


def by_hand(texts: list[str]) -> set[frozenset[str]]:
    """Families by comparing every two."""
    family = {text: {text} for text in texts}
    for a, b in itertools.combinations(texts, 2):
        one, other = three_words(a), three_words(b)
        if len(one & other) / len(one | other) >= 0.8 and family[a] is not family[b]:
            family[a] |= family[b]
            for text in family[b]:
                family[text] = family[a]
    return {frozenset(each) for each in family.values()}


def found_in(texts: list[str]) -> set[frozenset[str]]:
    parts = {"train": [], "validation": [], "test": [asked(text) for text in texts]}
    grouped: dict[str | None, set[str]] = {}
    for row in with_test_groups(parts["test"], near_duplicates(parts).families):
        grouped.setdefault(row.group, set()).add(row.prompt[0]["content"])
    return {frozenset(each) for each in grouped.values()}


def test_families_are_those_that_comparing_every_two_finds() -> None:
    rng = random.Random(0)
    texts = families(20, 10, rng) + [" ".join(rng.choice(WORDS) for _ in range(12)) for _ in range(100)]
    rng.shuffle(texts)
    found = found_in(texts)
    assert found == by_hand(texts)
    assert sorted(map(len, found))[-20:] == [10] * 20 and len(found) == 120


def test_a_family_is_whoever_is_near_someone_in_it() -> None:
    """The first and the last of a chain share too little by themselves."""
    words = WORDS[:40]
    chain = [" ".join([f"new{j}" for j in range(i)] + words[i:]) for i in range(0, 13, 2)]
    one, other = three_words(chain[0]), three_words(chain[-1])
    assert len(one & other) / len(one | other) < 0.8
    assert found_in([*chain, "something else that was asked"]) == {
        frozenset(chain),
        frozenset(["something else that was asked"]),
    }


def test_scripts_without_spaces_have_families_too() -> None:
    base = "请把下面这段话概括成一句话今天商店里有一盏灯和一把椅子还有一本书价格都很便宜"
    other = "我们昨天在火车站附近的餐厅吃了一顿非常美味的晚饭然后走路回家"
    assert found_in([f"{base}一", f"{base}二", other]) == {frozenset([f"{base}一", f"{base}二"]), frozenset([other])}


def test_what_a_template_says_over_and_over_makes_no_family() -> None:
    rng = random.Random(1)
    template = " ".join(rng.choice(WORDS) for _ in range(120))
    texts = [f"{template} {' '.join(rng.choice(WORDS) for _ in range(8))}" for _ in range(200)]
    copies = [f"{text} please" for text in texts[:5]]
    found = found_in(texts + copies)
    assert len(found) == 200 and {frozenset(pair) for pair in zip(texts[:5], copies, strict=True)} <= found


def test_near_duplicates_are_found_in_time_that_grows_with_their_number() -> None:
    """Templated prompts of which every two are candidates: comparing all would take 8 million comparisons."""
    from unittest import mock

    from prefzoo.data import near_duplicates as module

    rng = random.Random(2)
    templates = [" ".join(rng.choice(WORDS) for _ in range(120)) for _ in range(3)]
    rows = [asked(f"{templates[i % 3]} {' '.join(rng.choice(WORDS) for _ in range(30))}") for i in range(4000)]
    rows += [asked(f"{row.prompt[0]['content']} again") for row in rows[:40]]
    with mock.patch.object(module, "_jaccard", side_effect=module._jaccard) as compared:
        found = near_duplicates({"train": rows[:3000], "validation": [], "test": rows[3000:]})
    assert compared.call_count < 8 * len(rows)
    assert found.by_split["test"]["count"] == 40


def sealed(
    records: list[dict[str, Any]], folder: Path, **data: Any
) -> tuple[dict[str, list[Row]], dict[str, Any], Any]:
    file = save(records, folder / "x.jsonl")
    recipe = {"data": {"preferences": str(file), "splits": SHARES, **data}, "algorithms": {"dpo": {}}}
    made = prepare_data(recipe, out=folder / "run")
    read = [json.loads((made / f"{name}.json").read_text()) for name in ("preflight", "manifest")]
    return {name: splits.load_split(made, name) for name in splits.SPLITS}, *read


def test_the_datas_groups_are_sealed_and_never_straddle_splits(tmp_path) -> None:
    rng = random.Random(3)
    records = [
        {"prompt": " ".join(rng.choice(WORDS) for _ in range(9)), "chosen": "good", "rejected": "bad", "topic": i % 40}
        for i in range(200)
    ]
    parts, preflight, manifest = sealed(records, tmp_path, columns={"group": "topic"})
    groups = {name: {row.group for row in rows} for name, rows in parts.items()}
    assert all(groups.values()) and sum(map(len, groups.values())) == 40
    assert len(set().union(*groups.values())) == 40
    topics = {record["prompt"]: str(record["topic"]) for record in records}
    assert all(row.group == topics[row.prompt[0]["content"]] for row in parts["test"])
    assert preflight["test_groups"] == {"prompts": 5 * len(groups["test"]), "groups": len(groups["test"]), "largest": 5}
    assert preflight["unread_columns"] == {}
    told = "\n".join(facts := data_facts(preflight, manifest))
    assert len(set(facts)) == len(facts)
    assert f"Test prompts: {5 * len(groups['test'])}, in {len(groups['test'])} groups of near-duplicates" in told


def test_near_duplicates_among_test_prompts_are_sealed_as_groups_and_change_no_manifest(tmp_path) -> None:
    rng = random.Random(4)
    records = [{"prompt": text, "chosen": "good", "rejected": "bad"} for text in families(12, 10, rng)]
    parts, preflight, manifest = sealed(records, tmp_path)
    test = {row.prompt[0]["content"]: row.group for row in parts["test"]}
    by_group: dict[str | None, set[str]] = {}
    for text, group in test.items():
        by_group.setdefault(group, set()).add(text)
    assert None not in by_group and {frozenset(each) for each in by_group.values()} == by_hand(list(test))
    assert preflight["test_groups"]["groups"] == len(by_group) < len(test)
    assert manifest["splits"]["test"]["sha256"] == splits.sha256_of(parts["test"])
    without = splits.seal({name: [*rows] for name, rows in parts.items()} | {"test": [
        Row(**{**vars(row), "group": None}) for row in parts["test"]]}, {}, splits.Rejects())  # fmt: skip
    assert without.manifest == manifest
    assert all(row.group is None for row in parts["train"])


def test_groups_that_share_a_prompt_are_one() -> None:
    rows = [asked("a", "x"), asked("a", "y"), asked("b", "y"), asked("b"), asked("c", "z"), asked("d"), asked("e", "w")]
    rows += [Row("again", rows[-1].prompt, "other", "bad", group="x")]
    joined = {prompt_key(row.prompt): row.group for row in splits.with_joined_groups(rows)}
    assert list(joined.values()) == ["w", "w", "z", None, "w"]
    assert splits.with_joined_groups(rows[5:6]) == rows[5:6]


def test_a_group_that_is_none_is_counted_and_one_group_for_all_is_told(tmp_path) -> None:
    pair = {"prompt": "hi", "chosen": "yes", "rejected": "no"}
    records = [{**pair, "group": 7}, {**pair, "group": ["a"]}, {**pair, "group": "\ud800"}, {**pair, "group": None}]
    found, places = look("preferences", save(records, tmp_path / "x.jsonl"))
    assert [row.group for row in found.rows] == ["7", "?", None]
    assert places == {"wrong_type: group is a list, not a name or a number": ["line 2"]}
    rows = [asked(f"q{i}", "all") for i in range(20)]
    with pytest.raises(DataError, match=r"The rows are of 1 groups \(column 'group'\), and a group stays whole"):
        splits.seal(splits.split_by_prompt(rows, SHARES, 0), {}, splits.Rejects())
    with pytest.raises(DataError, match="1 groups are in both train and test"):
        splits.seal({"train": rows[:9], "validation": [], "test": rows[9:]}, {}, splits.Rejects())


def test_evaluations_say_the_group_of_each_prompt(small_run) -> None:
    _, out = small_run
    (data,) = [path.parent for path in (out / "stages").glob("data*/test.jsonl")]
    groups = {json.dumps(row.prompt): row.group for row in splits.load_split(data, "test")}
    for file in (out / "stages").glob("evaluate*/replies.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        assert records and all(record["group"] == groups[json.dumps(record["prompt"])] for record in records)
