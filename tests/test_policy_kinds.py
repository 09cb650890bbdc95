"""Policies of an author's own: their kind on disk, their KL by what they can do, modules of their own, plug-ins."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import prefzoo
from conftest import SMALL
from prefzoo import plugins, registry
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.models.policy_kinds import kl_to_start, write_policy_file
from prefzoo.recipe.check_recipe import load
from prefzoo.types import Completion

ROOT = Path(__file__).parents[1]
OWN_HEAD = ROOT / "docs" / "examples" / "own_head.py"


@pytest.fixture
def forgets():
    """What a test registers is forgotten afterwards."""
    before = registry.registered(), registry.registered_policies()
    yield
    registry.restore(*before)
    plugins._sources.clear()


class Fixed:
    """A policy that gives every reply, and each of its tokens, the same log-probability."""

    def __init__(self, each: float) -> None:
        self.each = each

    def sample(self, prompts, generation, seed, n=1, ledger=None, progress=None):
        return [[Completion("yes", (1, 2), True)] * n for _ in prompts]

    def save(self, folder: Path) -> None:
        write_policy_file(folder, "fixed", "somebody/start", each=self.each)

    @classmethod
    def load(cls, folder: Path, start: str, content: dict) -> Fixed:
        assert start == "somebody/start"
        return cls(content["each"])

    def log_probabilities(self, prompts, completions, temperature=1.0):
        return [[self.each / temperature] * len(completion.token_ids) for completion in completions]


class Bounded(Fixed):
    def kl_to_start(self, prompts, completions, temperature=1.0):
        return [0.25] * len(completions)


def test_a_registered_kind_comes_back_from_disk(forgets, tmp_path) -> None:
    prefzoo.register_policy("fixed", Fixed)
    prefzoo.register_policy("fixed", Fixed)  # the same class again, as in a notebook
    Fixed(-0.5).save(tmp_path)
    policy = prefzoo.load_policy(tmp_path)
    assert isinstance(policy, Fixed) and policy.each == -0.5


def test_an_unknown_kind_is_named_with_what_is_known_and_what_to_do(forgets, tmp_path) -> None:
    Fixed(-0.5).save(tmp_path)
    with pytest.raises(PrefzooError, match=r"'fixed' is not registered.*known: adapter, best_of_n, model.*--plugin"):
        prefzoo.load_policy(tmp_path)


def test_a_kind_that_is_taken_or_lacks_a_method_is_refused(forgets) -> None:
    with pytest.raises(ValueError, match="'adapter' is taken by a built-in policy"):
        prefzoo.register_policy("adapter", Fixed)
    prefzoo.register_policy("fixed", Fixed)
    with pytest.raises(ValueError, match=r"'fixed' is taken by test_policy_kinds\.Fixed"):
        prefzoo.register_policy("fixed", Bounded)
    with pytest.raises(ValueError, match="has no method load, sample, save"):
        prefzoo.register_policy("empty", object)


def test_a_policy_gets_its_kl_by_what_it_can_do() -> None:
    prompts, replies = [[{"role": "user", "content": "a"}]], [Completion("yes", (1, 2), True)]
    start = lambda: Fixed(-0.5)  # noqa: E731
    assert kl_to_start(Fixed(-0.25), prompts, replies, 1.0, start) == [0.5]
    assert kl_to_start(Fixed(-0.25), prompts, replies, 0.5, start) == [1.0]
    assert kl_to_start(Bounded(-0.25), prompts, replies, 1.0, start) == [0.25]

    class Mute:
        sample = save = None

    assert kl_to_start(Mute(), prompts, replies, 1.0, start) is None


POLICY = """
import json
from pathlib import Path
import prefzoo
from prefzoo.models.policy_kinds import load_policy, write_policy_file

class Echo:
    def __init__(self, inner):
        self.inner = inner
    def sample(self, *args, **more):
        return self.inner.sample(*args, **more)
    def log_probabilities(self, *args, **more):
        return self.inner.log_probabilities(*args, **more)
    def save(self, folder):
        self.inner.save(folder / "inner")
        write_policy_file(folder, "echo", self.inner.start)
    @classmethod
    def load(cls, folder, start, content):
        return cls(load_policy(folder / "inner"))

