"""Prompts that belong together count as one, in every number; where each is alone nothing changes."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from prefzoo.cli import app
from prefzoo.commands.comparison import rebuild
from prefzoo.commands.power_analysis import analyze_power
from prefzoo.data.agreement import clustered_wilson, wilson
from prefzoo.data.formats import Row
from prefzoo.judges.judge_audit_measures import audit
from prefzoo.results import analysis, statistics
from prefzoo.results.caveats import group_notes
from prefzoo.results.length_adjustment import length_adjusted
from prefzoo.results.results_file import load_verified
from prefzoo.run.integrity import seal

FAMILIES = np.repeat(np.arange(20), 10)


def test_numbers_and_means_of_groups_by_hand() -> None:
    groups = statistics.number_groups(["b", None, "a", "b", None])
    assert groups is not None and groups.tolist() == [0, 1, 2, 0, 3]
    table = np.array([[1.0, 2.0, 3.0, 5.0, 6.0], [0.0, 0.0, 0.0, 4.0, 0.0]])
    assert statistics.group_means(table, groups).tolist() == [[3.0, 2.0, 3.0, 6.0], [2.0, 0.0, 0.0, 0.0]]
    assert statistics.number_groups([None, "a", None, "b"]) is None, "each prompt is alone"
    assert statistics.group_means(table, None) is table
    assert statistics.group_means(np.array([[0.5]]), groups).tolist() == [[0.5]], "a number for the whole"


def test_groups_of_slices_are_their_own() -> None:
    records = [{"slice": name, "group": group} for name, group in (("x", "a"), ("y", "a"), ("x", "b"), ("x", "b"))]
    groups = analysis.prompt_groups(records)
    assert {name: None if of is None else of.tolist() for name, of in groups.items()} == {
        "": [0, 0, 1, 1],
        "x": [0, 1, 1],
        "y": None,
    }
    assert analysis.prompt_groups([{"slice": None}, {"slice": None}]) == {"": None}, "older versions wrote no groups"


@pytest.mark.parametrize("size", [4, "unequal"])
def test_copies_of_prompts_change_no_number(size: int | str) -> None:
    """Each of 40 prompts is drawn several times, with the same replies: everything is as if it was drawn once."""
    rng = np.random.default_rng(0)
    once = {
        label: {name: rng.normal(lift, 1, (3, 40)) for name in ("gold", "length")}
        for label, lift in (("start", 0.0), ("mine", 0.3), ("other", 0.1))
    }
    once = {label: {**of, "finished": (of["gold"] > -1.5) * 1.0} for label, of in once.items()}
    copies = np.repeat(np.arange(40), size if isinstance(size, int) else rng.integers(1, 9, 40))
    copies = copies[rng.permutation(len(copies))]
    many = {label: {name: table[:, copies] for name, table in of.items()} for label, of in once.items()}
    groups = {analysis.ALL: statistics.number_groups([f"family {i}" for i in copies])}
    seen = list(dict.fromkeys(copies.tolist()))
    once = {label: {name: table[:, seen] for name, table in of.items()} for label, of in once.items()}

    def numbers(tables: dict, groups: analysis.PromptGroups) -> list:
        of_all = groups.get(analysis.ALL)
        dumped = [each.model_dump() for each in (*analysis.verdicts(tables, groups), *analysis.pairs(tables, groups))]
        dumped += [{k: v.model_dump() for k, v in analysis.ratings(tables, groups).items()}]
        dumped += [{f"{a} {b}": s.model_dump() for a, of in analysis.summaries(tables, groups).items() for b, s in of.items()}]  # fmt: skip  # noqa: E501
        found = statistics.interquartile_mean(tables["mine"]["gold"], of_all)
        adjusted = length_adjusted(tables["mine"], tables["start"], "gold", of_all)
        return [*_flat(dumped), found.mean, *_flat(vars(adjusted))]

    def _flat(value: object) -> list:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else None
        return [value] if inner is None else [leaf for each in inner for leaf in _flat(each)]

    plain, grouped = numbers(once, {}), numbers(many, groups)
    assert len(plain) == len(grouped)
    assert all(a == (b if isinstance(b, str) or b is None else pytest.approx(b, abs=1e-9)) for a, b in zip(plain, grouped, strict=True))  # fmt: skip  # noqa: E501
    assert numbers(once, {analysis.ALL: None}) == plain, "to the last digit where each prompt is alone"


@pytest.mark.parametrize("sizes", [[10] * 20, [5] * 40, [100, *[1] * 100]])
def test_families_of_prompts_do_not_make_verdicts_sure(sizes: list[int]) -> None:
    """2,000 pairs of equal policies whose replies to near-duplicates are alike."""
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(len(sizes)), sizes)
    called, naive, times = 0, 0, 600
    for _ in range(times):
        alike = rng.normal(0, 0.7, (3, len(sizes)))[:, groups] + rng.normal(0, 0.7, (1, len(sizes)))[:, groups]
        difference = alike + rng.normal(0, 1, (3, 200))
        naive += statistics.estimate(difference).p < 0.05
        called += statistics.estimate(statistics.group_means(difference, groups)).p < 0.05
    assert called / times <= 0.075, "5%, within simulation noise"
    assert naive / times > 0.12, "what prompts as such would say"


def test_the_mean_and_the_warning_of_few_groups() -> None:
    groups = {analysis.ALL: FAMILIES}
    table = {"gold": np.repeat([[1.0] + [0.0] * 19], 10, axis=1) + np.zeros((2, 1))}
    assert analysis.summaries({"start": table}, groups)["start"]["gold"].mean == pytest.approx(1 / 20)
    said = group_notes(groups)
    assert "The 200 test prompts are 20 groups" in said[0] and "the largest of 10" in said[0]
    assert said[1].startswith("Only 20 groups") and len(group_notes({analysis.ALL: np.arange(200) // 2})) == 1
    assert group_notes({analysis.ALL: None}) == group_notes({}) == []


def test_a_run_whose_prompts_have_groups(small_run, tmp_path) -> None:
    out = tmp_path / "run"
    shutil.copytree(small_run[1], out, symlinks=True)
    gold = {}
    for file in out.glob("trials/evaluate-*/replies.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        records = [{**record, "group": f"g{max(0, i - 11)}"} for i, record in enumerate(records)]
        file.write_text("".join(json.dumps(record) + "\n" for record in records))
        gold[str(file.relative_to(out))] = np.mean([*[np.mean([r["gold"] for r in records[:12]])], *[r["gold"] for r in records[12:]]])  # fmt: skip  # noqa: E501
        seal(file.parent)
    results = rebuild(out)
    assert results.groups == 5 and "16 test prompts in 5 groups" in (out / "report.md").read_text()
    for each in results.algorithms.values():
        for trial in each.seeds.values():
            assert trial.metrics["gold"] == pytest.approx(gold[trial.replies])
        assert each.summary["gold"].mean == pytest.approx(np.mean([t.metrics["gold"] for t in each.seeds.values()]))
    assert load_verified(out) is not None, "what results.json says is what the trials say"
    found = analyze_power(out, 0.5)
    assert found.pilot == statistics.Design(2, 5) and "5 groups of prompts" in found.sentences()[0]
    assert "Groups of test prompts" in str(found.tables()[0].title)
    assert "16 test prompts in" not in (small_run[1] / "report.md").read_text()


def test_where_nothing_was_scored_there_is_no_verdict_and_the_exit_code_is_1(small_run, tmp_path) -> None:
    out = tmp_path / "run"
    shutil.copytree(small_run[1], out, symlinks=True)
    for file in out.glob("trials/evaluate-*/replies.jsonl"):
        records = [json.loads(line) for line in file.read_text().splitlines()]
        kept = [{k: v for k, v in r.items() if not k.startswith(("gold", "proxy"))} for r in records]
        file.write_text("".join(json.dumps(record) + "\n" for record in kept))
        seal(file.parent)
    shown = CliRunner().invoke(app, ["report", str(out)])
    assert shown.exit_code == 1, shown.output
    assert "No verdict: no reply of a trained policy was scored" in " ".join(shown.output.split())
    assert not json.loads((out / "results.json").read_text())["verdicts"]
    assert "better" not in (out / "report.md").read_text().partition("##")[0]


def test_shares_of_a_judge_count_prompts_and_not_pairs() -> None:
    values = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    assert clustered_wilson(values, list(range(8))) == wilson(0.5, 8), "pairs of one prompt each, as ever"
    # Two clusters of four alike: u = 2, -2; variance 2 / 1 * 8 / 64 = 0.25, of 8 alone 2 / 7 / 8 = 0.0357: 8 / 7 pairs,
    # and Student's t of 1 degree of freedom in the place of 1.96
    effective = 8 / 7 * (1.959964 / 12.706205) ** 2
    assert clustered_wilson(values, [0] * 4 + [1] * 4) == pytest.approx(wilson(0.5, effective), abs=1e-6)
    assert clustered_wilson([1.0] * 8, [0] * 4 + [1] * 4) == pytest.approx(wilson(1.0, 2), abs=1e-9)

    def rows(prompts: int) -> list[Row]:
        return [Row(str(i), [{"role": "user", "content": f"q{i % prompts}"}], "good", "bad") for i in range(60)]

    from prefzoo.judges.build_judge import RandomJudge

    few, many = (audit(RandomJudge(0), rows(n), None) for n in (6, 60))
    assert few is not None and many is not None and few.agreement is not None and many.agreement is not None
    assert many.agreement.ci95 == wilson(many.agreement.share, 60)
    assert few.agreement.share == many.agreement.share and few.agreement.count == 60
