"""The whole circle, from SFT over labels, a reward, PPO and serving to the next round, as its script goes it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from prefzoo.feedback.store import FeedbackStore
from test_learning import SEED

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "replications" / "the_whole_circle.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("the_whole_circle", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.people
@pytest.mark.timeout(3600)
def test_the_circle_closes_and_every_answer_is_learned_from(script, tmp_path: Path, capfd) -> None:
    circle = script.Circle(tmp_path, prompts=80, rounds=2, per_round=10, users=40, seeds=1)
    first, second = circle.run()
    said = capfd.readouterr()
    told = " ".join(said.err.split())  # lines are wrapped
    assert told.count("PAUSED: people seed 0 round") == 2 and "round 2 waits for people: 0 of 10" in told
    (trial,) = first.algorithms["people"].seeds.values()
    rounds = trial.details["judge"]["rounds"]
    assert [r["asked"] for r in rounds] == [10, 10] and [m.name for m in trial.milestones] == ["round 1"]
    labels = FeedbackStore(tmp_path / "labels.sqlite").answers()
    assert len({answer.item_id for answer in labels}) == 20 and sum(r["answers"] for r in rounds) == len(labels)
    feedback = FeedbackStore(tmp_path / "feedback.sqlite").answers()
    assert {answer.kind for answer in feedback} == {"compare", "thumb"}
    sources = {source["source"]: source for source in second.manifest["sources"]}
    assert sources["feedback.sqlite"]["read"] == len(feedback)
    assert second.algorithms["dpo"].status == "ok" and sources["feedback.sqlite"]["rows"]["train"] > 0
    assert sources["demonstrations.jsonl"]["rows"]["test"] > 0
    tested = [source["rows"]["test"] for source in sources.values()]
    assert sum(tested) == second.manifest["splits"]["test"]["rows"]
    assert "Rounds with people" in (tmp_path / "first" / "report.html").read_text()
    assert str(tmp_path / "feedback.sqlite") in json.loads((tmp_path / "first" / "feedback_files.json").read_text())


@pytest.mark.learning
@pytest.mark.timeout(7200)
def test_what_people_say_makes_it_better_and_what_a_coin_says_does_not(script, tmp_path: Path) -> None:
    found = {
        coin: [script.of_gold(results) for results in script.Circle(tmp_path / str(coin), seed=SEED, coin=coin).run()]
        for coin in (False, True)
    }
    assert [verdict.verdict for verdict in found[False]] == ["better", "better"]
    assert all(verdict.verdict != "better" for verdict in found[True])
