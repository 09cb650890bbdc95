"""What users say on the server makes the policy better that it serves, and their answers turned around do not."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from prefzoo.feedback.store import FeedbackStore
from prefzoo.lab import MODEL_DIR

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "replications" / "learning_from_users.py"
TURNED = {"a": "b", "b": "a"}


@pytest.mark.learning
def test_dpo_learns_from_what_users_said_on_the_server(tmp_path) -> None:
    spec = importlib.util.spec_from_file_location("learning_from_users", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    told = script.users_of(MODEL_DIR, MODEL_DIR.name, 900, 7, tmp_path / "feedback.sqlite")
    store = FeedbackStore(tmp_path / "feedback.sqlite")
    assert store.export(tmp_path / "compare.jsonl", "compare")["written"] == told > 800
    lines = [json.loads(line) for line in (tmp_path / "compare.jsonl").read_text("utf-8").splitlines()]
    turned = tmp_path / "turned.jsonl"
    turned.write_text("".join(json.dumps({**a, "preference": TURNED[a["preference"]]}) + "\n" for a in lines), "utf-8")
    verdicts = {}
    for path in (tmp_path / "compare.jsonl", turned):
        results = script.learned(MODEL_DIR, path, 2, tmp_path / path.stem)
        verdicts[path.stem] = next(v for v in results.verdicts if (v.metric, v.a, v.b) == ("gold", "dpo", "start"))
    assert verdicts["compare"].verdict == "better", verdicts
    assert verdicts["turned"].difference < 0, verdicts
