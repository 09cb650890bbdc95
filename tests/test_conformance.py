"""The conformance suite: sound algorithms pass, built in or of a third party, and each broken one fails by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import broken
import prefzoo
from conftest import SMALL
from prefzoo import registry
from prefzoo.conformance import check
from prefzoo.conformance.findings import PROMISES, Finding
from prefzoo.conformance.learning import learning, recipe_of
from prefzoo.conformance.probe import ObservedTrial, observe, questions, resume
from prefzoo.conformance.promises import quick_findings
from prefzoo.conformance.suite import QUICK, quick
from prefzoo.conformance.trials import Trials, weight_hashes
from prefzoo.conformance.vary import Variations, _Trainings, varied
from prefzoo.errors import RecipeError
from prefzoo.judges.judge import Judge
from prefzoo.recipe.recipe_schema import Recipe
from prefzoo.report.summary_text import setting
from prefzoo.results.caveats import notes
from prefzoo.results.results_schema import Departure
from prefzoo.run.executor import Outcome
from prefzoo.run.stage_graph import load_plan
from prefzoo.settings import Adapter, Budget, Generation, Training
from prefzoo.trainers.recipe_deviations import expected_facts, find_deviations
from reported import made
from test_ledger import length

HERE = Path(__file__).parent
TINY = HERE / "third_party" / "prefzoo_tiny"
SEED = int(os.environ.get("PREFZOO_TEST_SEED", "0"))


@pytest.fixture(scope="session")
def shared(tmp_path_factory) -> Path:
    """One folder for all quick checks, whose data and start are alike."""
    return tmp_path_factory.mktemp("conformance")


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Path:
    """A folder into which pip has installed the third party's package."""
    folder = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--target", str(folder), str(TINY)], check=True)
    return folder


@pytest.fixture
def register():
    before = registry.registered()
    yield lambda cls: prefzoo.register(cls.__name__)(cls).__name__
    registry.restore(before)


def by_promise(findings) -> dict[str, Finding]:
    return {finding.promise: finding for finding in findings}


def answers(shift: float = 0.0) -> dict[str, Any]:
    """What a policy answers: log-probabilities that are `shift` from the start's."""
    start = [[-1.0, -2.0], [-0.5]]
    moved = [[value + shift for value in row] for row in start]
    return {"replies": [[1, 2]], "log_probabilities": moved, "adapted": True, "adapter_off": start}


def trial(**changes: Any) -> ObservedTrial:
    """What a sound training of 24 rows leaves, but for `changes`."""
    charges = {"trained_tokens": 100, "forward_tokens": 50, "generated_tokens": 0, "reward_calls": 0, "judge_calls": 0}
    fact = expected_facts(Adapter(r=4, alpha=8), Budget(), Generation(), TRAINING)
    usual = {
        "returned": "LanguageModelPolicy",
        "rows": 24,
        "sequences": 24,
        "seen": charges,
        "charged": dict(charges),
        "prompts_seen": 24,
        "prompts_charged": 24,
        "trainings": [fact],
        "answers": answers(0.1),
    }
    return ObservedTrial(**{**usual, **changes})


TRAINING = Training(batch_size=8, learning_rate=1e-3)


@pytest.fixture
def trials(tmp_path):
    """Made-up trials of an algorithm that keeps its promises, but for changes: `trials(first={...}, **of Trials)`."""

    def make(algorithm: Any = None, first: dict[str, Any] | None = None, **changes: Any) -> Trials:
        folders = []
        for name, content in (("first", b"a"), ("again", b"a"), ("other", b"b")):
            (tmp_path / name).mkdir(exist_ok=True)
            (tmp_path / name / "adapter.safetensors").write_bytes(content)
            folders.append(tmp_path / name)
        usual: dict[str, Any] = {
            "algorithm": algorithm or broken.Imitates(),
            "adapter": Adapter(r=4, alpha=8),
            "budget": Budget(),
            "generation": Generation(),
            "training": TRAINING,
            "first": trial(**(first or {})),
            "other": trial(),
            "again": trial(),
            "same": True,
            "policies": tuple(folders),
            "replies": (["a"], ["a"]),
            "reloaded": answers(0.1),
            "start": answers()["log_probabilities"],
            "variations": Variations(True, with_effect=["beta", "adapter.r"], milestones=2),
            "resumed": {"killed": True, "same": True, "checkpoint_files": 3},
        }
        return Trials(**{**usual, **changes})

    return make


