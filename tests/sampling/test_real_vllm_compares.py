"""Whole comparisons that sample by a real vLLM: they find what they find by transformers, and survive its end."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from scipy.stats import ttest_rel
from tests.sampling.test_real_vllm import PYTHON
from tests.test_distributed import launched

from conftest import SMALL
from prefzoo import compare
from prefzoo.results.results_schema import Results

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]
VLLM = ["generation.engine=vllm", f"generation.vllm.python={PYTHON}"]


def engines_differ(label: str, metric: str, *runs: tuple[Results, Path]) -> float:
    """The p of a paired test over test prompts of no difference between two runs, a policy's seeds averaged."""
    seeds = [results.algorithms[label].seeds.values() for results, _ in runs]
    rows = [
        [[json.loads(line)[metric] for line in (out / seed.replies).open()] for seed in trials]
        for trials, (_, out) in zip(seeds, runs, strict=True)
    ]
    return float(ttest_rel(*([sum(row) for row in zip(*each, strict=True)] for each in rows)).pvalue)


def test_a_comparison_gives_verdicts_like_those_of_transformers(tmp_path) -> None:
    """The first recipe as it is, three seeds, but for labels that add minutes and no other way to sample."""
    labels = ["sft", "dpo", "ppo", "best_of_n"]
    ours = compare("quickstart", labels, sets=["generation.engine=transformers"], out=tmp_path / "transformers")
    theirs = compare("quickstart", labels, sets=VLLM, out=tmp_path / "vllm")
    words: dict[tuple[str, str, str], list[str]] = {}
    for results in (ours, theirs):
        for verdict in results.verdicts:
            words.setdefault((verdict.metric, verdict.a, verdict.b), []).append(verdict.verdict)
    print(words)
    assert not [pair for pair, said in words.items() if {"better", "worse"} == set(said)]
    for label in ("ppo", "best_of_n"):
        assert words[ours.primary, label, "start"] == ["better", "better"]
    for label in ("start", "sft", "dpo"):  # which sample nothing while they are trained, so that they are the same
        for metric in ("gold", "length", *(["kl"] if label != "start" else [])):
            found = engines_differ(label, metric, (ours, tmp_path / "transformers"), (theirs, tmp_path / "vllm"))
            print(f"{label}, {metric}: p {found:.3f}")
            assert found > 1e-3, "what they say in evaluation differs by chance alone"
    for label, result in theirs.algorithms.items():
        assert result.status == "ok" and not result.departures
        for trial in result.seeds.values():
            assert {way["generation.engine"] for way in trial.details["sampling"]} == {"vllm"}, label
    assert not list((tmp_path / "vllm" / "servers").glob("*.json")), "no server is left"


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_processes_that_divide_the_weights_sample_by_vllm_from_what_they_gathered(adapter, tmp_path) -> None:
    sets = [*SMALL, *VLLM, "budget.prompts=16", "training.batch_size=8", f"adapter={{type: {adapter}}}"]
    sets += ["algorithms={ppo: {trainer: {learning_rate: 0.001}}}"]
    words = [word for each in sets for word in ("--set", each)]
    program = str(Path(sys.executable).with_name("prefzoo"))
    launched([program, "compare", "quickstart", "--seeds", "1", "--out", str(tmp_path / "run"), *words], 2, "fsdp")
    ppo = json.loads((tmp_path / "run" / "results.json").read_text())["algorithms"]["ppo"]
    details = ppo["seeds"]["0"]["details"]
    ratios = details["importance_sampling"]
    assert details["model"]["used"]["weights"] == "divided among them (FSDP)" and ratios["count"] > 100
    assert ratios["mean_ratio"] == pytest.approx(1, abs=1e-4) and ratios["largest_difference"] < 1e-3


def test_a_server_that_is_killed_costs_its_stages_alone_and_the_same_command_goes_on(tmp_path) -> None:
    out = tmp_path / "killed"
    sets = ["budget.prompts=64", "evaluation.prompts=32", *VLLM, "algorithms={dpo: {}, rejection_sampling: {n: 8}}"]
    killed = threading.Event()

    def kill() -> None:
        while not killed.is_set():
            for record in (out / "servers").glob("*.json"):
                if "Loaded new LoRA adapter" in record.with_suffix(".log").read_text():  # and samples from it
                    watch = psutil.Process(json.loads(record.read_text())["pid"])
                    for process in watch.children(recursive=True):
                        process.kill()
                    killed.set()
            time.sleep(0.05)

    threading.Thread(target=kill, daemon=True).start()
    results = compare("quickstart", seeds=1, sets=sets, out=out, workers=1)
    assert killed.is_set()
    lost = results.algorithms["rejection_sampling"]
    assert lost.status == "failed" and "vLLM" in lost.error and "the same command goes on" in lost.error
    assert results.algorithms["dpo"].status == "ok"
    done = {folder: folder.stat().st_mtime_ns for folder in (out / "trials").iterdir() if folder.is_dir()}
    results = compare("quickstart", seeds=1, sets=sets, out=out, workers=1)
    assert {result.status for result in results.algorithms.values()} == {"ok"}
    assert all(folder.stat().st_mtime_ns == when for folder, when in done.items() if folder.suffix != ".partial")


def test_full_fine_tuning_is_sampled_by_one_server_that_holds_one_model_at_a_time(tmp_path) -> None:
    """Trainings and evaluations side by side, each with weights of its own."""
    algorithms = "algorithms={dpo: {}, grpo: {}, rejection_sampling: {n: 2}}"
    sets = ["budget.prompts=64", "evaluation.prompts=32", *VLLM, algorithms, "adapter.type=full"]
    results = compare("quickstart", seeds=1, sets=[*sets, "training.learning_rate=1e-4"], out=tmp_path, workers=2)
    assert {result.status for result in results.algorithms.values()} == {"ok"}
    assert len(list((tmp_path / "servers").glob("*.log"))) == 1
    for label, result in results.algorithms.items():
        (trial,) = result.seeds.values()
        assert {way["generation.engine"] for way in trial.details["sampling"]} == {"vllm"}, label
        assert label == "start" or trial.metrics["kl"] > 1e-4
