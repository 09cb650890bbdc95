"""A whole comparison, small: its results, its resumption, its failures."""

from __future__ import annotations

import json
import runpy
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest

import prefzoo
from conftest import SMALL
from prefzoo.commands.comparison import rebuild
from prefzoo.errors import PrefzooError
from prefzoo.interface import Algorithm, Bench, Policy
from prefzoo.recipe import check_recipe as recipes
from prefzoo.results.results_file import load
from prefzoo.results.results_schema import Results
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import load_plan, make_plan

SCHEMA = Path(__file__).parents[1] / "docs" / "results.schema.json"


def metrics(results: Results) -> dict:
    return {
        (label, seed): trial.metrics for label, each in results.algorithms.items() for seed, trial in each.seeds.items()
    }


def test_results_hold_what_the_contract_promises(small_run) -> None:
    _, out = small_run
    content = json.loads((out / "results.json").read_text())
    assert content["schema"] == 1
    assert {"prefzoo", "python", "torch", "trl", "wandb"} <= content["versions"].keys()
    assert set(content["algorithms"]) == {
        "start", "sft", "dpo", "rejection_sampling", "random_choice", "best_of_n",
    }  # fmt: skip
    for label, each in content["algorithms"].items():
        assert (each["status"], each["error"]) == ("ok", None), label
        assert set(each["seeds"]) == {"0", "1"}
        for trial in each["seeds"].values():
            assert {"gold", "proxy", "kl", "length", "win_rate", "distinct_1", "distinct_2"} <= set(trial["metrics"])
            assert {"generated_tokens", "trained_tokens", "reward_calls", "judge_calls", "flops", "seconds"} <= set(
                trial["ledger"]
            )
            assert trial["ledger"]["peak_memory_bytes"] > 0
            assert (out / trial["replies"]).is_file()
        low, high = each["summary"]["gold"]["ci95"]
        assert low <= each["summary"]["gold"]["mean"] <= high
    low, high = content["reward"]["ci95"]
    assert 0 <= low <= content["reward"]["test_accuracy"] <= high <= 1
    assert -1 <= content["reward"]["gold_correlation"] <= 1
    assert len(content["manifest"]["sha256"]) == 64
    assert content["manifest"]["splits"]["train"]["prompts"] == 48
    against_start = {v["a"] for v in content["verdicts"] if v["b"] == "start" and v["metric"] == "gold"}
    assert against_start == {"sft", "dpo", "rejection_sampling", "random_choice", "best_of_n"}
    (verdict,) = (v for v in content["verdicts"] if (v["metric"], v["a"], v["b"]) == ("gold", "sft", "start"))
    over_start = content["algorithms"]["sft"]["over_start"]
    assert over_start["gold"] == {"mean": verdict["difference"], "ci95": verdict["ci95"]}
    slices = content["slices"]
    assert sum(slices.values()) == 16 and {f"gold@{name}" for name in slices} <= over_start.keys()


def test_the_published_schema_is_that_of_the_code() -> None:
    assert json.loads(SCHEMA.read_text()) == Results.model_json_schema(by_alias=True)


def test_processor_seconds_are_shown_by_kind_of_stage(small_run) -> None:
    _, out = small_run
    program = runpy.run_path(str(Path(__file__).parents[1] / "benchmarks" / "speed" / "processor_time.py"))
    used = {stage.name: stage.processor_seconds for stage in load_plan(out).stages.values()}
    assert all(seconds > 0 for name, seconds in used.items() if not name.startswith("train best_of_n"))
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in program["table"]([out, out])]
    shown = {kind: (int(count), float(seconds), ratio) for kind, count, seconds, _, ratio in lines[2:]}
    assert shown["train dpo"][:2] == (2, pytest.approx(used["train dpo seed 0"] + used["train dpo seed 1"], abs=0.06))
    assert shown["all"] == (len(used), pytest.approx(sum(used.values()), abs=0.06), "1.00")