def verdicts(trials: Trials) -> dict[str, Finding]:
    findings = by_promise(quick_findings(trials))
    assert list(findings) == list(PROMISES)[2:-2]
    return findings


def broken_ones(trials: Trials) -> dict[str, str]:
    return {name: finding.message for name, finding in verdicts(trials).items() if finding.status == "broken"}


def test_sound_trials_keep_every_promise(trials) -> None:
    findings = verdicts(trials())
    assert {name for name, finding in findings.items() if finding.status != "kept"} == {"sampling"}
    assert "nothing is sampled" in findings["sampling"].message


BATCH = {
    **{"sampling": True, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "max_new_tokens": 40},
    **{"altered": [], "by_assistant": False},
}
MANY = list(range(8))
SEEDED = {**expected_facts(Adapter(r=4, alpha=8), Budget(), Generation(), TRAINING), "trainer": "DPOTrainer", "seed": 0}


@pytest.mark.parametrize(
    ("changes", "promise", "says"),
    [
        ({"reloaded": ValueError("no file")}, "reloads", "does not load: ValueError: no file"),
        ({"reloaded": answers(0.2)}, "reloads", "log-probabilities of the loaded policy are up to 0.1"),
        ({"same": False, "repeated": False}, "repeats", "two trainings with one seed"),
        ({"replies": (["a"], ["b"])}, "repeats", "other replies to the test prompts"),
        ({"same": False, "repeated": True}, "unseen", "in the place of the test and validation rows: it learns"),
        ({"first": {"opened": ["/x/data-1/test.jsonl"]}}, "unseen", "no training may read: data-1/test.jsonl"),
        ({"first": {"sequences": 25}}, "budget", "25 sequences were trained on; the budget allows 24"),
        ({"first": {"excess_passes": (3, 12)}}, "budget", "12 sequences of the data passed up to 3 times more often"),
        ({"first": {"foreign_sequences": ["who?"]}}, "budget", "hold no prompt of bench.data, for example 'who?'"),
        ({"variations": Variations(True, milestones=0)}, "recipe", "no policy was kept on the way"),
        (
            {"variations": Variations(True, without_effect={"adapter.r": [2]}, milestones=2)},
            "recipe",
            "adapter.r changes nothing (tried: 2)",
        ),
        (
            {"variations": Variations(True, without_effect={"generation.temperature": [0.5]}, milestones=2)},
            "sampling",
            "generation.temperature changes nothing",
        ),
        ({"first": {"batches": [{**BATCH, "temperature": 0.3, "rows": [1]}]}}, "sampling", "with temperature 0.3"),
        ({"first": {"batches": [{**BATCH, "max_new_tokens": 60, "rows": [1]}]}}, "sampling", "max_new_tokens 60"),
        ({"first": {"batches": [{**BATCH, "top_k": 5, "rows": [1]}]}}, "sampling", "top_k 5"),
        ({"first": {"batches": [{**BATCH, "altered": ["min_p 0.1"], "rows": [1]}]}}, "sampling", "min_p 0.1"),
        (
            {"first": {"trainings": [SEEDED]}, "other": trial(trainings=[SEEDED])},
            "seed",
            "DPOTrainer had the same seed in trainings with two",
        ),
        ({"first": {"learned_greedily": 4}}, "sampling", "4 replies that it trained on were not sampled"),
        (
            {"first": {"batches": [{**BATCH, "rows": MANY}]}, "other": trial(batches=[{**BATCH, "rows": MANY}])},
            "sampling",
            "the same replies with two seeds",
        ),
        (
            {"first": {"generated_digests": MANY}, "other": trial(generated_digests=MANY)},
            "sampling",
            "the same replies with two seeds",
        ),
        (
            {"variations": Variations(True, without_effect={"beta": [0.05, 0.2]}, milestones=2)},
            "settings",
            "alone or beside other settings: beta (0.05, 0.2)",
        ),
        ({"first": {"prompts_charged": 3}}, "ledger", "24 prompts were taken up, 3 charged"),
        ({"first": {"start_untouched": False}}, "base", "the files in bench.start were changed"),
        ({"first": {"answers": {**answers(0.1), "adapter_off": [[0.0, 0.0], [0.0]]}}}, "base", "with its adapter off"),
        ({"first": {"answers": answers()}, "reloaded": answers()}, "changes", "nothing was trained"),
        ({"resumed": "the process ended"}, "resumes", "did not go on: the process ended"),
        ({"resumed": {"killed": True, "same": False}}, "resumes", "ended with other weights"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_is_broken_is_named_by_its_promise(trials, changes, promise, says) -> None:
    told = broken_ones(trials(**changes))
    assert set(told) == {promise}
    assert says in told[promise]


@pytest.mark.parametrize(
    "what", ["trained_tokens", "forward_tokens", "generated_tokens", "reward_calls", "judge_calls"]
)
def test_whatever_is_not_charged_breaks_the_ledger(trials, what) -> None:
    told = broken_ones(trials(first={"seen": {**trial().seen, what: 200}}))
    assert set(told) == {"ledger"} and f"200 {what.replace('_', ' ')} were seen" in told["ledger"]


@pytest.mark.parametrize(
    ("key", "value"),
    [("adapter.r", 32), ("adapter.scale", 1.0), ("adapter.type", "full"), ("training.learning_rate", 5e-3)],
)
def test_final_arguments_that_are_not_the_recipes_break_it(trials, key, value) -> None:
    told = broken_ones(trials(first={"trainings": [{**trial().trainings[0], key: value}]}))
    assert set(told) == {"recipe"} and key in told["recipe"]


def test_a_rate_that_a_hyper_parameter_says_is_admitted_and_told(trials) -> None:
    facts = [{**trial().trainings[0], "training.learning_rate": 0.25e-3}]
    algorithm = prefzoo.get("constitutional_ai", phase="both", learner_rate=0.25)
    finding = verdicts(trials(algorithm, first={"trainings": facts}))["recipe"]
    assert (
        finding.status == "kept" and "training.learning_rate is 0.00025 by its setting learner_rate" in finding.message
    )


def test_a_prompt_that_policies_are_measured_by_is_named(trials) -> None:
    told = broken_ones(trials(first={"foreign_sequences": ["Question: where? Here."]}, hidden=frozenset({"where?"})))
    assert "a prompt that policies are measured by passed through a model" in told["unseen"]


@pytest.mark.parametrize(
    ("cls", "promises", "says"),
    [
        (broken.ThreeEpochs, {"budget", "recipe"}, "72 sequences were trained on; the budget allows 24"),
        (broken.AllowsItselfMore, {"budget", "recipe"}, "whatever `replies_per_row` says"),
        (broken.CopiesRows, {"budget"}, "whatever `replies_per_row` says"),
        (broken.PromptsOfItsOwn, {"budget"}, "sequences hold no prompt of bench.data"),
        (broken.BesideTheLedger, {"ledger"}, "trained tokens were seen, 0 charged"),
        (broken.SamplesForFree, {"ledger"}, "generated tokens were seen, 0 charged"),
        (broken.PassesForFree, {"ledger"}, "forward tokens were seen"),
        (broken.PassesEmbeddings, {"ledger", "budget"}, "trained tokens were seen"),
        (broken.PassesThroughLayers, {"ledger"}, "forward tokens were seen"),
        (broken.SamplesByHand, {"ledger"}, "forward tokens were seen, 0 charged"),
        (broken.AsksTheJudgeItself, {"ledger"}, "24 judge calls were seen, 0 charged"),
        (broken.SamplesItsOwnWay, {"sampling"}, "it sampled with temperature 0.4, max_new_tokens 32"),
        (broken.SamplesGreedily, {"sampling"}, "were not sampled as the recipe says"),
        (broken.Deaf, {"recipe"}, "adapter.r is 4 in the recipe, and 3 was used"),
        (broken.WholeModel, {"base", "recipe"}, "the policy is a whole model without one"),
        (broken.BaseInMemory, {"base"}, "with its adapter off, the returned policy is"),
        (broken.BaseOnDisk, {"base"}, "the files in bench.start were changed"),
        (broken.Start, {"changes", "recipe"}, "nothing was trained"),
        (broken.Imitates, set(), ""),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_probe_sees_what_a_broken_algorithm_does(trials, make_bench, cls, promises, says) -> None:
    bench = make_bench()
    bench = bench.replace(reward=length, judge=length_judge())
    observe(cls(), bench)
    first = ObservedTrial(**bench.report["probe"])
    adapted = {"adapter_off": first.answers["adapter_off"]} if first.answers.get("adapted") else {}
    start = broken.start_policy(bench).log_probabilities(*questions(bench))
    told = broken_ones(
        trials(
            cls(),
            first=asdict(first),
            reloaded={**first.answers, **adapted},
            start=start,
            adapter=bench.adapter,
            budget=bench.budget,
            generation=bench.generation,
            training=bench.training,
        )
    )
    assert set(told) == promises
    assert not promises or any(says in message for message in told.values()), told


def length_judge() -> Judge:
    return Judge(
        lambda prompts, first, second, questions: [float(len(a) > len(b)) for a, b in zip(first, second, strict=True)]
    )


def test_a_killed_training_that_does_not_resume_is_told_from_one_that_does(make_bench) -> None:
    weights = {}
    for cls in (broken.Imitates, broken.LosesItsPlace):
        whole, killed = make_bench(name=f"{cls.__name__}-whole"), make_bench(name=f"{cls.__name__}-killed")
        broken.LosesItsPlace.started.clear()
        observe(cls(), whole)
        broken.LosesItsPlace.started.clear()
        resume(cls(), killed)
        assert killed.report["probe"]["killed"]
        weights[cls] = weight_hashes(whole.out / "policy") == weight_hashes(killed.out / "policy")
    assert weights == {broken.Imitates: True, broken.LosesItsPlace: False}


class MadeUp:
    """Trainings whose outcome is a function of what is varied."""

    late, sampled = False, True

    def __init__(self, algorithm: Any, bench: Any, outcome: Any) -> None:
        self.algorithm, self.bench, self.function = algorithm, bench, outcome

    def outcome(self, parameters, blocks=None, again=False) -> Any:
        return self.function(
            dict(parameters), {f"{b}.{k}": v for b, keys in (blocks or {}).items() for k, v in keys.items()}
        )

    def milestones(self) -> int:
        return 2


def test_a_setting_counts_as_used_if_it_is_beside_another_one(make_bench) -> None:
    """`k` matters only with `keep: top_k`, and `threshold` with another."""

    def learned(given: dict[str, Any], blocks: dict[str, Any]) -> str:
        now = {"keep": "best", "k": 2, "threshold": 0.0, "n": 8, "iterations": 1, "trainer": {}, **given}
        used = {"top_k": now["k"], "threshold": now["threshold"]}.get(now["keep"])
        return repr((now["n"], now["keep"], used, now["trainer"], sorted(blocks.items())))

    variations = varied(MadeUp(prefzoo.get("rejection_sampling"), make_bench(), learned))
    assert set(variations.without_effect) == {"iterations"} and variations.milestones == 2
    assert {"n", "keep", "k", "threshold", "trainer", "adapter.r", "budget.epochs"} <= set(variations.with_effect)
    assert {"generation.temperature", "generation.max_new_tokens"} <= set(variations.with_effect)


def test_what_changes_nothing_is_found(make_bench) -> None:
    variations = varied(MadeUp(broken.Deaf(), make_bench(), lambda given, blocks: "always the same"))
    assert {"beta", "trainer", "adapter.r", "budget.epochs", "training.learning_rate"} <= set(variations.without_effect)
    assert not variations.with_effect


def test_varying_trains_with_what_is_varied(make_bench) -> None:
    trainings = _Trainings(broken.Imitates(), make_bench())
    base = trainings.outcome({})
    assert base is not None and trainings.outcome({}, again=True) == base
    assert trainings.outcome({}, {"adapter": {"r": 2}}) not in (None, base)
    assert not trainings.sampled and trainings.milestones() > 0


FAILURES = {
    "raises": ("ValueError: broken on purpose", None, "trains"),
    "saves nothing": ("x saved no policy: `train` must call `policy.save(bench.out / 'policy')`", None, "saves"),
    "returns nothing": (None, {"returned": None}, "trains"),
}


@pytest.mark.parametrize("case", list(FAILURES))
def test_without_a_policy_the_rest_is_not_tried(tmp_path, register, monkeypatch, case) -> None:
    error, details, promise = FAILURES[case]

    def run(plan, wanted, console):
        plan.stages["data"].folder.mkdir(parents=True, exist_ok=True)
        for name in wanted if details is not None else ():
            plan.stages[name].folder.mkdir(parents=True)
            (plan.stages[name].folder / "details.json").write_text(json.dumps({"probe": details}))
        return {name: Outcome("failed" if error else "ok", error) for name in wanted}

    monkeypatch.setattr("prefzoo.conformance.suite._run", run)
    findings = by_promise(quick(register(broken.Imitates), 0, tmp_path))
    assert list(findings) == list(PROMISES)[:-2]
    assert {name for name, finding in findings.items() if finding.status == "broken"} == {promise}
    assert findings["budget"].status == "untried"


def test_settings_of_a_check_are_hyper_parameters_or_keys_of_the_recipe() -> None:
    content = {
        **QUICK,
        "data": {"source": "lab"},
        "algorithms": {"one": {"algorithm": "dpo"}, "two": {"algorithm": "dpo"}},
    }
    recipe = recipe_of(content, 3, ["beta=0.3", "trainer.learning_rate=0.01", "adapter.r=8", "evaluation.milestones=2"])
    assert recipe.seeds == [3] and recipe.adapter.r == 8 and recipe.evaluation.milestones == 2
    assert {recipe.algorithm(label).beta for label in ("one", "two")} == {0.3}
    assert recipe.algorithm("one").trainer == {"learning_rate": 0.01}
    with pytest.raises(RecipeError, match="beto"):
        recipe_of(content, 3, ["beto=0.3"])


@pytest.mark.slow
def test_a_built_in_algorithm_keeps_the_quick_promises(shared) -> None:
    findings = by_promise(quick("dpo", 0, shared))
    assert list(findings) == list(PROMISES)[:-2]
    assert {str(f) for f in findings.values() if f.status == "broken"} == set()
    assert {f.promise for f in findings.values() if f.status == "untried"} == {"sampling"}
    seen = json.loads((load_plan(shared).stages["train first seed 0"].folder / "details.json").read_text())["probe"]
    assert seen["sequences"] == 96 == 2 * seen["rows"]
    for what in ("trained_tokens", "forward_tokens"):
        assert seen["seen"][what] == seen["charged"][what] > 0, what


@pytest.mark.parametrize(
    "name", ["rejection_sampling", "ppo", "best_of_n", "online_dpo", "xpo", "distill", "best_of_n_distillation", "sac"]
)
def test_the_probe_counts_what_the_ledger_counts(make_bench, name) -> None:
    bench = make_bench().replace(reward=Length())
    observe(prefzoo.get(name), bench)
    first = ObservedTrial(**bench.report["probe"])
    assert first.seen.keys() == first.charged.keys()
    for what in ("trained_tokens", "forward_tokens", "generated_tokens", "reward_calls"):
        assert first.seen[what] == first.charged[what], what
    assert (
        first.seen["flops"] <= first.charged["flops"]
        and first.foreign_sequences == []
        and first.excess_passes == (0, 0)
    )
    if name != "best_of_n":
        assert first.seen["generated_tokens"] > 0 and first.generated_digests and first.learned_greedily == 0


def test_a_reward_that_is_made_anew_may_learn_from_the_data_again(make_bench, base, monkeypatch) -> None:
    algorithm = prefzoo.get("iterated_rlhf", rounds=2)
    bench = make_bench().replace(start=base, judge=length_judge())
    observe(algorithm, bench)
    assert bench.report["probe"]["excess_passes"] == (0, 0)
    monkeypatch.setattr(type(algorithm), "models_on_data", 1)
    observe(algorithm, again := make_bench(name="again").replace(start=base, judge=length_judge()))
    assert again.report["probe"]["excess_passes"] == (1, 24), "each pair, once too often"


class Length:
    """A reward that can be saved."""

    def __call__(self, prompts: Any, completions: Any) -> list[float]:
        return [len(text) / 50 for text in completions]

    def spec(self, folder: Path) -> dict[str, Any]:
        return {"type": "random", "seed": 0}


@pytest.mark.slow
def test_learning_from_test_rows_on_the_disk_is_named(shared, register) -> None:
    findings = by_promise(quick(register(broken.ReadsTheTest), 0, shared))
    assert findings["unseen"].status == "broken" and "test.jsonl" in findings["unseen"].message
    assert findings["repeats"].status == "kept"  # with the rows in their place


def test_a_third_partys_algorithm_is_listed_compared_and_conforms(site, shared, tmp_path, monkeypatch) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), *sys.path]), "COLUMNS": "160"}
    code = "from prefzoo.cli import main; main()"
    shown = subprocess.run([sys.executable, "-c", code, "ls"], env=environment, capture_output=True, text=True)
    assert "about equally long" in next(line for line in shown.stdout.splitlines() if " tiny " in line)
    monkeypatch.syspath_prepend(str(site))
    found = prefzoo.compare("quickstart", ["tiny", "sft"], seeds=1, sets=SMALL, out=tmp_path)
    assert found.algorithms["tiny"].error is None
    assert found.algorithms["tiny"].seeds["0"].ledger["trained_tokens"] > 0
    assert found.algorithms["tiny"].summary["gold"].mean != found.algorithms["sft"].summary["gold"].mean
    assert {f.promise for f in quick("tiny", 0, shared) if f.status != "kept"} == {"sampling"}


@pytest.mark.long
def test_the_pytest_fixture_and_the_command_fail_with_what_is_broken(tmp_path) -> None:
    file = tmp_path / "test_theirs.py"
    file.write_text(
        "import broken, prefzoo\n"
        "prefzoo.register('mine')(broken.Raises)\n"
        "def test_mine(prefzoo_conformance):\n"
        "    prefzoo_conformance('mine')\n"
    )
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(HERE), *sys.path]),
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        "COLUMNS": "200",
    }
    pytest_command = [sys.executable, "-m", "pytest", "-p", "prefzoo.conformance.pytest_plugin", "-q", str(file)]
    done = subprocess.run(pytest_command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "mine breaks 1 of its promises" in done.stdout and "broken on purpose" in done.stdout
    code = "from prefzoo.cli import main; main()"
    command = [sys.executable, "-c", code, "check", "mine", "--plugin", str(file)]
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert checked.returncode == 1, checked.stderr
    assert "broken: trains" in checked.stdout and "broken on purpose" in checked.stdout
    command[command.index("mine")] = "dpoo"
    mistaken = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert mistaken.returncode == 2 and "Did you mean 'dpo'" in mistaken.stderr


def test_the_fixture_is_offered_to_every_project() -> None:
    assert (
        '[project.entry-points.pytest11]\nprefzoo = "prefzoo.conformance.pytest_plugin"'
        in (HERE.parent / "pyproject.toml").read_text()
    )
    code = "import sys, prefzoo.conformance.pytest_plugin; heavy = {'torch', 'matplotlib', 'transformers'}; "
    code += "assert not heavy & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_deviations_are_what_the_recipe_and_the_label_do_not_say() -> None:
    expected = expected_facts(Adapter(r=4, alpha=8), Budget(), Generation(), TRAINING)
    trained = {**expected, "budget.epochs": 4, "training.learning_rate": 5e-3}
    sampled = {"generation.temperature": 0.3, "generation.max_new_tokens": 40}
    assert find_deviations(expected, [expected], {}) == {}
    deviations = find_deviations(expected, [expected, trained, trained, sampled], {})
    assert deviations == {"budget.epochs": [4], "training.learning_rate": [5e-3], "generation.temperature": [0.3]}
    assert set(find_deviations(expected, [trained], {"num_train_epochs": 4})) == {"training.learning_rate"}
    assert set(find_deviations(expected, [trained], {"num_train_epochs": 2})) == {
        "budget.epochs",
        "training.learning_rate",
    }


def test_the_report_says_who_was_not_given_the_same(tmp_path) -> None:
    results = made(tmp_path)
    dpo = results.algorithms["dpo"]
    assert "Every algorithm was given the same" in setting(results)
    results.algorithms["dpo"] = dpo.model_copy(
        update={"departures": {"budget.epochs": Departure(recipe=1.0, used=[4])}, "replies_per_row": 8}
    )
    results.algorithms["rejection_sampling"].replies_per_row = 1
    assert "Every algorithm but dpo was given the same" in setting(results)
    assert "for each row of the data, by each algorithm's own word: 1 (rejection_sampling); 8 (dpo)." in setting(
        results
    )
    told = notes(Recipe(**results.recipe), results.algorithms, results.reward, results.manifest)
    assert "dpo did not use what the recipe says: budget.epochs 4 (recipe: 1)." in told


def test_a_comparison_tells_what_an_algorithm_used_of_its_own(tmp_path, register) -> None:
    names = [register(broken.AllowsItselfMore), register(broken.SamplesItsOwnWay)]
    results = prefzoo.compare("quickstart", names, seeds=1, sets=SMALL, out=tmp_path)
    allowance, sampler = (results.algorithms[name] for name in names)
    assert allowance.error is None and sampler.error is None
    assert {key: departure.used for key, departure in allowance.departures.items()} == {"budget.epochs": [4.0]}
    assert sampler.departures["generation.temperature"].used == [0.4]
    assert results.algorithms["start"].departures == {}
    page = (tmp_path / "report.md").read_text()
    assert "Every algorithm but AllowsItselfMore, SamplesItsOwnWay was given the same" in page
    assert "AllowsItselfMore did not use what the recipe says: budget.epochs 4 (recipe: 1)." in page
    assert "trainings.1" not in page


@pytest.mark.parametrize(
    ("looks", "status", "last"),
    [
        ([(0.4, 0.01)], "kept", (3, 5e-4)),
        ([(0.1, 0.4), (1.3, 0.001)], "kept", (3, 2e-3)),  # as policy gradients
        ([(0.4, 0.06), (-0.9, 0.01), (0.3, 0.001)], "kept", (8, 5e-4)),  # as losses on pairs
        ([(0.1, 0.4), (0.3, 0.03), (0.4, 0.001)], "kept", (8, 2e-3)),  # later looks ask for more
        ([(0.1, 0.4), (0.3, 0.03), (0.3, 0.03)], "broken", (8, 2e-3)),
        ([(0.1, 0.4), (-0.3, 0.1), (-0.3, 0.001)], "broken", (8, 5e-4)),
        ([(-0.9, 0.01)], "broken", (3, 5e-4)),  # more would not make it a rise
    ],
)
def test_where_three_seeds_do_not_tell_it_looks_at_another_rate_and_more_seeds(
    looks, status, last, monkeypatch, tmp_path
) -> None:
    asked = []

    def found(recipe, out, console, sets=()):
        difference, p = (0.0, 1.0) if sets else looks[len(asked)]
        if not sets:
            asked.append((len(recipe["seeds"]), recipe["training"]["learning_rate"]))
        else:
            assert (len(recipe["seeds"]), recipe["training"]["learning_rate"]) == (3, last[1])
        half = abs(difference) * 0.9 if p < 0.05 else abs(difference) * 1.1
        verdict = "inconclusive" if p >= 0.05 else "better" if difference > 0 else "worse"
        over = SimpleNamespace(
            metric="gold", a="dpo", b="start", difference=difference, p_adjusted=p, verdict=verdict,
            ci95=(difference - half, difference + half),
        )  # fmt: skip
        return SimpleNamespace(algorithms={"dpo": SimpleNamespace(status="ok")}, verdicts=[over])

    monkeypatch.setattr("prefzoo.conformance.learning.compare", found)
    first, control = learning("dpo", 5, tmp_path)
    assert (first.promise, first.status, control.status) == ("learns", status, "kept")
    assert asked == [(3, 5e-4), (3, 2e-3), last][: len(looks)] and asked[-1] == last
    assert f"{last[0]} seeds at a learning rate of {last[1]:g}: {looks[-1][0]:+.2f}" in first.message


@pytest.mark.parametrize("key", ["training.learning_rate", "trainer.learning_rate"])
def test_a_rate_that_is_set_is_the_only_one_it_looks_at(key, monkeypatch, tmp_path) -> None:
    asked = []

    def found(recipe, **more):
        asked.append(len(recipe["seeds"]))
        over = SimpleNamespace(
            metric="gold", a="dpo", b="start", difference=0.1, p_adjusted=0.5, verdict="inconclusive", ci95=(-0.1, 0.3)
        )
        return SimpleNamespace(algorithms={"dpo": SimpleNamespace(status="ok")}, verdicts=[over])

    monkeypatch.setattr("prefzoo.conformance.learning.compare", found)
    first, _ = learning("dpo", 5, tmp_path, sets=[f"{key}=1e-3"])
    assert first.status == "broken" and asked == [3, 8, 3] and "8 seeds at a learning rate of 0.001:" in first.message


def test_there_is_no_control_of_what_learns_from_revisions(monkeypatch, tmp_path) -> None:
    asked = []

    def found(recipe, sets=(), **more):
        asked.append(sets)
        over = SimpleNamespace(
            metric="gold",
            a="constitutional_ai",
            b="start",
            difference=1.2,
            p_adjusted=0.01,
            verdict="better",
            ci95=(1, 2),
        )
        return SimpleNamespace(algorithms={"constitutional_ai": SimpleNamespace(status="ok")}, verdicts=[over])

    monkeypatch.setattr("prefzoo.conformance.learning.compare", found)
    first, control = learning("constitutional_ai", 5, tmp_path)
    assert (first.status, control.status) == ("kept", "untried") and len(asked) == 1


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["sft", "dpo", "rejection_sampling", "best_of_n", "online_dpo", "tiny"])
def test_it_keeps_every_promise(site, monkeypatch, name) -> None:
    monkeypatch.syspath_prepend(str(site))
    found = by_promise(check(name, SEED))
    assert list(found) == list(PROMISES)
    assert {str(f) for f in found.values() if f.status == "broken"} == set()
    assert found["learns"].status == found["control"].status == "kept"


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("cls", "promise"), [(broken.WrongWay, "learns"), (broken.KnowsTheTruth, "control")])
def test_what_learns_wrongly_or_from_elsewhere_is_caught(tmp_path, register, cls, promise) -> None:
    found = learning(register(cls), SEED, tmp_path)
    assert {f.promise for f in found if f.status == "broken"} == {promise}
