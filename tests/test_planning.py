"""`prefzoo plan`: what a comparison will take, by hand and beside a real one."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from conftest import SMALL
from prefzoo.commands.cost_estimate import (
    estimate,
    extrapolate_linear,
    in_proportion,
    scaled,
    sentences,
    table,
    worth_a_second,
)
from prefzoo.commands.cost_probe import Probe, Size, StageCost, probe, sizes
from prefzoo.commands.tuning_estimate import TUNING_ROW, with_tuning
from prefzoo.recipe.check_recipe import load
from prefzoo.report.cost import estimated_cells
from prefzoo.results.cost_record import Estimate
from prefzoo.run.stage_graph import SECONDS_FILE, make_plan

WHOLE = Size(train=48, test=32, evaluated=16)
PREFZOO = str(Path(sys.executable).with_name("prefzoo"))


def test_a_line_through_two_sizes_tells_the_beginning_from_what_grows() -> None:
    assert extrapolate_linear([(64, 10.0), (256, 22.0)], 800) == pytest.approx(6 + 800 / 16)
    assert extrapolate_linear([(64, 3.0), (256, 3.0)], 800) == 3.0, "what does not grow"
    assert extrapolate_linear([(64, 3.2), (256, 3.0)], 800) == 3.2, "nor by chance"
    assert extrapolate_linear([(64, 1.0)], 128) == pytest.approx(2.0), "one size tells no beginning"
    assert extrapolate_linear([(64, 1.0), (256, 8.0)], 800) == pytest.approx(25.0), "it never begins below nothing"
    assert in_proportion([(16, 90.0), (32, 200.0)], 48) == pytest.approx(300.0)
    assert in_proportion([(16, 0.0), (32, 0.0)], 48) == 0.0


@pytest.mark.parametrize(
    ("prompts", "sets", "expected"),
    [
        (800, [], [(128, 128), (256, 256)]),
        (48, SMALL, [(16, 8), (32, 16)]),
        (60_000, ["generation.batch_size=16", "evaluation.prompts=1000"], [(64, 16), (128, 32)]),
        (10, [], [(5, 128), (10, 256)]),
        (1, [], [(1, 128), (1, 256)]),
    ],
)
def test_a_probe_has_whole_batches_where_the_budget_allows_them(prompts, sets, expected) -> None:
    recipe = load("quickstart", sets)
    whole = Size(prompts, 2000, min(recipe.evaluation.prompts, 2000))
    found = sizes(recipe, whole)
    assert [(each.train, each.evaluated) for each in found] == expected
    for each in found:
        assert each.evaluated <= each.test <= whole.test
        assert each.test >= 2000 * each.train / prompts, "the reward is tried on as large a share of the test pairs"


@pytest.fixture
def probed(tmp_path):
    """A plan whose data stage is done, and what two probes of it could have found."""
    plan = make_plan(load("quickstart", [*SMALL, "seeds=2"], ["dpo"]), tmp_path)
    plan.stages["data"].folder.mkdir(parents=True)

    def stage_cost(seconds: float, trained: int = 0, generated: int = 0, peak: int = 0, disk: int = 0) -> StageCost:
        charged = {"seconds": seconds - 1, "trained_tokens": trained, "generated_tokens": generated}
        return StageCost(seconds, {**charged, "peak_memory_bytes": peak}, disk)

    small = {
        ("start", None): stage_cost(2.0),
        ("reward", None): stage_cost(4.0),
        ("train", "dpo"): stage_cost(5.0, trained=110, peak=700, disk=1000),
        ("evaluate", "start"): stage_cost(1.5, generated=9),
        ("evaluate", "dpo"): stage_cost(1.5, generated=10, peak=900, disk=20),
    }
    large = {
        ("start", None): stage_cost(3.0),
        ("reward", None): stage_cost(5.0),
        ("train", "dpo"): stage_cost(9.0, trained=200, peak=800, disk=1000),
        ("evaluate", "start"): stage_cost(2.5, generated=44),
        ("evaluate", "dpo"): stage_cost(3.0, generated=40, peak=900, disk=80),
    }
    probes = [
        Probe(Size(16, 16, 4), small, {}, shared_bytes=100, seconds=20.0, starting=3.0),
        Probe(Size(32, 22, 16), large, {}, shared_bytes=200, seconds=30.0, starting=0.0),
    ]
    return plan, probes


def test_an_estimate_by_hand(probed) -> None:
    plan, probes = probed
    found = scaled(plan, WHOLE, probes, workers=1)
    dpo = found.labels["dpo"]
    assert dpo["trained_tokens"] == pytest.approx(300) and dpo["generated_tokens"] == pytest.approx(40)
    assert dpo["seconds"] == pytest.approx(12 + 2) and dpo["peak_memory_bytes"] == 900
    assert found.labels["start"]["generated_tokens"] == pytest.approx(44)
    # starting 3, start 4, reward 6, twice: training 13, measuring the start 2.5 and what was trained 3
    assert found.wall_seconds == pytest.approx(3 + 4 + 6 + 2 * (13 + 2.5 + 3))
    assert found.disk_bytes == pytest.approx(2 * 1000 + 2 * 80 + 2 * 300)
    assert found.left == {"dpo": 4, "start": 2, "start, made once": 1, "reward, made once": 1}
    assert found.probe["seconds"] == 50.0
    # two at a time: beside start + training + measuring twice runs the rest
    assert scaled(plan, WHOLE, probes, workers=2).wall_seconds == pytest.approx(3 + 4 + 13 + 6 + 3)


@pytest.mark.parametrize(("seeds", "train", "worth"), [(2, 48, False), (3, 48, True), (3, 47, False)])
def test_a_second_probe_must_not_take_longer_than_what_it_tells_of(probed, tmp_path, seeds, train, worth) -> None:
    """At least start 2, reward 4 and 8 s a seed; the first probe took 14 s after its start of 3."""
    _, (small, large) = probed
    plan = make_plan(load("quickstart", [*SMALL, f"seeds={seeds}"], ["dpo"]), tmp_path)
    small = replace(small, seconds=17.0)
    assert worth_a_second(plan, Size(train, 32, 16), small, large.size, workers=1) is worth


def test_the_trials_of_tuning_and_the_settings_as_written_beside_what_they_find_count(probed) -> None:
    plan, probes = probed
    sets = ["tuning.trials=2", "tuning.budget.prompts=24", "tuning.prompts=8"]
    tuning = make_plan(load("quickstart", [*SMALL, "seeds=2", *sets], ["dpo"]), plan.out)
    manifest = {"splits": {"train": {"prompts": 48}, "validation": {"prompts": 20}}}
    (plan.stages["data"].folder / "manifest.json").write_text(json.dumps(manifest))
    found = scaled(with_tuning(tuning, train=48, validation=20), WHOLE, probes, workers=1)
    before = scaled(plan, WHOLE, probes, workers=1)
    # two trials: training on 24 prompts 7, measuring 8 replies 2; and two seeds as written: 13 + 3
    assert found.wall_seconds == pytest.approx(before.wall_seconds + 2 * (7 + 2) + 2 * (13 + 3))
    assert found.disk_bytes == pytest.approx(before.disk_bytes + 2 * 40 + 2 * (1000 + 80))
    assert found.shared["tuning dpo, made once"]["trained_tokens"] == pytest.approx(2 * 150)
    assert found.left == {
        "dpo": 8,
        "start": 2,
        "start, made once": 1,
        "reward, made once": 1,
        TUNING_ROW.format("dpo"): 4,
    }


def test_one_probe_by_hand(probed) -> None:
    """What came before the first step does not grow: training 2 s of 5 s at 16 prompts, so 2 + 3 * 3 at 48."""
    plan, (small, _) = probed
    costs = {which: replace(cost, begun={"train": 2.0}.get(which[0], 0.5)) for which, cost in small.costs.items()}
    found = scaled(plan, WHOLE, [replace(small, costs=costs)], workers=1)
    evaluation = 0.5 + 1.0 * 4
    assert found.wall_seconds == pytest.approx(
        3 + (0.5 + 1.5 * 3) + (0.5 + 3.5 * 3) + 2 * (2 + 3 * 3 + evaluation + evaluation)
    )
    assert found.labels["dpo"]["trained_tokens"] == pytest.approx(330)
    # 2 policies of 1,000, replies to 16 prompts in place of 4, and what trials share at 48 in place of 16
    assert found.disk_bytes == pytest.approx(2 * 1000 + 2 * 20 * 4 + 2 * 300)
    assert "a second probe would have taken longer" in sentences(found)[-1]


def test_a_probe_counts_the_start_of_each_process(probed, tmp_path, monkeypatch) -> None:
    """A stage takes what its process takes from its start on; what it says of itself begins later."""
    from rich.console import Console

    from prefzoo.run.executor import Outcome

    class Runner:
        def __init__(self, plan, job, workers, watcher) -> None:
            self.plan, self.watcher = plan, watcher

        def run(self):
            for stage in self.plan.stages.values():
                self.watcher.started(stage)
                self.watcher.progressed(stage, "step", 1, 2)
                stage.folder.mkdir(parents=True, exist_ok=True)
                (stage.folder / "ledger.json").write_text('{"seconds": 1.0}')
                (stage.folder / SECONDS_FILE).write_text("1.5")
            return {name: Outcome("ok", seconds=15.0) for name in self.plan.stages}

    monkeypatch.setattr("prefzoo.commands.cost_probe.Runner", Runner)
    monkeypatch.setattr("prefzoo.commands.cost_probe._copy_data", lambda plan, small, size: None)
    plan, _ = probed
    found = probe(plan, Size(16, 16, 4), ["dpo"], 1, tmp_path / "probe", Console(quiet=True))
    assert {cost.seconds for cost in found.costs.values()} == {15.0}
    assert all(0 < cost.begun < 5 for cost in found.costs.values())


def test_what_is_done_counts_as_nothing(probed) -> None:
    plan, probes = probed
    before = scaled(plan, WHOLE, probes, workers=1)
    for name in ("train dpo seed 0", "start", "reward"):
        plan.stages[name].folder.mkdir(parents=True)
    found = scaled(plan, WHOLE, probes, workers=1)
    assert before.wall_seconds - found.wall_seconds == pytest.approx(13 + 4 + 6)
    assert found.left == {"dpo": 3, "start": 2} and found.labels == before.labels
    for stage in plan.stages.values():
        stage.folder.mkdir(parents=True, exist_ok=True)
    assert scaled(plan, WHOLE, probes, workers=1).wall_seconds == 0
    assert sentences(Estimate({}, workers=4)) == ["All of it is done already."]


def test_what_failed_in_either_probe_is_not_guessed(probed) -> None:
    plan, (small, large) = probed
    rest = {which: cost for which, cost in large.costs.items() if which[0] != "train"}
    broken = replace(large, costs=rest, failed={("train", "dpo"): "out of memory"})
    found = scaled(plan, WHOLE, [small, broken], workers=1)
    assert found.failed == {"train dpo": "out of memory"}
    assert set(found.labels) == {"start"} and found.wall_seconds == pytest.approx(3 + 4 + 6 + 2 * (2.5 + 3))


def test_the_table_and_the_report_show_it(probed, tmp_path) -> None:
    plan, probes = probed
    found = scaled(plan, WHOLE, probes, workers=1)
    shown = table(found)
    assert [list(column.cells)[1] for column in shown.columns][-2:] == ["300", "4 stages"]
    assert "1:00" in sentences(replace(found, wall_seconds=60.2))[0]
    ledger = {**dict.fromkeys(found.labels["dpo"], 0.0), "trained_tokens": 330.0, "seconds": 15.0}
    trials = {
        str(seed): SimpleNamespace(ledger={**ledger, "seconds": seconds}, training={})
        for seed, seconds in enumerate((15.0, 17.0))
    }
    recipe = plan.recipe.model_dump(mode="json")
    results = SimpleNamespace(recipe=recipe, algorithms={"dpo": SimpleNamespace(seeds=trials)})
    assert estimated_cells(results, tmp_path) is None, "nothing was estimated"
    found.save(tmp_path)
    headings, [row] = estimated_cells(results, tmp_path)
    cells = dict(zip(headings, row, strict=False))
    assert cells["seconds: estimated"] == "14.0" and row[headings.index("seconds: estimated") + 1] == "16.0"
    assert cells["trained tokens: estimated"] == "300" and row[headings.index("trained tokens: estimated") + 1] == "330"
    fewer = {**recipe, "seeds": [0], "algorithms": {"dpo": recipe["algorithms"]["dpo"], "sft": {}}}
    assert estimated_cells(SimpleNamespace(recipe=fewer, algorithms=results.algorithms), tmp_path)
    other = {**recipe, "algorithms": {"dpo": {"beta": 9}}}
    assert estimated_cells(SimpleNamespace(recipe=other, algorithms=results.algorithms), tmp_path) is None
    replace(found, recipe={k: v for k, v in found.recipe.items() if k != "tuning"}).save(tmp_path)
    assert estimated_cells(results, tmp_path), "an estimate of an older version, whose recipes had no such key"
    longer = {**recipe, "budget": {**recipe["budget"], "epochs": 2}}
    assert estimated_cells(SimpleNamespace(recipe=longer, algorithms=results.algorithms), tmp_path) is None


def test_it_comes_near_a_real_run(small_run, tmp_path) -> None:
    results, _ = small_run
    found = estimate("quickstart", ["dpo", "rejection_sampling"], seeds=2, sets=SMALL, out=tmp_path)
    assert found.failed == {} and set(found.labels) == {"start", "dpo", "rejection_sampling"}
    assert found.probe["seconds"] < found.wall_seconds
    for label in found.labels:
        trials = results.algorithms[label].seeds.values()
        # Of a label that samples 16 replies a seed, means of two times 16 lengths, which differ by a tenth each.
        for name, factor in (("trained_tokens", 1.15), ("generated_tokens", 1.3)):
            actual = sum(trial.ledger[name] for trial in trials) / len(trials)
            assert actual / factor <= found.labels[label][name] <= actual * factor, (label, name)
    # Seconds of all labels together: one label's may be a tenth of a second, which a busy machine makes four.
    measured = sum(results.algorithms[label].seeds["0"].ledger["seconds"] for label in found.labels)
    assert measured / 4 <= sum(costs["seconds"] for costs in found.labels.values()) <= measured * 4
    assert found.shared["start, made once"]["trained_tokens"] == pytest.approx(
        results.shared["start"]["trained_tokens"], rel=0.15
    )
    assert Estimate.load(tmp_path) == found and not (tmp_path / "probe").exists()
    again = make_plan(load("quickstart", [*SMALL, "seeds=2"]), tmp_path)
    assert [name for name, stage in again.stages.items() if stage.done] == ["data"], "nothing but the data was run"
    assert estimated_cells(results, tmp_path) is not None


def test_a_mistake_that_only_training_finds_is_told_before_anything_is_trained_for_long(tmp_path) -> None:
    plugin = tmp_path / "mine.py"
    plugin.write_text(
        "from dataclasses import dataclass\nimport prefzoo\n\n\n"
        "@prefzoo.register('mine')\n@dataclass(frozen=True)\nclass Mine(prefzoo.Algorithm):\n"
        "    def train(self, bench):\n        raise RuntimeError('no such layer')\n"
    )
    quick = [*SMALL, "start=none", "reward.type=random"]
    sets = [part for each in quick for part in ("--set", each)]
    command = [PREFZOO, "plan", "quickstart", "--algorithms", "mine", "--plugin", str(plugin), *sets]
    done = subprocess.run([*command, "--out", str(tmp_path / "out")], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "train mine FAILED in the probe: RuntimeError: no such layer" in done.stdout
    [log] = (tmp_path / "out" / "probe").rglob("train-mine-*.log")
    assert str(log) in done.stdout.replace("\n", ""), "the log that the message names is still there"