def test_the_start_is_its_own_measure(small_run) -> None:
    results, _ = small_run
    start = results.algorithms["start"].summary
    assert start["kl"].mean == pytest.approx(0, abs=1e-5)
    assert start["win_rate"].mean == 0.5


def test_every_policy_answers_the_same_prompts(small_run) -> None:
    results, out = small_run
    asked = {
        json.dumps([record["prompt"] for record in read_records((out / trial.replies).parent)])
        for each in results.algorithms.values()
        for trial in each.seeds.values()
    }
    assert len(asked) == 1


def test_ledgers_tell_what_each_used(small_run) -> None:
    results, _ = small_run
    ledger = {label: each.seeds["0"].ledger for label, each in results.algorithms.items()}
    assert ledger["start"]["trained_tokens"] == 0 == ledger["best_of_n"]["trained_tokens"]
    assert ledger["best_of_n"]["reward_calls"] == 4 * 16
    assert ledger["best_of_n"]["inference_tokens"] > 2.5 * ledger["start"]["inference_tokens"]
    assert ledger["rejection_sampling"]["reward_calls"] == 4 * 48
    assert ledger["dpo"]["generated_tokens"] == ledger["dpo"]["inference_tokens"]
    assert ledger["dpo"]["trained_tokens"] > ledger["sft"]["trained_tokens"]


def test_matched_controls_saw_the_same_samples(small_run) -> None:
    results, _ = small_run
    best, random = (results.algorithms[n].seeds["0"].details["rejection_sampling"][0] for n in ("rejection_sampling", "random_choice"))  # fmt: skip  # noqa: E501
    assert best["sampled"] == random["sampled"] and best["reward_sampled"] == random["reward_sampled"]
    assert best["reward_kept"] > random["reward_kept"]


def test_the_same_seed_gives_the_same_metrics_again(small_run, tmp_path) -> None:
    results, _ = small_run
    again = prefzoo.compare("quickstart", algorithms=["dpo", "best_of_n"], seeds=1, sets=SMALL, out=tmp_path, workers=2)
    first = metrics(results)
    for trial, values in metrics(again).items():
        assert values == first[trial]


def test_a_second_call_does_nothing_twice_and_a_changed_setting_only_what_it_concerns(small_run) -> None:
    results, out = small_run
    times = {path: path.stat().st_mtime_ns for path in out.glob("*/*") if path.is_dir()}
    again = prefzoo.compare("quickstart", seeds=2, sets=SMALL, out=out)
    assert again.model_dump() == results.model_dump()
    changed = prefzoo.compare("quickstart", seeds=1, sets=[*SMALL, "algorithms.dpo.beta=0.25"], out=out)
    new = {path for path in out.glob("*/*") if path.is_dir()} - set(times)
    assert sorted(path.name.rpartition("-")[0] for path in new) == ["evaluate-dpo-seed-0", "train-dpo-seed-0"]
    assert all(path.stat().st_mtime_ns == at for path, at in times.items())
    assert metrics(changed)["dpo", "0"] != metrics(results)["dpo", "0"]
    prefzoo.compare("quickstart", seeds=2, sets=SMALL, out=out)


