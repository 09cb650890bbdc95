"""The conformance suite: every built-in algorithm and a third party's pass, and each broken one fails by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import broken
import prefzoo
from conftest import SMALL
from prefzoo import registry
from prefzoo.conformance import check
from prefzoo.conformance.findings import PROMISES, Finding
from prefzoo.conformance.suite import learning, quick
from prefzoo.run.stage_graph import load_plan

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


@pytest.mark.parametrize("name", ["dpo", "rejection_sampling", "best_of_n"])
def test_built_in_algorithms_keep_the_quick_promises(shared, name) -> None:
    found = by_promise(quick(name, 0, shared))
    assert list(found) == list(PROMISES)[:-2]
    assert {str(f) for f in found.values() if f.status == "broken"} == set()
    untried = {"seed", "changes"} if name == "best_of_n" else set()
    assert {f.promise for f in found.values() if f.status == "untried"} == untried


def test_the_probe_counts_what_the_ledger_counts(shared) -> None:
    list(quick("rejection_sampling", 0, shared))
    plan = load_plan(shared)
    seen = json.loads((plan.stages["train first seed 0"].folder / "details.json").read_text())["probe"]
    assert seen["sequences"] == 48 == seen["rows"]
    for what, charged in seen["charged"].items():
        assert seen[what] == charged > 0, what


@pytest.mark.parametrize(
    ("cls", "promises", "says"),
    [
        (broken.Raises, {"trains"}, "ValueError: broken on purpose"),
        (broken.ReturnsNothing, {"trains"}, "must return the policy"),
        (broken.SavesNothing, {"saves"}, "must call `policy.save(bench.out / 'policy')`"),
        (broken.SavesHalf, {"reloads"}, "does not load"),
        (broken.SavesTooEarly, {"reloads"}, "log-probabilities of the loaded policy are up to"),
        (broken.NotRepeatable, {"repeats"}, "two trainings with one seed saved other weights"),
        (broken.OneSeedOnly, {"seed"}, "`bench.seed` is not used"),
        (broken.ThreeEpochs, {"budget"}, "144 sequences were trained on; the budget allows 48"),
        (broken.PromptsOfItsOwn, {"budget"}, "sequences hold no prompt of bench.data"),
        (broken.BesideTheLedger, {"ledger"}, "trained tokens were seen, 0 charged"),
        (broken.SamplesForFree, {"ledger"}, "generated tokens were seen, 0 charged"),
        (broken.BaseOnDisk, {"base"}, "the files in bench.start were changed"),
        (broken.BaseInMemory, {"base", "reloads"}, "with its adapter off, the returned policy is"),
        (broken.WholeModel, {"base"}, "the policy is a whole model without one"),
        (broken.Start, {"changes"}, "nothing was trained"),
        (broken.DeniesTraining, {"changes", "budget"}, "it declares `trains = False`, but"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_broken_algorithm_fails_by_the_name_of_its_promise(shared, register, cls, promises, says) -> None:
    found = by_promise(quick(register(cls), 0, shared))
    assert list(found) == list(PROMISES)[:-2]
    assert {f.promise for f in found.values() if f.status == "broken"} == promises
    assert any(says in found[promise].said for promise in promises), [found[promise].said for promise in promises]


def test_a_sound_one_of_the_same_make_passes(shared, register) -> None:
    assert {f.status for f in quick(register(broken.Imitates), 0, shared)} == {"kept"}


def test_nothing_long_is_tried_where_something_quick_is_broken(register, monkeypatch) -> None:
    found = by_promise(check(register(broken.Start)))
    assert list(found) == list(PROMISES)
    assert {found["learns"].status, found["control"].status} == {"untried"}
    assert set(registry.registered()) == {"Start"}


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
    assert {f.status for f in quick("tiny", 0, shared)} == {"kept"}


def test_the_pytest_fixture_and_the_command_fail_with_what_is_broken(tmp_path) -> None:
    file = tmp_path / "test_theirs.py"
    file.write_text(
        "import broken, prefzoo\n"
        "prefzoo.register('mine')(broken.Start)\n"
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
    assert "mine breaks 1 of its promises" in done.stdout and "nothing was trained" in done.stdout
    code = "from prefzoo.cli import main; main()"
    command = [sys.executable, "-c", code, "check", "mine", "--plugin", str(file)]
    checked = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert checked.returncode == 1, checked.stderr
    assert "broken: changes" in checked.stdout and "nothing was trained" in checked.stdout
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


@pytest.mark.learning
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["sft", "dpo", "rejection_sampling", "best_of_n", "tiny"])
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
