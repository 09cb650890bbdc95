"""This package's source is part of every stage's key: which edits make which stages anew, and what stays readable."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import prefzoo
from conftest import SMALL
from prefzoo.commands.comparison import rebuild
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run import cache
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages.shared_work import SHARED_WORK, SharedWork


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    """A copy of the package's source, to be edited."""
    skipped = shutil.ignore_patterns("__pycache__", "*.safetensors")
    return Path(shutil.copytree(cache.PACKAGE, tmp_path_factory.mktemp("source") / "prefzoo", ignore=skipped))


REDONE = ["zoo/dpo.py", "trainers/curves.py", "data/splits.py", "settings.py", "run/executor.py", "new.py",
          "judges/prompts/pairwise-1.jinja"]  # fmt: skip
NOT_REDONE = ["report/cost.py", "report/templates/report.html.jinja", "results/collect.py", "tracking/tracker.py",
              "commands/comparison.py", "conformance/suite.py", "cli/run_commands.py", "py.typed",
              "judges/constitutions/lab.yaml", "recipes/quickstart.yaml", "__pycache__/a.pyc"]  # fmt: skip


@pytest.mark.parametrize(("edited", "redone"), [*((f, True) for f in REDONE), *((f, False) for f in NOT_REDONE)])
def test_an_edit_of_what_stages_run_counts_and_one_of_what_reads_their_results_does_not(
    package, edited, redone
) -> None:
    file = package / edited
    before = file.read_bytes() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_bytes((before or b"") + b"\n# edited\n")
    cache.source_hash.cache_clear()
    assert (cache.source_hash(package) != cache.source_hash()) is redone
    file.unlink()
    if before is not None:
        file.write_bytes(before)
    cache.source_hash.cache_clear()
    assert cache.source_hash(package) == cache.source_hash(), "a copy has the key of what it was copied from"


def test_another_source_makes_every_stage_anew_and_reports_what_is_there(
    small_run, tmp_path, bench_of, monkeypatch
) -> None:
    results, out = small_run
    copy = tmp_path / "run"
    shutil.copytree(out, copy, symlinks=True)
    recipe = recipes.load("quickstart", [*SMALL, "seeds=2"])
    assert all(stage.done for stage in make_plan(recipe, copy).stages.values())
    first = bench_of("first")
    drawn = first.sample(start_of(first), first.data.prompts[:2], 1, seed=1)
    monkeypatch.setattr(cache, "source_hash", lambda: "edited")
    assert not any(stage.done for stage in make_plan(recipe, copy).stages.values())
    assert rebuild(copy).model_dump() == results.model_dump(), "its report is made of the stages that the run names"
    second = bench_of("second")
    assert second.sample(start_of(second), second.data.prompts[:2], 1, seed=1) == drawn
    assert "reused" not in second.report, "what trials share is made anew, too"


def test_a_comparison_goes_on_with_another_source_in_the_same_folder(tmp_path, monkeypatch) -> None:
    sets = [*SMALL, "start=none", "reward.type=random"]
    first = prefzoo.compare("quickstart", ["best_of_n"], seeds=1, sets=sets, out=tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.glob("*/*") if path.is_dir()}
    monkeypatch.setattr(cache, "source_hash", lambda: "edited")
    again = prefzoo.compare("quickstart", ["best_of_n"], seeds=1, sets=sets, out=tmp_path)
    stages = {path for path in tmp_path.glob("*/*") if path.is_dir() and path.parent.name in ("stages", "trials")}
    assert len(stages) == 2 * len([path for path in made if path in stages]), "each stage has a second folder"
    assert all(path.stat().st_mtime_ns == at for path, at in made.items() if path in stages)
    assert again.algorithms["best_of_n"].summary == first.algorithms["best_of_n"].summary


@pytest.fixture
def bench_of(make_bench, tmp_path):
    return lambda name: make_bench(name=name).replace(reuse=SharedWork(tmp_path / SHARED_WORK), report={})


def start_of(bench):
    from prefzoo.models.language_model import LanguageModelPolicy

    return LanguageModelPolicy.start_of(bench)