def test_the_report_is_rebuilt_from_what_is_on_disk(small_run, tmp_path) -> None:
    results, out = small_run
    moved = tmp_path / "elsewhere"
    shutil.copytree(out, moved)
    for name in ("results.json", "report.html", "results.csv"):
        (moved / name).unlink()
    assert rebuild(moved).model_dump() == results.model_dump() == load(moved).model_dump()
    page = (moved / "report.html").read_text()
    assert "<svg" in page and "rejection_sampling" in page
    assert (moved / "figures" / "frontier.png").is_file() and (moved / "figures" / "curve_loss.svg").is_file()
    assert "http://" not in page and "https://" not in page
    evaluated = next((moved / "trials").glob("evaluate-dpo-seed-1-*[!g]"))
    shutil.rmtree(evaluated)
    partial = rebuild(moved)
    assert partial.algorithms["dpo"].status == "skipped" and "seed 1" in (partial.algorithms["dpo"].error or "")
    assert partial.algorithms["sft"].status == "ok"
    with pytest.raises(PrefzooError, match="no prefzoo run"):
        rebuild(tmp_path)


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("data.shuffle_labels=true", {"data", "start"}),
        ("seeds=[1, 0]", {"data"}),
        ("gold=none", {"data", "start", "train sft seed 0"}),
        ("model={path: lab, dtype: bfloat16}", set()),
        ("budget.prompts=49", set()),
        ("evaluation.prompts=17", set()),
        ("training.learning_rate=1e-5", {"data"}),
        ("generation.temperature=0.9", {"data", "start", "reward"}),
        ("algorithms.sft.seed_offset=1", {"data", "start", "reward", "evaluate start seed 0"}),
    ],
)
def test_what_a_result_depends_on_is_in_its_key(tmp_path, change: str, kept: set[str]) -> None:
    def folders(*sets: str) -> dict[str, Path]:
        chosen = recipes.load("quickstart", [*SMALL, "seeds=[0, 1]", *sets], ["sft"])
        return {name: stage.folder for name, stage in make_plan(chosen, tmp_path).stages.items()}

    before, after = folders(), folders(change)
    watched = ("data", "start", "reward", "train sft seed 0", "evaluate start seed 0", "evaluate sft seed 0")
    assert {name for name in watched if before.get(name) == after.get(name)} == kept


@dataclass(frozen=True)
class Breaks(Algorithm):
    """Fails with one seed, dies with another."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompts"})

    def train(self, bench: Bench) -> Policy:
        if bench.seed == 1:
            import os
            import signal

            os.kill(os.getpid(), signal.SIGKILL)
        raise ValueError("broken on purpose")


@dataclass(frozen=True)
class Touches(Algorithm):
    """Changes the start that all share."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompts"})

    def train(self, bench: Bench) -> Policy:
        from prefzoo.models.language_model import LanguageModelPolicy

        policy = LanguageModelPolicy.from_start(bench.start)
        with next(Path(bench.start).glob("*.safetensors")).open("ab") as file:
            file.write(b"x")
        policy.save(bench.out / "policy")
        return policy


@pytest.fixture
def broken():
    from prefzoo import registry

    prefzoo.register("breaks")(Breaks)
    prefzoo.register("touches")(Touches)
    yield
    registry._registered.clear()


def test_one_failure_leaves_the_others_alive_and_is_told(small_run, tmp_path, broken) -> None:
    found = prefzoo.compare("quickstart", ["sft", "breaks"], seeds=2, sets=SMALL, out=tmp_path / "run", workers=2)
    assert found.algorithms["sft"].status == "ok" == found.algorithms["start"].status
    assert found.algorithms["breaks"].status == "failed"
    assert "broken on purpose" in (found.algorithms["breaks"].error or "")
    assert [v.a for v in found.verdicts if v.b == "start" and v.metric == "gold"] == ["sft"]
    assert "breaks" in (tmp_path / "run" / "report.md").read_text()
    log = next((tmp_path / "run" / "trials").glob("train-breaks-seed-0-*.log")).read_text()
    assert "broken on purpose" in log and "Traceback" in log

    assert "broken on purpose" in (rebuild(tmp_path / "run").algorithms["breaks"].error or "")


def test_a_start_that_was_changed_ends_what_builds_on_it(tmp_path, broken) -> None:
    found = prefzoo.compare("quickstart", ["touches"], seeds=2, sets=SMALL, out=tmp_path, workers=1)
    assert found.algorithms["touches"].status == "failed" == found.algorithms["start"].status
    assert "no longer the one that was made" in (found.algorithms["touches"].error or "")


