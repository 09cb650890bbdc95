"""Work that trials share is done once, changes no number, and is charged to each in full."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict

import pytest
import torch

import prefzoo
from conftest import SMALL
from prefzoo.judges.build_judge import build_judge, gold_judge
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.ledger import CHARGES, Ledger
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.recipe.check_recipe import load
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages.shared_work import SHARED_WORK, SharedWork
from prefzoo.trainers.config_audit import noting_sampling


@pytest.fixture
def bench(make_bench, tmp_path):
    """Makes the bench of another trial of the same comparison, with work shared or not."""

    def make(shared: bool = True, **changes):
        reuse = SharedWork(tmp_path / SHARED_WORK) if shared else None
        return make_bench().replace(reuse=reuse, ledger=Ledger(), report={}, **changes)

    return make


def start_of(bench):
    return LanguageModelPolicy.start_of(bench)


def charges(ledger):
    return {name: value for name, value in asdict(ledger).items() if name in CHARGES}


def test_what_is_read_is_what_would_have_been_sampled_and_costs_as_much(bench) -> None:
    alone, first, second = bench(shared=False), bench(), bench()
    prompts = alone.data.prompts
    drawn = alone.sample(start_of(alone), prompts, 2, seed=5)
    states = []
    for each in (first, second):
        torch.manual_seed(0)
        with noting_sampling(each.report):
            assert each.sample(start_of(each), prompts, 2, seed=5) == drawn
        states.append(torch.get_rng_state())
    how = [{"generation.temperature": 1.0, "generation.max_new_tokens": 24, "generation.engine": "transformers"}]
    assert first.report["sampling"] == second.report["sampling"] == how, "how it was drawn is told of both"
    assert torch.equal(*states), "what is drawn afterwards does not depend on who sampled"
    assert charges(first.ledger) == charges(second.ledger) == charges(alone.ledger)
    assert "reused" not in first.report
    assert second.report["reused"]["generated_tokens"] == alone.ledger.generated_tokens > 0
    took = second.report["reused"]["seconds"]
    assert 0 < second.ledger.seconds < took, "reading took its time, which `metered` counts"


@pytest.mark.parametrize("change", ["seed", "n", "prompts", "temperature", "weights"])
def test_what_differs_in_anything_is_sampled_anew(bench, change) -> None:
    first, second = bench(), bench()
    prompts, policy = first.data.prompts[:6], start_of(first)
    drawn = first.sample(policy, prompts, 1, seed=5)
    if change == "temperature":
        second = second.replace(generation=second.generation.model_copy(update={"temperature": 0.5}))
    if change == "weights":  # trained in place: it still says that it comes from the start
        with torch.no_grad():
            policy.model.lm_head.weight.mul_(1.5)
    more = {"n": 2} if change == "n" else {"n": 1}
    asked = prompts[:5] if change == "prompts" else prompts
    again = second.sample(policy, asked, **more, seed=6 if change == "seed" else 5)
    assert "reused" not in second.report and again != drawn


def test_a_policy_from_elsewhere_is_sampled_without_being_kept(bench, tmp_path) -> None:
    one = bench()
    policy = start_of(one)
    one.sample(policy, one.data.prompts[:2], 1, seed=1)
    kept = len(list((tmp_path / SHARED_WORK).glob("*.json")))
    policy.start = str(tmp_path)
    one.sample(policy, one.data.prompts[:2], 1, seed=2)
    assert len(list((tmp_path / SHARED_WORK).glob("*.json"))) == kept == 1


def judge_of(kind: str, seed: int = 0, **settings):
    loading = {"dtype": "float32", "trust_remote_code": False, "quantization": None}
    described = {"settings": JudgeSettings(type=kind, **settings).model_dump(mode="json"), "model": "lab"}
    return build_judge({**described, "loading": loading, "gold": "lab", "seed": seed, "cache": "unused"})


@pytest.mark.parametrize("verdict", ["probabilities", "generated"])
def test_a_model_judges_once_and_reports_as_if_it_had_judged_again(bench, verdict) -> None:
    trials = [bench(shared=i > 0, judge=judge_of("local", verdict=verdict)) for i in range(3)]
    pairs = trials[0].data.preferences[:8]
    asked = [[p["prompt"] for p in pairs], *([p[k][0]["content"] for p in pairs] for k in ("chosen", "rejected"))]
    rounds = [[each.prefer(*asked), each.prefer(asked[0], asked[2], asked[1])] for each in trials]
    assert rounds[0] == rounds[1] == rounds[2]
    reports = [each.judge.report() for each in trials]
    assert reports[0] == reports[1] == reports[2] and reports[0]["pairs"] == 16
    assert charges(trials[0].ledger) == charges(trials[1].ledger) == charges(trials[2].ledger)
    assert trials[0].ledger.flops > 0
    assert "reused" not in trials[1].report and trials[2].report["reused"]["judge_calls"] == 32


def test_a_coin_is_tossed_by_every_trial_and_an_unknown_judge_always_asked(bench, tmp_path) -> None:
    pairs = bench().data.preferences
    asked = [[p["prompt"] for p in pairs], *([p[k][0]["content"] for p in pairs] for k in ("chosen", "rejected"))]
    tosses = [bench(judge=judge_of("random", seed)).prefer(*asked) for seed in (0, 1)]
    assert tosses[0] != tosses[1]
    coin = bench(judge=judge_of("random", 0))
    assert coin.prefer(*asked) == tosses[0] != coin.prefer(*asked), "a second toss is another one"
    unknown = gold_judge(lambda prompts, replies: [{"gold": float(len(reply))} for reply in replies])
    for _ in range(2):
        bench(judge=unknown).prefer(*asked)
    assert unknown.counts.pairs == 2 * len(pairs)
    assert not (tmp_path / SHARED_WORK).exists()


def test_of_several_at_once_one_works_and_the_others_wait(bench, tmp_path) -> None:
    worked, found, told = [], [], []

    def work():
        worked.append(time.sleep(0.3))
        return {"answer": 42}

    def trial():
        each = bench(progress=lambda *said: told.append(said))
        found.append(SharedWork(tmp_path / SHARED_WORK)._once(each, "samples", {"a": 1}, work))

    threads = [threading.Thread(target=trial) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(worked) == 1 and sorted(reused for _, reused in found) == [False, True, True]
    assert [content for content, _ in found] == [{"answer": 42}] * 3
    assert told and told[0][0] == "waiting for another trial's samples"


def test_one_that_is_killed_at_work_leaves_it_to_the_next(bench, tmp_path) -> None:
    kept = SharedWork(tmp_path / SHARED_WORK)
    kept._once(bench(), "samples", {"a": 1}, lambda: {"answer": 42})
    [path] = (tmp_path / SHARED_WORK).glob("*.json")
    path.rename(path.with_name(f"{path.name}.partial"))  # it was writing
    path.with_name(f"{path.name}.partial").write_text('{"found": {"ans')
    code = f"import filelock, time; filelock.FileLock({str(path.with_suffix('.lock'))!r}).acquire(); print(1, flush=True); time.sleep(60)"  # fmt: skip  # noqa: E501
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline()
        threading.Timer(0.3, other.send_signal, [signal.SIGKILL]).start()
        found = kept._once(bench(), "samples", {"a": 1}, lambda: {"answer": 43})
        assert other.wait(10) == -signal.SIGKILL
    assert found == ({"answer": 43}, False)
    assert json.loads(path.read_text())["found"] == {"answer": 43}


def test_in_a_comparison_the_control_reads_the_samples_and_is_charged_for_them(small_run) -> None:
    results, _ = small_run
    for seed in ("0", "1"):
        one, other = (results.algorithms[n].seeds[seed] for n in ("rejection_sampling", "random_choice"))
        sampled = [each.ledger["generated_tokens"] - each.ledger["inference_tokens"] for each in (one, other)]
        assert sampled[0] == sampled[1] > 0
        reused = [each.details["reused"]["generated_tokens"] for each in (one, other) if "reused" in each.details]
        assert reused == [sampled[0]], "one of the two, whichever came second"


def test_a_further_label_costs_its_own_training_and_evaluation_only(small_run) -> None:
    _, out = small_run
    recipe = load("quickstart", [*SMALL, "seeds=2", "algorithms.sixth.algorithm=dpo", "algorithms.sixth.beta=0.9"])
    left = {stage.name for stage in make_plan(recipe, out).stages.values() if not stage.done}
    assert left == {f"{kind} sixth seed {seed}" for kind in ("train", "evaluate") for seed in (0, 1)}


def test_an_added_label_runs_its_own_stages_and_samples_nothing_anew(small_run, tmp_path) -> None:
    """One algorithm, then a second in the same folder; and what both cost where five were compared at once."""

    def work() -> dict[str, int]:
        files = [path for part in ("stages", "trials", SHARED_WORK) for path in (tmp_path / part).rglob("*")]
        return {str(path): path.stat().st_mtime_ns for path in files if path.is_file() and path.suffix != ".lock"}

    one = prefzoo.compare("quickstart", ["rejection_sampling"], seeds=1, sets=SMALL, out=tmp_path)
    before = work()
    two = prefzoo.compare("quickstart", ["rejection_sampling", "random_choice"], seeds=1, sets=SMALL, out=tmp_path)
    after = work()
    assert {path: after[path] for path in before} == before and set(one.shared) == {"start", "reward"}
    assert len(after) > len(before) and all("random_choice" in path for path in after.keys() - before.keys())
    new = two.algorithms["random_choice"].seeds["0"]
    assert new.details["reused"]["generated_tokens"] == new.training["generated_tokens"] > 0
    assert two.shared == one.shared
    for label in one.algorithms:
        assert two.algorithms[label].seeds["0"].ledger == one.algorithms[label].seeds["0"].ledger

    five, _ = small_run
    assert {name: counted(each) for name, each in five.shared.items()} == {n: counted(e) for n, e in two.shared.items()}
    for label, each in two.algorithms.items():
        assert counted(each.seeds["0"].ledger) == counted(five.algorithms[label].seeds["0"].ledger), label


def counted(ledger):
    """What of a ledger does not depend on how busy the machine is."""
    return {name: value for name, value in ledger.items() if name in CHARGES}
