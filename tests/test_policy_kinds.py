"""Policies of an author's own: their kind on disk, their KL by what they can do, modules of their own, plug-ins."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import prefzoo
from conftest import BRIEF
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


def test_stage_processes_and_packages_bring_kinds(forgets, tmp_path, monkeypatch) -> None:
    registry.adopt({}, {"fixed": Fixed})
    registry.adopt({}, {"fixed": Bounded})  # what a plug-in registered here already stays
    assert registry.policy_class("fixed") is Fixed
    info = tmp_path / "kinds-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: kinds\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[prefzoo.policies]\npath = pathlib:Path\ngone = pathlib:Nothing\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert registry.policy_class("path") is Path
    with pytest.raises(PrefzooError, match="'gone', pathlib:Nothing, cannot be loaded: AttributeError"):
        registry.policy_class("gone")
    with pytest.raises(PrefzooError, match="known: adapter, best_of_n, fixed, gone, model, path"):
        registry.policy_class("stranger")


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
    recipe.write_text("extends: base\nplugins: [echo.py]\nalgorithms: {echoed: {}, sft: {on: chosen}}\nseeds: 1\n")
    out = tmp_path / "run"
    found = prefzoo.compare(str(recipe), sets=BRIEF, out=out)
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


@pytest.fixture
def value_filter(forgets):
    plugins.load_plugins([OWN_HEAD])
    return lambda **settings: prefzoo.get("value_filter", candidates=3, **settings)


def weights_in(folder: Path) -> dict:
    from safetensors.torch import load_file

    files = sorted(folder.rglob("*.safetensors"))
    return {f"{file.name} {key}": weight for file in files for key, weight in load_file(file).items()}


def same(one: dict, other: dict) -> bool:
    return one.keys() == other.keys() and bool(one) and all(bool((one[key] == other[key]).all()) for key in one)


@pytest.mark.parametrize(
    "adapter", ["lora", *(pytest.param(adapter, marks=pytest.mark.faults) for adapter in ("qlora", "full"))]
)
def test_a_head_of_ones_own_learns_is_saved_and_is_resumed(adapter, value_filter, adapted, monkeypatch) -> None:
    import torch

    from prefzoo.settings import Generation
    from prefzoo.trainers import checkpoints

    monkeypatch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
    bench = adapted(adapter, batch_size=4).replace(milestones=1)
    policy = value_filter().train(bench)
    assert type(policy).__name__ == "ValueFiltered" and policy.settings == {"candidates": 3}
    files = {str(file.relative_to(bench.out / "policy")) for file in (bench.out / "policy").rglob("*.*")}
    assert {"policy.json", "modules.safetensors", "language_model/policy.json"} <= files
    kept = weights_in(bench.out / "policy")
    head = kept["modules.safetensors value_head.weight"]
    early = weights_in(bench.out / "milestones" / "00" / "policy")["modules.safetensors value_head.weight"]
    assert not torch.equal(head, early), "it goes on learning"
    model = "model.safetensors" if adapter == "full" else "adapter_model.safetensors"
    assert not [key for key in kept if key.startswith(model) and "value_head" in key], "a plain policy has no head"
    prompts = bench.data.prompts[:3]
    again = prefzoo.load_policy(bench.out / "policy")
    generation = Generation(max_new_tokens=6)
    replies = policy.sample(prompts, generation, seed=1, n=2)
    assert [len(each) for each in replies] == [2, 2, 2]
    assert again.sample(prompts, generation, seed=1, n=2) == replies
    first = [each[0] for each in replies]
    assert again.kl_to_start(prompts, first) == policy.kl_to_start(prompts, first)

    class Killed(BaseException):
        pass

    def progress(what: str, done: int, total: int) -> None:
        if what == "WithHead" and done == 3:
            raise Killed

    out = bench.out.with_name("resumed")
    out.mkdir()
    with pytest.raises(Killed):
        value_filter().train(bench.replace(out=out, ledger=prefzoo.Ledger(), report={}, memory={}, progress=progress))
    resumed = bench.replace(out=out, ledger=prefzoo.Ledger(), report={}, memory={})
    value_filter().train(resumed)
    assert resumed.report["resumed_at_step"] == 2
    assert same(weights_in(out / "policy"), kept)
    assert resumed.ledger.forward_tokens == bench.ledger.forward_tokens > 0


def test_a_later_round_goes_on_with_the_head(value_filter, make_bench) -> None:
    bench = make_bench()
    first = value_filter().train(bench)
    later = make_bench(name="later", learning_rate=0.0)
    value_filter().train(later.replace(latest=first))
    assert same(weights_in(bench.out / "policy"), weights_in(later.out / "policy"))


def test_a_kind_that_is_not_registered_is_refused_before_it_is_trained(value_filter, make_bench) -> None:
    algorithm, bench = value_filter(), make_bench()
    registry.restore(registry.registered(), {})
    with pytest.raises(PrefzooError, match="'value_filtered' is not registered"):
        algorithm.train(bench)
    assert not (bench.out / "policy").exists() and bench.ledger.trained_tokens == 0


def test_weights_of_a_head_are_counted_as_trained(value_filter, make_bench) -> None:
    bench = make_bench()
    value_filter().train(bench)
    plain = make_bench(name="plain")
    prefzoo.get("dpo", trainer={"precompute_ref_log_probs": False}).train(plain)
    trained = [trial.report["model"]["used"]["trainable_parameters"] for trial in (bench, plain)]
    hidden = json.loads((Path(bench.start) / "config.json").read_text())["hidden_size"]
    assert trained[0] == trained[1] + hidden + 1
    assert bench.report["model"]["differs"] == []
    assert bench.ledger.trained_tokens == plain.ledger.trained_tokens
    assert bench.ledger.forward_tokens > plain.ledger.forward_tokens  # the head's own passes


TWO = """
import json, os, sys
from pathlib import Path
import torch
import prefzoo
from prefzoo import plugins
from prefzoo.lab import bench
from safetensors.torch import load_file

