"""Algorithms from other packages and from files: found, told apart, and told about when they are broken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import prefzoo
from prefzoo import plugins, registry
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run.stage_graph import make_plan

SOUND = """
from __future__ import annotations
from dataclasses import dataclass
from typing import Annotated, ClassVar
from pydantic import Field
import prefzoo

@prefzoo.register("{name}")
@dataclass(frozen=True)
class Mine(prefzoo.Algorithm):
    '''DPO under another name.'''
    needs: ClassVar[frozenset[str]] = frozenset({{"preferences"}})
    beta: Annotated[float, Field(gt=0)] = 0.2

    def train(self, bench):
        return prefzoo.get("dpo", beta=self.beta).train(bench)
"""


@pytest.fixture
def plugin(tmp_path):
    """Writes a plug-in file; what it registered is forgotten afterwards."""
    before = registry.registered()

    def write(source: str = SOUND.format(name="mine"), name: str = "plugin.py") -> Path:
        file = tmp_path / name
        file.write_text(source)
        return file

    yield write
    registry.restore(before)
    plugins._sources.clear()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Makes installed packages, each offering algorithms by entry point."""

    def install(package: str, points: str, source: str) -> None:
        site = tmp_path / f"site-{package}"
        info = site / f"{package}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[prefzoo.algorithms]\n{points}\n")
        (site / f"{package}.py").write_text(source)
        monkeypatch.syspath_prepend(str(site))

    return install


def cli(*arguments: str) -> subprocess.CompletedProcess:
    code = "from prefzoo.cli import main; main()"
    environment = {"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin", "COLUMNS": "200"}
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment)


def test_a_file_is_run_once_and_its_algorithm_has_checked_parameters(plugin) -> None:
    file = plugin()
    plugins.load_plugins([file])
    first = registry.load("mine")
    plugins.load_plugins([file])
    assert registry.load("mine") is first
    assert prefzoo.get("mine", beta=0.3).beta == 0.3
    with pytest.raises(RecipeError, match="Did you mean 'beta'"):
        prefzoo.get("mine", bta=0.3)


def test_an_edit_of_the_file_is_part_of_the_stage_key(plugin, tmp_path) -> None:
    def folders() -> dict[str, Path]:
        plugins.load_plugins([file])
        plan = make_plan(recipes.load("quickstart", ["seeds=1"], ["mine"]), tmp_path)
        return {name: stage.folder for name, stage in plan.stages.items()}

    file = plugin()
    before = folders()
    assert folders() == before
    file.write_text(file.read_text() + "\n# edited\n")
    changed = {name for name, folder in folders().items() if before[name] != folder}
    assert changed == {"train mine seed 0", "evaluate mine seed 0"}


def test_stage_processes_run_what_this_process_read(plugin, tmp_path) -> None:
    """Annotations as text, which are looked up in the module, and an edit after loading that must not be seen."""
    file = plugin()
    plugins.load_plugins([file])
    file.write_text("raise SystemExit('the edited file was run')")
    sets = ["budget.prompts=16", "evaluation.prompts=4", "generation.max_new_tokens=8", "algorithms.mine.beta=0.7"]
    found = prefzoo.compare({"algorithms": {"mine": {}}, "start": "none"}, seeds=1, sets=sets, out=tmp_path / "run")
    assert found.algorithms["mine"].error is None
    assert found.algorithms["mine"].seeds["0"].ledger["trained_tokens"] > 0
    assert found.call is not None
    assert (found.call.folder, found.call.registered) == (str(Path.cwd()), {"mine": str(file.resolve())})
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"prefzoo compare recipe.yaml --plugin {file.resolve()}</code>" in page and str(Path.cwd()) in page


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("import prefzoo\n\n1 / 0\n", r"plugin.py:3: ZeroDivisionError: division by zero"),
        ("def f():\n    x = (\n", r"plugin.py:2: SyntaxError"),
        ("import no_such_module\n", r"plugin.py:1: ModuleNotFoundError"),
        ("import sys\nsys.exit(3)\n", r"plugin.py:2: SystemExit"),
        ("x = 1\n", r"registers no algorithm"),
        (SOUND.format(name="dpo"), r"plugin.py:8: ValueError: the name 'dpo' is taken by a built-in algorithm"),
        (SOUND.format(name="mine") + "\nraise KeyError('late')\n", r"plugin.py:18: KeyError: 'late'"),
    ],
)
def test_a_broken_file_is_told_in_one_sentence_and_leaves_nothing_behind(plugin, source, says) -> None:
    before = registry.registered()
    with pytest.raises(PrefzooError, match=says) as caught:
        plugins.load_plugins([plugin(source)])
    assert len(str(caught.value).splitlines()) == 1
    assert registry.registered() == before


def test_a_missing_file_and_two_files_of_one_name(plugin) -> None:
    with pytest.raises(PrefzooError, match="no such file"):
        plugins.load_plugins(["nowhere.py"])
    with pytest.raises(PrefzooError, match=r"b\.py:8: ValueError: the name 'mine' is taken by prefzoo_plugin_a_"):
        plugins.load_plugins([plugin(name="a.py"), plugin(name="b.py")])


def test_a_broken_package_is_listed_with_its_error_and_stops_nothing_else(packages) -> None:
    packages("badpack", "bad = badpack:Bad\nworse = badpack_is_not_there:Worse", "raise RuntimeError('torn')")
    shown = cli("ls")
    assert shown.returncode == 0, shown.stderr
    assert "package badpack cannot be loaded: RuntimeError: torn" in shown.stdout
    assert "ModuleNotFoundError" in shown.stdout and "Direct preference" in shown.stdout
    with pytest.raises(RecipeError, match=r"algorithms.bad: .*RuntimeError: torn"):
        recipes.load("quickstart", [], ["bad", "dpo"])
    assert recipes.load("quickstart", [], ["dpo"])


def test_names_that_clash_are_told(packages, plugin) -> None:
    source = SOUND.format(name="x").replace('@prefzoo.register("x")', "")
    packages("one", "dpo = one:Mine\nshared = one:Mine\nmine = one:Mine", source)
    packages("two", "shared = two:Mine", source)
    assert registry.load("dpo").__module__ == "prefzoo.zoo.dpo"
    assert registry.load("mine").__module__ == "one"
    with pytest.raises(PrefzooError, match="'shared' is offered by several packages: one, two"):
        registry.load("shared")
    (clash,) = registry.clashes()
    assert "package one" in clash and "'dpo'" in clash and "built-in" in clash
    with pytest.raises(PrefzooError, match="'mine' is taken by the package one"):
        plugins.load_plugins([plugin()])
    prefzoo.register("mine")(registry.load("mine"))  # the very class that its entry point names


def test_the_command_line_takes_plugins(plugin) -> None:
    file = str(plugin())
    assert "DPO under another name" in cli("ls", "--plugin", file).stdout
    assert cli("validate", "quickstart", "--set", "algorithms.mine.beta=1", "--plugin", file).returncode == 0
    assert cli("validate", "quickstart", "--set", "algorithms.mine.beta=1").returncode == 2
    broken = cli("ls", "--plugin", str(plugin("1 / 0", "broken.py")))
    assert broken.returncode == 2 and "broken.py:1: ZeroDivisionError" in broken.stderr
    assert "Traceback" not in broken.stderr
