"""White space, scripts and system messages: what is read is what was written."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from data_files import look, save
from prefzoo.data import splits
from prefzoo.data.rejects import Rejected, Rejects
from prefzoo.data.shorten_prompts import shorten

USER = {"role": "user", "content": "hi"}
CODE, FLAT = "    return x\n", "return x"


def reply(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def said(text: str) -> str:
    return f"\n\nHuman: hi\n\nAssistant: {text}"


KEPT: dict[str, tuple[str, dict[str, Any]]] = {
    "replies": ("preferences", {"prompt": "hi", "chosen": CODE, "rejected": FLAT}),
    "messages": ("preferences", {"prompt": [USER], "chosen": reply(CODE), "rejected": reply(FLAT)}),
    "conversations": ("preferences", {"chosen": [USER, *reply(CODE)], "rejected": [USER, *reply(FLAT)]}),
    "transcripts": ("preferences", {"chosen": said(CODE), "rejected": said(FLAT)}),
    "prompt repeated": ("preferences", {"prompt": said(""), "chosen": said(CODE), "rejected": said(FLAT)}),
    "open transcript": ("preferences", {"prompt": said("").rstrip(), "chosen": f" {CODE}", "rejected": f" {FLAT}"}),
    "labels": ("preferences", {"prompt": "hi", "response_a": CODE, "response_b": FLAT, "preference": "a"}),
    "ranking": ("rankings", {"prompt": "hi", "ranking": [CODE, FLAT]}),
    "ranks": ("rankings", {"prompt": "hi", "responses": [FLAT, CODE], "ranks": [2, 1]}),
    "ratings": ("ratings", {"prompt": "hi", "responses": [CODE, FLAT], "ratings": [2, 1]}),
}


@pytest.mark.parametrize("name", KEPT)
@pytest.mark.parametrize("ending", [".jsonl", ".csv", ".parquet"])
def test_white_space_of_replies_is_theirs(tmp_path, name: str, ending: str) -> None:
    kind, record = KEPT[name]
    found, places = look(kind, save([record], tmp_path / f"x{ending}"))
    pairs = [row for row in splits.clean(found.rows, Rejects()) if row.chosen is not None]
    assert [(row.prompt, row.chosen, row.rejected) for row in pairs] == [([USER], CODE, FLAT)] and places == {}


def test_white_space_of_demonstrations_thumbs_and_prompts_is_theirs(tmp_path) -> None:
    prompt = "  def f(x):\n"
    shown = [{"prompt": prompt, "completion": CODE}, {"messages": [{**USER, "content": prompt}, *reply(CODE)]}]
    rows = look("demonstrations", save(shown, tmp_path / "x.jsonl"))[0].rows
    assert [(row.prompt[0]["content"], row.demonstration) for row in rows] == [(prompt, CODE)] * 2
    thumbs = [{"prompt": "hi", "completion": text, "label": text == CODE} for text in (CODE, FLAT)]
    (row,) = look("preferences", save(thumbs, tmp_path / "y.jsonl"))[0].rows
    assert (row.chosen, row.rejected) == (CODE, FLAT)
    (tmp_path / "p.txt").write_bytes(b"  The film was \r\nnext\n")
    prompts = [row.prompt[0]["content"] for row in look("prompts", tmp_path / "p.txt")[0].rows]
    assert prompts == ["  The film was ", "next"]


def test_a_reply_that_happens_to_begin_with_the_prompts_words_keeps_them(tmp_path) -> None:
    records = [
        {"prompt": "hi", "chosen": "hi there", "rejected": "go"},
        {"prompt": "The film", "chosen": "The film was good", "rejected": "The film was bad"},
    ]
    rows = look("preferences", save(records, tmp_path / "x.jsonl"))[0].rows
    assert [(row.chosen, row.rejected) for row in rows] == [("hi there", "go"), (" was good", " was bad")]
    shown = [{"prompt": "hi", "completion": "hi there"}]
    assert look("demonstrations", save(shown, tmp_path / "y.jsonl"))[0].rows[0].demonstration == "hi there"


def test_transcripts_keep_all_but_their_separator(tmp_path) -> None:
    text = "\n\nHuman:  a \n\n\nAssistant:  b\n  c\n\nHuman: d\n\nAssistant:"
    record = {"chosen": f"{text} yes ", "rejected": f"{text.replace(' a ', 'a')} no"}
    (row,) = look("preferences", save([record], tmp_path / "x.jsonl"))[0].rows
    assert [turn["content"] for turn in row.prompt] == [" a \n", " b\n  c", "d"]
    assert (row.chosen, row.rejected) == ("yes ", "no")


SYSTEM = {"role": "system", "content": "Be brief."}
SHAPES: list[dict[str, Any]] = [
    {"prompt": "hi", "chosen": "yes", "rejected": "no"},
    {"prompt": [USER], "chosen": reply("yes"), "rejected": reply("no")},
    {"prompt": [SYSTEM, USER], "chosen": reply("yes"), "rejected": reply("no")},
    {"chosen": [USER, *reply("yes")], "rejected": [USER, *reply("no")]},
    {"prompt": "hi", "response_a": "yes", "response_b": "no", "preference": "a"},
]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", ["system", "instructions"])
def test_a_system_column_becomes_a_system_message(tmp_path, shape: dict[str, Any], name: str) -> None:
    columns = {} if name == "system" else {"system": name}
    path = save([{**shape, name: SYSTEM["content"]}, {**shape, name: " "}], tmp_path / "x.jsonl")
    found, places = look("preferences", path, columns=columns)
    with_system, without = found.rows[0], found.rows[-1]
    assert with_system.prompt == [SYSTEM, USER] and (with_system.chosen, with_system.rejected) == ("yes", "no")
    assert without.prompt == [turn for turn in shape.get("prompt", [USER]) if isinstance(turn, dict)] or [USER]
    assert places == {} and found.unread == []


def test_two_system_messages_are_counted(tmp_path) -> None:
    record = {**SHAPES[2], "system": "Be long."}
    _, places = look("preferences", save([record, SHAPES[0], {**SHAPES[0], "system": 3}], tmp_path / "x.jsonl"))
    assert places == {
        "two_system_messages: system is not the one in the conversation": ["line 1"],
        "wrong_type: system is a number, not a text": ["line 3"],
    }
    (row,) = look("demonstrations", save([{"messages": [USER, *reply("x")], **{"system": "s"}}], tmp_path / "y.jsonl"))[
        0
    ].rows
    assert row.prompt == [{"role": "system", "content": "s"}, USER]


def tokens(prompt) -> int:
    """One a byte, and two a turn."""
    return sum(len(turn["content"].encode()) + 2 for turn in prompt)


def shorten_one(prompt, counted, limit):
    (shortened,) = shorten([prompt], lambda prompts: [counted(each) for each in prompts], limit)
    return shortened


FAMILY, FLAG, ACCENT = "\U0001f468‍\U0001f469‍\U0001f467", "\U0001f1e9\U0001f1ea", "é"


@pytest.mark.parametrize(
    "text",
    ["今天商店里有一盏灯" * 18, FAMILY * 40, FLAG * 60, ACCENT * 99, "สวัสดีครับ" * 20, "word " * 60, "x" * 300],
)
@pytest.mark.parametrize("limit", [40, 41, 42, 43])
def test_a_long_turn_of_any_script_is_cut_between_letters(text: str, limit: int) -> None:
    shortened = shorten_one([{"role": "user", "content": text}], tokens, limit)
    assert shortened is not None
    (turn,) = shortened
    kept = turn["content"]
    assert text.endswith(kept) and limit - 2 - 25 < tokens(shortened) <= limit
    before = text[: len(text) - len(kept)]
    for letter in (FAMILY, FLAG, ACCENT):
        assert letter not in text or (before + "|" + kept).count(letter) == text.count(letter)
    assert not unicodedata.combining(kept[0]) and (before[-1].isspace() or " " not in text)


def test_old_turns_go_first_and_the_systems_message_stays() -> None:
    turns = [{"role": role, "content": f"{role} {i:03}"} for i in range(3000) for role in ("user", "assistant")]
    prompt = [SYSTEM, *turns, USER]
    asked = []

    def counted(prompt) -> int:
        asked.append(len(prompt))
        return tokens(prompt)

    assert shorten_one(prompt, counted, 60) == [SYSTEM, *turns[-2:], USER]
    assert shorten_one(prompt, tokens, 40) == [SYSTEM, USER]
    assert len(asked) < 20
    assert shorten_one([SYSTEM, {**USER, "content": "a long question, much too long for this"}], tokens, 20) == [
        SYSTEM,
        {**USER, "content": "this"},
    ]
    assert shorten_one([SYSTEM, USER], tokens, 12) is None


def test_many_prompts_are_shortened_as_each_alone_and_what_they_need_is_asked_together() -> None:
    contents = [
        "word " * 60,
        "hi",
        "今天商店里有一盏灯" * 18,
        FAMILY * 40,
        "refused " * 9,
        "x" * 300,
        "\n" * 90,
        "a b " * 40,
    ]
    prompts = [[{"role": "user", "content": content}] for content in contents]
    prompts += [[SYSTEM, *prompt, *reply("yes"), USER] for prompt in prompts] + prompts
    asked: list[int] = []

    def count(prompts) -> list[int | Rejected]:
        asked.append(len(prompts))
        return [Rejected("no") if "refused" in str(prompt) else tokens(prompt) for prompt in prompts]

    together = shorten(prompts, count, 41)
    calls = len(asked)
    alone = [shorten([prompt], count, 41)[0] for prompt in prompts]
    assert [each.code if isinstance(each, Rejected) else each for each in together] == [
        each.code if isinstance(each, Rejected) else each for each in alone
    ]
    assert 4 * calls < len(asked) and max(asked) == len(prompts)
    assert sum(asked[:calls]) == sum(asked[calls:])


def test_a_prompt_of_five_megabytes_is_shortened_without_making_tokens_of_it_all() -> None:
    seen = []

    def counted(prompt) -> int:
        seen.append(sum(len(turn["content"]) for turn in prompt))
        return tokens(prompt)

    shortened = shorten_one([{"role": "user", "content": "question " * 600_000 + "end"}], counted, 100)
    assert shortened is not None and shortened[0]["content"].endswith("question end") and tokens(shortened) <= 100
    assert sum(seen) < 20_000


def test_long_prompts_and_code_go_the_whole_way(tmp_path) -> None:
    """Eighty long prompts, half of them Chinese, are shortened; eighty pairs differ in the first line's indentation."""
    import random

    from prefzoo.commands.comparison import prepare_data

    rng = random.Random(0)
    han = "请把下面这段话概括成一句话今天商店里有一盏灯和一把椅子还有一本书价格都很便宜"
    long = ["".join(rng.choice(han) for _ in range(160)) if i % 2 else "lamp chair " * 200 + str(i) for i in range(80)]
    files = {
        "long": [{"prompt": text, "chosen": "yes", "rejected": "no"} for text in long],
        "code": [{"prompt": f"def f{i}(x):", "chosen": f"    x + {i}\n", "rejected": f"x + {i}\n"} for i in range(80)],
    }
    for name, records in files.items():
        file = save(records, tmp_path / f"{name}.jsonl")
        recipe = {"data": {"preferences": str(file), "max_prompt_tokens": 150}, "algorithms": {"dpo": {}}}
        folder = prepare_data(recipe, out=tmp_path / name)
        preflight = json.loads((folder / "preflight.json").read_text())
        assert (preflight["kept"], preflight["dropped"]) == (80, {})
        assert preflight["shortened_prompt_count"] == (80 if name == "long" else 0)
        rows = [row for split in splits.SPLITS for row in splits.load_split(folder, split)]
        if name == "code":
            assert all(row.chosen == f"    {row.rejected}" for row in rows)
