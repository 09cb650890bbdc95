"""What `prefzoo data` and the report say of the data: numbers that add up, places that a person finds."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import SMALL
from prefzoo import compare
from prefzoo.cli import app
from prefzoo.commands.comparison import prepare_data
from prefzoo.data.rejects import Rejects, in_order
from prefzoo.errors import PrefzooError
from prefzoo.report.data_summary import data_facts, reason_text, shorten_places

GOLD = "def score(prompts, completions):\n    return [float(len(text)) for text in completions]\n"


def lines(path: Path, records: list[Any]) -> Path:
    path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records))
    return path


def prepared(recipe: dict[str, Any], folder: Path) -> tuple[dict[str, Any], dict[str, Any], Path]:
    made = prepare_data({"algorithms": {"dpo": {}}, **recipe}, out=folder)
    preflight, manifest = (json.loads((made / f"{name}.json").read_text()) for name in ("preflight", "manifest"))
    return preflight, manifest, made


def pairs(count: int) -> list[dict[str, str]]:
    return [{"prompt": f"question {i}", "chosen": "good", "rejected": "bad"} for i in range(count)]


def test_the_numbers_add_up_whatever_was_dropped(tmp_path) -> None:
    ranked = [{"prompt": f"rank {i}", "responses": ["a", "b", "c", "d"], "ranks": [1, 2, 3, 3]} for i in range(20)]
    files = {
        "preferences": lines(
            tmp_path / "pairs.jsonl",
            [*pairs(30), pairs(1)[0], "oops", "", {"prompt": "x"}, {**pairs(1)[0], "rejected": "good"}],
        ),
        "rankings": lines(tmp_path / "ranked.jsonl", [*ranked, {"prompt": "x", "ranking": ["a"]}]),
        "ratings": lines(
            tmp_path / "rated.jsonl",
            [{"prompt": f"rate {i % 9}", "response": f"r{i % 3}", "rating": i % 4, "by": "me"} for i in range(30)],
        ),
        "demonstrations": lines(
            tmp_path / "shown.jsonl",
            [
                {"prompt": "p", "completion": "long " * 900},
                *[{"prompt": f"show {i}", "completion": "c"} for i in range(9)],
            ],
        ),
    }
    data = {kind: str(path) for kind, path in files.items()}
    preflight, manifest, made = prepared({"data": data, "budget": {"prompts": 25}}, tmp_path / "run")
    read = sum(len(path.read_text().splitlines()) for path in files.values())
    before, after = (sum(preflight[key].values()) for key in ("dropped_records", "dropped_after"))
    assert (preflight["read"], preflight["used"] + before) == (read, read)
    assert preflight["dropped_records"] == {
        "blank": 1,
        "fewer_than_two_replies": 1,
        "missing_key: chosen, rejected": 1,
        "not_json": 1,
    }
    assert preflight["made"] == preflight["kept"] + after
    assert preflight["dropped_after"] == {"duplicate_row": 1, "identical_pair": 1, "reply_too_long": 1}
    assert preflight["kept"] == sum(s["rows"] for s in manifest["splits"].values()) + preflight["beyond_budget"]
    assert preflight["beyond_budget"] > 0
    assert preflight["unpaired"]["tied_replies"] >= 20
    assert preflight["dropped"] == {
        **preflight["dropped_records"],
        **preflight["dropped_after"],
        **preflight["unpaired"],
    }
    told = "\n".join(data_facts(preflight, manifest))
    assert f"{read} records read = {preflight['used']} used + {before} dropped" in told
    assert f"{preflight['made']} rows made of them = {preflight['kept']} kept + {after} dropped" in told
    assert f"{preflight['beyond_budget']} training rows beyond the budget" in told
    assert "Dropped, missing key: chosen, rejected: 1 (pairs.jsonl line 34)." in told
    assert "Not paired, tied replies: 2" in told and "Columns of the ratings that are not read: by." in told
    assert "Rated (ratings): 9 replies, with 0 to 3; no range is assumed." in told
    places = [json.loads(line)["row"] for line in (made / "dropped.jsonl").read_text().splitlines()]
    assert places == sorted(places, key=in_order) and len(places) == sum(preflight["dropped"].values())
    assert places[0] == "pairs.jsonl line 31" and places[-1].startswith("shown.jsonl")


def test_votes_add_up_and_disagreement_is_told(tmp_path) -> None:
    votes = [
        {"prompt": f"q{i}", "response_a": "x", "response_b": "y", "preference": said, "annotator": name}
        for i in range(40)
        for name, said in (("p", "a"), ("q", "a" if i % 2 else "b"), ("r", "a" if i % 4 else "tie"))
    ]
    ranked = [
        {"prompt": f"r{i}", "ranking": ranking} for i in range(10) for ranking in (["a", "b", "c"], ["b", "a", "c"])
    ]
    data = {
        "preferences": str(lines(tmp_path / "votes.jsonl", votes)),
        "rankings": str(lines(tmp_path / "ranked.jsonl", ranked)),
        "annotators": "soft",
        "pairs": "plackett_luce",
    }
    preflight, manifest, _ = prepared({"data": data}, tmp_path / "run")
    # p says a 40 times, q 20 times a and 20 times b, r 30 times a and 10 times neither.
    assert preflight["dropped"] == {"votes_for_neither": 10, "tied_replies": 10}
    assert (preflight["read"], preflight["used"]) == (140, 130)
    assert preflight["made"] == preflight["kept"] == 110 + 20  # votes, and of each two rankings a over c, b over c
    assert preflight["kept"] == sum(split["rows"] for split in manifest["splits"].values())
    told = "\n".join(data_facts(preflight, manifest))
    assert "Pairs of rankings: every two by their Plackett-Luce strengths" in told
    assert (
        "Annotators (preferences): 120 judgements of 40 items, of which 10 say that neither reply is better; they "
        in told
    )
    assert (
        "they disagree on 20 of the 40 that several judged (50%); two judgements of one item are the same in 58%"
        in told
    )
    assert "Every vote is a pair, so that votes count by their share." in told
    assert "By annotator (preferences), agreement with most of the others, least first: q " in told
    assert (
        "Annotators (rankings): 60 judgements of 30 items; they disagree on 10 of the 30 that several judged (33%)"
        in told
    )


def test_places_are_in_order_and_name_a_file_once() -> None:
    dropped = Rejects()
    for number in (10, 9, 100):
        dropped.add("blank", f"b.jsonl line {number}", "")
    dropped.add("blank", "a.jsonl line 11", "")
    places = dropped.places()["blank"]
    assert places == ["a.jsonl line 11", "b.jsonl line 9", "b.jsonl line 10", "b.jsonl line 100"]
    assert shorten_places(places) == ["a.jsonl line 11", "b.jsonl line 9", "line 10", "line 100"]
    assert shorten_places(["lab 3", "lab 4"]) == ["lab 3", "lab 4"]
    assert reason_text("missing_key: response_a") == "missing key: response_a"


def test_two_files_of_one_name_are_told_apart(tmp_path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    data = {
        "preferences": str(lines(tmp_path / "one" / "x.jsonl", [*pairs(30), "oops"])),
        "demonstrations": str(lines(tmp_path / "two" / "x.jsonl", [{"prompt": "p", "completion": "c"}, "oops"])),
    }
    preflight, _, _ = prepared({"data": data, "start": "none"}, tmp_path / "run")
    assert preflight["dropped_rows"] == {"not_json": ["demonstrations x.jsonl line 2", "preferences x.jsonl line 31"]}


def test_reasons_are_in_the_results_too(tmp_path) -> None:
    file = lines(tmp_path / "pairs.jsonl", [*pairs(40), {"prompt": "x", "chosen": 4, "rejected": "y"}, "{oops"])
    sets = ["budget.prompts=16", "evaluation.prompts=4", "generation.max_new_tokens=8", "tracking.wandb.mode=disabled"]
    found = compare({"data": {"preferences": str(file)}, "algorithms": {"sft": {}}}, seeds=1, sets=sets, out=tmp_path)
    reason = "wrong_type: chosen is a number, not a text or a list of one message"
    saved = json.loads((tmp_path / "results.json").read_text())["preflight"]
    assert saved["dropped"] == {"not_json": 1, reason: 1} == found.preflight["dropped"]
    assert saved["dropped_rows"] == {"not_json": ["pairs.jsonl line 42"], reason: ["pairs.jsonl line 41"]}
    for name in ("report.md", "report.html"):
        assert "Dropped, not json: 1 (pairs.jsonl line 42)" in (tmp_path / name).read_text()


def labelled(folder: Path, by: str) -> Path:
    (folder / "prompts.txt").write_text("".join(f"question {i}\n" for i in range(40)) + "\nlast\n")
    (folder / "gold.py").write_text(GOLD)
    recipe = folder / "mine.yaml"
    recipe.write_text(
        f"data: {{prompts: {folder / 'prompts.txt'}, label_with: {by}}}\n"
        f"gold: {{path: {folder / 'gold.py'}:score}}\njudge: {{type: random}}\nstart: none\nalgorithms: {{dpo: }}\n"
    )
    return recipe


@pytest.mark.parametrize(("by", "says"), [("gold", "the truth under `gold:`"), ("judge", "the judge under `judge:`")])
def test_pairs_that_are_made_later_are_announced(tmp_path, by: str, says: str) -> None:
    shown = CliRunner().invoke(app, ["data", str(labelled(tmp_path, by)), "--out", str(tmp_path / "run")])
    assert shown.exit_code == 0, shown.output
    (folder,) = [path.parent for path in (tmp_path / "run" / "stages").glob("*/manifest.json")]
    counts = {n: s["prompts"] for n, s in json.loads((folder / "manifest.json").read_text())["splits"].items()}
    text = " ".join(shown.output.split())
    assert f"No pairs yet: `prefzoo compare` makes them. The start answers each of the {counts['train']} training and "
    assert f"{counts['train']} training and {counts['test']} test prompts twice, and {says}" in text
    assert "Training prompts as the model sees them:" in text and "⟦" not in text
    assert re.search(r"prompts.txt line \d+ <\|user\|>question \d+<\|end\|><\|assistant\|>", text)
    assert "Dropped, blank: 1 (prompts.txt line 41)" in text
    cells = [cell.strip() for cell in next(ln for ln in shown.output.splitlines() if "│ train" in ln).split("│")]
    assert cells[4] == cells[6] == "-" and cells[5] != "0 / 0 / 0"


def test_data_that_teaches_nothing_is_refused_before_anything_is_trained(tmp_path) -> None:
    same = [{"prompt": f"q{i}", "responses": ["a", "b"], "ratings": [5, 5]} for i in range(30)]
    with pytest.raises(PrefzooError, match=r"not one pair of a better and a worse reply.*'tied_replies': 30"):
        prepared({"data": {"ratings": str(lines(tmp_path / "same.jsonl", same))}}, tmp_path / "run")
    long = [{"prompt": f"q{i}", "completion": "long " * 900} for i in range(30)]
    data = {
        "preferences": str(lines(tmp_path / "pairs.jsonl", pairs(30))),
        "demonstrations": str(lines(tmp_path / "long.jsonl", long)),
    }
    with pytest.raises(PrefzooError, match=r"not one demonstration, which .*'reply_too_long': 30"):
        prepared({"data": data}, tmp_path / "run")


def test_what_the_chat_template_refuses_is_counted(tmp_path) -> None:
    from prefzoo.lab import MODEL_DIR

    model = tmp_path / "model"
    model.mkdir()
    for file in MODEL_DIR.iterdir():
        if file.is_file():
            (model / file.name).write_bytes(file.read_bytes())
    template = (
        "{% for m in messages %}{% if (m['role'] == 'user') != (loop.index0 % 2 == 0) %}"
        "{{ raise_exception('roles must alternate') }}{% endif %}{{ m['content'] }}{% endfor %}"
    )
    (model / "chat_template.jinja").write_text(template)
    twice = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    file = lines(tmp_path / "x.jsonl", [*pairs(30), {**pairs(1)[0], "prompt": twice}])
    recipe = {"model": {"path": str(model)}, "data": {"preferences": str(file)}, "start": "none"}
    preflight, _, made = prepared(recipe, tmp_path / "run")
    assert preflight["dropped_rows"] == {"refused_by_the_chat_template": ["x.jsonl line 31"]}
    assert "roles must alternate" in (made / "dropped.jsonl").read_text()


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("def score(x):\n    return 1\n", "TypeError"),
        ("score = 3\n", "is no function, but 3"),
        ("def score(prompts, completions):\n    return [float('nan')] * len(completions)\n", "nan"),
        ("def score(prompts, completions):\n    return [1.0]\n", "1 scores for 2 completions"),
    ],
)
@pytest.mark.parametrize("key", ["gold.path", "reward.path"])
def test_a_wrong_scoring_function_is_told_before_anything_is_trained(key, code, says, tmp_path) -> None:
    (tmp_path / "fn.py").write_text(code)
    block = "{type: function, path: PATH}" if key == "reward.path" else "{path: PATH}"
    sets = [*SMALL, f"{key.partition('.')[0]}={block.replace('PATH', str(tmp_path / 'fn.py') + ':score')}"]
    with pytest.raises(PrefzooError) as error:
        compare("quickstart", ["dpo"], seeds=1, sets=sets, out=tmp_path / "run")
    assert key in str(error.value) and says in str(error.value)
    assert not list((tmp_path / "run").glob("stages/start*"))


def test_prompts_that_differ_in_case_are_rendered_each(tmp_path) -> None:
    file = tmp_path / "pairs.jsonl"
    records = [{"prompt": f"How much is {i}?", "chosen": f"{i} euros.", "rejected": "No."} for i in range(30)]
    records += [{**record, "prompt": record["prompt"].lower() + " "} for record in records]
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = {"data": {"preferences": str(file)}, "algorithms": {"dpo": {}}}
    folder = prepare_data(recipe, out=tmp_path / "run")
    found = json.loads((folder / "preflight.json").read_text())
    assert all(split["unaligned"] == 0 for split in found["splits"].values())