@pytest.mark.faults
def test_a_killed_process_is_told_as_such(tmp_path, broken) -> None:
    found = prefzoo.compare("quickstart", ["breaks"], seeds=[1], sets=SMALL, out=tmp_path, workers=1)
    assert "SIGKILL" in (found.algorithms["breaks"].error or "")


def test_a_failed_start_ends_the_comparison_with_its_reason(tmp_path) -> None:
    with pytest.raises(PrefzooError, match="diverged"):
        prefzoo.compare("quickstart", ["sft"], seeds=1, sets=[*SMALL, "training.learning_rate=1e30",
                        "training.max_grad_norm=1e30", "budget.epochs=4"], out=tmp_path)  # fmt: skip


def test_a_folder_in_use_is_refused(tmp_path) -> None:
    from filelock import FileLock

    with FileLock(tmp_path / ".lock"), pytest.raises(PrefzooError, match="in use"):
        prefzoo.compare("quickstart", ["sft"], out=tmp_path)


def test_killed_in_the_middle_it_goes_on_where_it_stopped(small_run, tmp_path) -> None:
    results, _ = small_run
    code = f"import prefzoo; prefzoo.compare('quickstart', ['sft'], seeds=2, sets={SMALL!r}, out={str(tmp_path)!r})"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    assert any("start:" in line for line in process.stderr)
    process.kill()
    assert process.wait() < 0
    start = load_plan(tmp_path).stages["start"].folder
    made = start.stat().st_mtime_ns
    found = prefzoo.compare("quickstart", ["sft"], seeds=2, sets=SMALL, out=tmp_path)
    assert start.stat().st_mtime_ns == made
    assert metrics(found)["sft", "1"] == metrics(results)["sft", "1"]


def test_a_reward_function_and_a_gold_function_of_ones_own(tmp_path) -> None:
    file = tmp_path / "scores.py"
    file.write_text(
        "def length(prompts, completions):\n"
        "    assert prompts[0][-1]['role'] == 'user'\n"
        "    return [len(c) for c in completions]\n"
    )
    recipe = {
        "reward": {"type": "function", "path": f"{file}:length"},
        "gold": {"path": f"{file}:length"},
        "budget": {"prompts": 48},
        "evaluation": {"prompts": 16},
        "generation": {"max_new_tokens": 24},
        "start": "none",
        "algorithms": {"best": {"algorithm": "best_of_n", "n": 8}},
        "seeds": 1,
    }
    found = prefzoo.compare(recipe, out=tmp_path / "run")
    best, start = (found.algorithms[n].summary for n in ("best", "start"))
    assert best["gold"].mean == best["proxy"].mean > start["gold"].mean
    assert best["win_rate"].mean > 0.5


def test_full_fine_tuning_goes_the_whole_way(tmp_path) -> None:
    sets = [*SMALL, "adapter.type=full", "training.learning_rate=1e-4"]
    found = prefzoo.compare("quickstart", ["dpo", "rejection_sampling"], seeds=1, sets=sets, out=tmp_path)
    assert {each.status for each in found.algorithms.values()} == {"ok"}
    assert found.algorithms["dpo"].summary["kl"].mean > 0


def test_stages_see_the_environment_as_it_is_now(tmp_path, monkeypatch) -> None:
    """The server that they are forked from was started before."""
    rule = tmp_path / "rule.py"
    rule.write_text(
        "import os\ndef score(prompts, completions):\n    return [float(os.environ['LATE'])] * len(completions)\n"
    )
    recipe = {
        "extends": "base", "start": "none", "budget": {"prompts": 16}, "evaluation": {"prompts": 4},
        "reward": {"type": "random"}, "gold": {"path": f"{rule}:score"}, "tracking": {"wandb": {"mode": "disabled"}},
        "algorithms": {"best_of_n": {"n": 1}},
    }  # fmt: skip
    for late in ("1", "2"):
        monkeypatch.setenv("LATE", late)
        found = prefzoo.compare(recipe, seeds=1, out=tmp_path / late)
        assert found.algorithms["start"].summary["gold"].mean == float(late)