prefzoo.register_policy("echo", Echo)
"""
ALGORITHM = '''
from dataclasses import dataclass
from typing import ClassVar

@prefzoo.register("echoed")
@dataclass(frozen=True)
class Echoed(prefzoo.Algorithm):
    """SFT whose policy is of a kind of its own."""
    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    def train(self, bench):
        policy = Echo(prefzoo.get("sft", on="chosen").train(bench))
        policy.save(bench.out / "policy")
        return policy
'''


def prefzoo_command(*arguments: str) -> subprocess.CompletedProcess:
    code = "from prefzoo.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)


def test_a_recipe_names_its_plug_in_and_stages_and_commands_find_the_kind(forgets, tmp_path) -> None:
    (tmp_path / "echo.py").write_text(POLICY + ALGORITHM)
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(
        "extends: base\nplugins: [echo.py]\nalgorithms: {echoed: {}, sft: {on: chosen}}\nseeds: 1\n"
    )
    out = tmp_path / "run"
    found = prefzoo.compare(str(recipe), sets=SMALL, out=out)
    assert {label: each.status for label, each in found.algorithms.items()} == dict.fromkeys(
        ["start", "echoed", "sft"], "ok"
    )
    measured = {label: each.seeds["0"].metrics for label, each in found.algorithms.items()}
    assert measured["echoed"]["gold"] == measured["sft"]["gold"]
    # The same policy: its log-ratio is an estimate of what SFT's tables give exactly.
    assert measured["echoed"]["kl"] == pytest.approx(measured["sft"]["kl"], abs=1.0)
    plugin = str(tmp_path / "echo.py")
    assert found.call is not None and found.call.plugins == []  # the recipe names it
    lost = prefzoo_command("sample", str(out), "Hello")
    assert lost.returncode == 2 and "'echo' is not registered" in lost.stderr and "--plugin" in lost.stderr
    assert prefzoo_command("sample", str(out), "Hello", "--plugin", plugin).returncode == 0
    refused = prefzoo_command("export", str(out), "echoed", "--to", str(tmp_path / "to"), "--plugin", plugin)
    assert refused.returncode == 2 and "not one model" in refused.stderr
    assert prefzoo_command("report", str(out)).returncode == 0


def test_a_plug_in_of_a_recipe_that_fails_is_told_with_its_place(forgets, tmp_path) -> None:
    (tmp_path / "broken.py").write_text("import prefzoo\n1 / 0\n")
    recipe = tmp_path / "mine.yaml"
    recipe.write_text("extends: quickstart\nplugins:\n- broken.py\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:2: plugins: .*broken\.py:2: ZeroDivisionError"):
        load(str(recipe))
    recipe.write_text("extends: quickstart\nplugins: [missing.py]\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:2: plugins: .*missing\.py: there is no such file"):
        load(str(recipe))
    recipe.write_text("extends: quickstart\nplugins: broken.py\n")
    with pytest.raises(RecipeError, match=r"mine.yaml:2: plugins: .*list"):
        load(str(recipe))


@pytest.mark.parametrize("command", ["data", "audit-judge", "schema", "sample", "export", "report"])
def test_the_command_takes_plug_ins(command, tmp_path) -> None:
    broken = tmp_path / "broken.py"
    broken.write_text("1 / 0\n")
    arguments = {
        "data": ["quickstart"], "audit-judge": ["quickstart"], "schema": [], "sample": ["x", "y"],
        "export": ["x", "dpo", "--to", "z"], "report": ["x"],
    }  # fmt: skip
    done = prefzoo_command(command, *arguments[command], "--plugin", str(broken))
    assert done.returncode == 2 and "broken.py:1: ZeroDivisionError" in done.stderr


def test_the_schema_knows_the_settings_of_a_plug_in(tmp_path) -> None:
    plugin = tmp_path / "echo.py"
    plugin.write_text(POLICY + ALGORITHM)
    done = prefzoo_command("schema", "--plugin", str(plugin))
    assert done.returncode == 0, done.stderr
    assert "algorithm:echoed" in json.loads(done.stdout)["$defs"]
