"""Results that an earlier version wrote are read, and their report is made again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prefzoo.report import report_files as report
from prefzoo.results.results_file import load
from prefzoo.results.results_schema import AlgorithmResult, Results, SeedResult, Verdict

OLD = Path(__file__).with_name("results_of_0.4.json")
"""Of a quickstart by version 0.4.0, shortened to two labels and two seeds."""


def without_later_fields(content: dict) -> dict:
    """Leave out all that a first version did not write: what has a default."""

    def required(block: dict, model: type) -> dict:
        fields = {field.alias or name: field for name, field in model.model_fields.items()}  # type: ignore[attr-defined]
        return {name: value for name, value in block.items() if fields[name].is_required() or name == "schema"}

    content = required(content, Results)
    content["verdicts"] = [required(verdict, Verdict) for verdict in content["verdicts"]]
    for label, algorithm in content["algorithms"].items():
        content["algorithms"][label] = required(algorithm, AlgorithmResult)
        content["algorithms"][label]["seeds"] = {s: required(t, SeedResult) for s, t in algorithm["seeds"].items()}
    return content


@pytest.mark.parametrize("first_version", [False, True])
def test_an_old_file_is_read_and_reported(tmp_path, first_version: bool) -> None:
    content = json.loads(OLD.read_text())
    content = without_later_fields(content) if first_version else content
    (tmp_path / "results.json").write_text(json.dumps(content))
    results = load(tmp_path)
    assert results.algorithms["dpo"].summary["gold"].mean == content["algorithms"]["dpo"]["summary"]["gold"]["mean"]
    for algorithm in results.algorithms.values():
        for trial in algorithm.seeds.values():
            replies = tmp_path / trial.replies
            replies.parent.mkdir(parents=True)
            replies.write_text(json.dumps({"prompt": [{"role": "user", "content": "Hi"}], "reply": "Hello", "gold": 1}))
    report.write(results, tmp_path)
    assert load(tmp_path) == results
    markdown = (tmp_path / "report.md").read_text()
    assert "Better than the start in gold reward: dpo" in markdown
    assert "| dpo | 0.73 ±0.14 | 1.40 | 0.67 | 1.19 | 17.62 | 0.32 | +1.00 [+0.84, +1.16] | better |" in markdown
    assert "<td" in (tmp_path / "report.html").read_text() and (tmp_path / "figures" / "score.png").is_file()