plugins.load_plugins([sys.argv[1]])
trial = bench(rows=16, out=Path(sys.argv[2]))
policy = prefzoo.get("value_filter").train(trial)
world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
sums = {name: weight.double().sum().item() for name, weight in policy.policy.model.named_parameters() if "lora" in name}
ended = {"world": world, "head": policy.modules["value_head"].weight.tolist(), "sums": sums}
(trial.out / f"ended-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(ended))
"""


@pytest.mark.processes
def test_two_processes_train_the_head_that_one_trains(tmp_path) -> None:
    from test_distributed import launched

    script = tmp_path / "script.py"
    script.write_text(TWO)
    heads = {}
    for processes in (1, 2):
        out = tmp_path / str(processes)
        launched([str(script), str(OWN_HEAD), str(out)], processes)
        ended = [json.loads((out / f"ended-{rank}.json").read_text()) for rank in range(processes)]
        assert [each["world"] for each in ended] == [processes] * processes
        assert all(each == ended[0] for each in ended)
        heads[processes] = ended[0]["head"][0]
    assert heads[2] == pytest.approx(heads[1], abs=2e-5, rel=1e-3)


@pytest.mark.long
def test_an_own_head_in_a_comparison_has_a_kl_and_answers_in_a_fresh_process(forgets, tmp_path) -> None:
    recipe = {
        "plugins": [str(OWN_HEAD)],
        "start": "none",
        "algorithms": {"value_filter": {"candidates": 2}},
        "seeds": 1,
    }
    out = tmp_path / "run"
    found = prefzoo.compare(recipe, sets=BRIEF, out=out)
    trial = found.algorithms["value_filter"]
    assert trial.error is None
    assert trial.seeds["0"].metrics["kl"] > 0
    answered = prefzoo_command("sample", str(out), "Hello", "--plugin", str(OWN_HEAD))
    assert answered.returncode == 0 and "value_filter" in answered.stdout, answered.stderr
    assert len(OWN_HEAD.read_text().splitlines()) <= 60


def test_the_lab_gives_a_ready_bench_without_torch(tmp_path) -> None:
    code = (
        "import sys, prefzoo.lab; b = prefzoo.lab.bench(rows=8); print(len(b.data.preferences), 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["8", "False"], done.stderr


@pytest.mark.parametrize("name", ["dpo", "grpo", "rlaif", "best_of_n"])
def test_a_bench_of_the_lab_trains_what_needs_preferences_a_reward_or_a_judge(name, tmp_path) -> None:
    from prefzoo import lab
    from prefzoo.settings import Adapter

    trial = lab.bench(rows=8, seed=1, out=tmp_path / "trial", milestones=0, adapter=Adapter(type="qlora", r=4))
    assert trial.loading["quantization"] == trial.adapter.quantization is not None
    policy = prefzoo.get(name).train(trial)
    prompts = trial.data.prompts
    replies = trial.sample(policy, prompts, n=1, seed=0)
    scores = trial.score(prompts, [reply[0].text for reply in replies])
    assert len(scores) == 8 and all(
        score == lab.gold(p[-1]["content"], r[0].text) for score, p, r in zip(scores, prompts, replies, strict=True)
    )
    assert trial.ledger.judge_calls > 0 or name != "rlaif"
    assert (tmp_path / "trial" / "policy" / "policy.json").is_file()


def test_changes_of_a_bench_reach_the_machinery_and_share_ledger_and_report() -> None:
    from prefzoo import lab

    trial = lab.bench(rows=4)
    other = trial.replace(seed=3, milestones=2)
    assert (other.seed, other.machinery.milestones, trial.machinery.milestones) == (3, 2, 0)
    assert other.ledger is trial.ledger and other.report is trial.report
    assert other.machinery.memory is trial.machinery.memory


def test_the_python_of_the_page_for_authors_runs(tmp_path) -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text(encoding="utf-8")
    (source,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    (tmp_path / "script.py").write_text(source)
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Ledger(" in done.stdout.splitlines()[-1]
    for name in re.findall(r"\]\((examples/[a-z_]+\.py)\)", text):
        assert (ROOT / "docs" / name).is_file(), name
