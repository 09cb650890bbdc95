"""`prefzoo label`: which items a run or a file gives, what is told of the answers, and what is refused."""

from __future__ import annotations

import importlib.util
import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from prefzoo.cli import app
from prefzoo.commands import label_server
from prefzoo.commands.label_server import ab_shares, export_all, said_so_far, serve
from prefzoo.commands.labelling import LabelRequest, dimensions_of, open_store
from prefzoo.errors import PrefzooError
from prefzoo.feedback.feedback_types import Answer
from prefzoo.feedback.store import FeedbackStore
from prefzoo.recipe.check_recipe import load
from prefzoo.run.stage_graph import load_plan, make_plan

PROMPTS = 12


def made(folder: Path, *sets: str, labels: tuple[str, ...] = ("dpo", "ppo"), seeds: int = 2) -> Path:
    """The folder of a finished run with replies that name policy, seed and prompt; to prompt 1 all say the same."""
    plan = make_plan(load("quickstart", [f"seeds={seeds}", *sets], list(labels)), folder)
    folder.mkdir(exist_ok=True)
    plan.save()
    for stage in plan.stages.values():
        if stage.kind == "evaluate":
            stage.folder.mkdir(parents=True, exist_ok=True)
            records = [
                {
                    "prompt": [{"role": "user", "content": f"question {n}"}],
                    "reply": "same" if n == 1 else f"{stage.label} {stage.seed} {n}",
                    "proxy": {"start": 0.0, "dpo": 0.1 * n, "ppo": 500.0 * n}[str(stage.label)],
                }
                for n in range(PROMPTS)
            ]
            (stage.folder / "replies.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return folder


def test_an_ab_test_sets_the_start_beside_each_policy_by_one_seed_a_prompt(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    store, notes = open_store(LabelRequest(run))
    items = store.items()
    assert store.path == run / "labels.sqlite" and len(items) == 2 * (PROMPTS - 1)
    assert "2 pairs of replies are the same text, and are not shown." in notes
    seeds = set()
    for item in items:
        policies, texts = zip(*((reply["policy"], reply["text"].split()) for reply in item.replies), strict=True)
        assert policies[0] == "start" and policies[1] in ("dpo", "ppo") and item.kind == "ab"
        assert [text[0] for text in texts] == list(policies) and len({(text[1], text[2]) for text in texts}) == 1
        assert item.prompt[0]["content"] == f"question {texts[0][2]}"
        seeds.add(texts[0][1])
        assert not any(word in item.item_id for word in ("dpo", "ppo", "start"))
    assert seeds == {"0", "1"}
    by_prompt = {(item.prompt[0]["content"], item.replies[0]["text"]) for item in items}
    assert len(by_prompt) == PROMPTS - 1  # both policies of a prompt are of one seed
    assert [item.item_id for item in items] == sorted(item.item_id for item in items)  # an order that tells nothing
    again, _ = open_store(LabelRequest(run))
    assert again.items() == items  # the same command goes on


def test_other_tasks_of_a_run(tmp_path: Path) -> None:
    run = made(tmp_path / "run")

    def items(task: str, **more: Any) -> list[Any]:
        return open_store(LabelRequest(run, task, store=tmp_path / f"{task}.sqlite", **more))[0].items()

    compared = items("compare", rule="uncertain")
    assert len(compared) == 3 * (PROMPTS - 1)
    for item in compared:
        p = 1 / (1 + math.exp(min(700, abs(_proxy(item, 0) - _proxy(item, 1)))))
        assert item.uncertainty == pytest.approx(4 * p * (1 - p), abs=1e-9)
    assert [len(item.replies) for item in items("rank")] == [3] * (PROMPTS - 1)
    rated = items("rate", policies=["dpo"])
    assert len(rated) == PROMPTS and {item.replies[0]["policy"] for item in rated} == {"dpo"}
    assert dimensions_of(LabelRequest(run)) is None
    assert dimensions_of(LabelRequest(run, dimensions=["tone"])) == ["tone"]
    plan = json.loads((run / "plan.json").read_text())
    plan["recipe"]["data"]["attributes"] = ["tone", "truth"]
    (run / "plan.json").write_text(json.dumps(plan))
    assert dimensions_of(LabelRequest(run)) == ["tone", "truth"]  # the recipe's own list


def _proxy(item: Any, side: int) -> float:
    policy, _, n = item.replies[side]["text"].split()
    return {"start": 0.0, "dpo": 0.1 * int(n), "ppo": 500.0 * int(n)}[policy]


def test_answers_on_policies_that_a_run_has_no_longer_are_not_mixed_with_others(tmp_path: Path) -> None:
    run = made(tmp_path / "run")
    open_store(LabelRequest(run, policies=["dpo"]))
    open_store(LabelRequest(run))  # more policies of the same run
    made(run, "budget.prompts=100")
    with pytest.raises(PrefzooError, match="has no longer"):
        open_store(LabelRequest(run))
    assert load_plan(run).recipe.budget.prompts == 100


def test_the_result_of_an_ab_test_counts_the_first_answer_to_each_item(tmp_path: Path) -> None:
    run = made(tmp_path / "run", labels=("dpo",), seeds=1)
    checks = tmp_path / "gold.jsonl"
    checks.write_text(json.dumps({"prompt": "1 + 1?", "chosen": "2", "rejected": "3"}) + "\n")
    store, notes = open_store(LabelRequest(run, gold=checks, overlap=1))
    assert "1 gold questions." in notes
    for name in ("anna", "ben"):
        store.add_annotator(name)
        while (shown := store.next_item(name)) is not None:
            choice = {"anna": "second", "ben": "tie"}[name]
            value = {"choice": choice, "strength": None}
            store.record(Answer(f"{name} {shown.item.item_id}", shown.item.item_id, name, "ab", value, seconds=4))
    items = {item.item_id: item for item in store.items()}
    assert ab_shares(items, store.answers()) == {"dpo": [1.0] * (PROMPTS - 1)}
    told = said_so_far(store)
    assert told[0] == "anna: 12 answers, 4.0 s each (median), 0 of 1 gold questions right."
    assert told[2].startswith("A/B: dpo wins 100% of 11 against the start (95% ") and told[2].endswith("better.")
    lines = export_all(store, tmp_path / "out")
    assert "22 answers; data: {preferences:" in lines[0] and "2 to gold questions are left out" in lines[0]
    assert not any(word in (tmp_path / "out" / "ab.jsonl").read_text() for word in ('"start"', '"policy"'))


def test_every_wrong_option_is_told_at_once_before_anything_is_written(tmp_path: Path) -> None:
    wrong = "--task compar --next unifrm --overlap 2 --dimensions a,a --policies dpo"
    result = CliRunner().invoke(app, ["label", str(tmp_path / "none"), *wrong.split()])
    problems = str(result.exception)
    for words in ("neither such a folder", "Did you mean 'compare'?", "Did you mean 'uniform'?", "(got 2)",
                  "different names", "the source is a file"):  # fmt: skip
        assert words in problems
    run = made(tmp_path / "run")
    for request, words in {
        LabelRequest(run, rule="disagreement"): "for --task compare, rank, rate, not for ab",
        LabelRequest(run, policies=("dpp",)): "Did you mean 'dpo'?",
        LabelRequest(run, task="compare", policies=("dpo",)): "needs two policies or more",
        LabelRequest(run, task="rate", gold=run): "--gold: for --task compare and ab",
    }.items():
        with pytest.raises(PrefzooError) as raised:
            open_store(request)
        assert words in str(raised.value)
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text('{"prompt": "q", "responses": ["x", "y"]}\n')
    for request, words in {
        LabelRequest(pairs, task="ab"): "compares the policies of a run",
        LabelRequest(pairs, rule="uncertain"): "no reward scored these replies",
    }.items():
        with pytest.raises(PrefzooError, match=words):
            open_store(request)
    result = CliRunner().invoke(app, ["label", str(pairs), "--export", str(tmp_path / "out"), "--store", "none.sqlite"])
    assert "nobody gave feedback yet" in str(result.exception)


def test_without_the_extra_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "fastapi" else found(name))
    with pytest.raises(PrefzooError, match=r"needs the packages fastapi: pip install 'prefzoo\[people\]'"):
        list(serve(FeedbackStore(tmp_path / "x.sqlite"), None, [], "127.0.0.1", 0, None, False))


def test_beyond_loopback_somebody_must_be_named_and_gets_a_link_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uvicorn = pytest.importorskip("uvicorn", reason="uvicorn is not installed")
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: [each.close() for each in sockets])
    store = FeedbackStore(tmp_path / "x.sqlite")

    def told(
        *annotators: str, new_links: bool = False, host: str = "0.0.0.0", hostname: str | None = None
    ) -> list[str]:
        return list(serve(store, None, annotators, host, 0, hostname, new_links))

    with pytest.raises(PrefzooError, match="say who may"):
        told()
    first = told("anna")
    assert first[0].startswith("anna: http://") and "/#token=" in first[0] and len(first) == 2
    token = first[0].partition("#token=")[2]
    assert store.annotator_of(token) == "anna"
    assert told("anna")[0] == "anna: has a link already (--new-links makes another)"
    assert store.annotator_of(token) == "anna"
    renewed = told("anna", new_links=True, hostname="label.example.org")[0]
    assert renewed.startswith("anna: https://label.example.org/#token=") and store.annotator_of(token) is None
    assert told(host="127.0.0.1")[-1].startswith("http://127.0.0.1:")
    with label_server._listen("127.0.0.1", 0) as taken, pytest.raises(PrefzooError, match="Choose another --port"):
        list(serve(store, None, ["anna"], "127.0.0.1", taken.getsockname()[1], None, False))
