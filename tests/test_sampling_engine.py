"""vLLM as the engine of a comparison: what it is asked and refuses, how rollouts are corrected, how servers end."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from filelock import FileLock, Timeout
from tests.conftest import worded
from tests.fake_vllm import FakeVllm, running_vllm
from tests.serving import drawn_adapter

from prefzoo import registry
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.ledger import Ledger
from prefzoo.models import vllm_sampling, vllm_server
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.vllm_client import VllmClient
from prefzoo.models.vllm_watch import is_alive
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe import engine_check
from prefzoo.run.stage_graph import make_plan
from prefzoo.settings import Adapter, Generation, VllmServer
from prefzoo.trainers.vllm_rollouts import correct, reply_ratios

PROMPTS = [[{"role": "user", "content": text}] for text in ("What does the mug cost?", "When do you open?", "Hello")]


@pytest.fixture(scope="module")
def fake():
    with running_vllm() as server:
        yield server


@pytest.fixture(autouse=True)
def sound(fake: FakeVllm):
    vllm_sampling._servers.clear()
    fake.asked.clear()
    fake.shift, fake.tokens_off, fake.takes_adapters, fake.dies_after = 0.0, 0, True, None
    fake.takes_weights, fake.replaced, fake.forgets = True, 0, 1


def of(fake: FakeVllm, **more: Any) -> Generation:
    return Generation(max_new_tokens=16, engine="vllm", vllm=VllmServer(url=fake.url), **more)


@pytest.fixture(scope="module")
def policies(tmp_path_factory) -> dict[str, LanguageModelPolicy]:
    """The start, and one with an adapter."""
    folder = drawn_adapter(tmp_path_factory.mktemp("adapter") / "policy", 3)
    return {"start": LanguageModelPolicy.from_start(str(MODEL_DIR)), "adapted": load_policy(folder)}


@pytest.mark.parametrize("name", ["start", "adapted"])
def test_a_server_gets_tokens_and_gives_the_policys_own_replies_and_charges(name, policies, fake) -> None:
    policy, charged, plain = policies[name], Ledger(), Ledger()
    replies = policy.sample(PROMPTS, of(fake, temperature=0), 1, n=2, ledger=charged)
    same = policy.sample(PROMPTS, Generation(max_new_tokens=16, temperature=0), 1, n=2, ledger=plain)
    assert replies == same and charged == plain
    bodies = [body for body in fake.asked if body["max_tokens"] == 16 and body["n"] == 1]
    assert sorted(map(policy.render, PROMPTS)) == sorted(body["prompt"] for body in bodies[-3:])
    assert not fake.adapters and fake.asked[0]["model"] in fake.loaded, "forgotten afterwards"


def test_each_prompt_has_a_seed_of_its_own_and_a_seed_gives_the_same_again(policies, fake) -> None:
    first, again, other = (policies["adapted"].sample(PROMPTS, of(fake), seed, n=3) for seed in (1, 1, 2))
    assert first == again != other
    bodies = [body for body in fake.asked if body["n"] == 3][:3]
    assert len({body["seed"] for body in bodies}) == 3 and len({reply.text for reply in first[0]}) > 1
    neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0, "ignore_eos": True, "logprobs": 0}
    assert neutral.items() <= bodies[0].items() and bodies[0]["stop_token_ids"] == policies["adapted"].eos_ids


def test_with_its_adapter_off_a_policy_is_sampled_as_the_start(policies, fake) -> None:
    with policies["adapted"].as_start() as start:
        replies = start.sample(PROMPTS, of(fake, temperature=0), 0)
    assert replies == policies["start"].sample(PROMPTS, Generation(max_new_tokens=16, temperature=0), 0)


def test_a_server_with_other_weights_or_raw_probabilities_is_refused_before_anything_is_sampled(policies, fake) -> None:
    fake.shift = 0.01
    with pytest.raises(PrefzooError, match=r"0\.01 nats away .* 0\.001 is allowed.*processed_logprobs"):
        policies["start"].sample(PROMPTS, of(fake), 0)
    assert len(fake.asked) == vllm_sampling.PROBES and not fake.adapters


def test_a_server_with_another_tokenizer_or_without_adapters_is_refused(policies, fake) -> None:
    fake.tokens_off = 1
    with pytest.raises(PrefzooError, match="another tokenizer than the start"):
        policies["start"].sample(PROMPTS, of(fake), 0)
    fake.tokens_off, fake.takes_adapters = 0, False
    with pytest.raises(PrefzooError, match=r"does not take the policy's adapter.*404.*--enable-lora"):
        policies["start"].sample(PROMPTS, of(fake), 0)
    assert fake.asked == []


def test_a_server_that_is_lost_or_never_there_is_told(policies, fake, monkeypatch) -> None:
    fake.dies_after = 4
    with pytest.raises(PrefzooError, match=r"vLLM was lost while it sampled.*the same command goes on"):
        policies["start"].sample(PROMPTS * 4, of(fake), 0)
    monkeypatch.setattr(vllm_server, "ANSWERS_SECONDS", 0.0)
    nobody = Generation(engine="vllm", vllm=VllmServer(url="http://127.0.0.1:9"))
    with pytest.raises(PrefzooError, match=r"vllm.url: http://127.0.0.1:9 does not answer within 0 seconds"):
        policies["start"].sample(PROMPTS, nobody, 0)


def test_ratios_of_tokens_and_replies_are_those_worked_out_by_hand(make_bench) -> None:
    """Trained log-probabilities less the sampler's: 0, ln 2, ln 4 and, in the padding, 7."""
    bench = make_bench()
    old = torch.tensor([[-1.0, -1.0 + math.log(2)], [-1.0 + math.log(4), 7.0]])
    batch = {"completion_mask": torch.tensor([[1, 1], [1, 0]]), "old_per_token_logps": old}
    batch["sampling_per_token_logps"] = torch.full((2, 2), -1.0)
    trainer = SimpleNamespace(vllm_importance_sampling_clip_max=3.0, vllm_importance_sampling_mode="token_truncate")
    for _ in range(2):  # sums go on over rollouts
        correct(trainer, batch, bench)
    found = bench.report["importance_sampling"]
    assert found["count"] == 6 and found["truncated_share"] == pytest.approx(1 / 3)
    assert found["mean_ratio"] == pytest.approx((1 + 2 + 4) / 3)
    assert found["mean_difference"] == pytest.approx(math.log(8) / 3)
    assert found["largest_difference"] == pytest.approx(math.log(4))

    trained, sampled = torch.tensor([-2.0, -2.0, -2.0]), torch.tensor([-2.0, -2.0 - math.log(2), -9.0])
    assert reply_ratios(trained, sampled).tolist() == pytest.approx([1.0, 2.0, 3.0])
    drawn = [SimpleNamespace(logprobs=(p / 2, p / 2)) for p in sampled.tolist()]
    trainer.vllm_generation = SimpleNamespace(drawn=drawn)
    rloo = {"completion_mask": torch.ones(3, 2), "old_logps": trained, "advantages": torch.tensor([1.0, -1.0, 0.5])}
    other = make_bench(name="other")
    correct(trainer, rloo, other)
    assert rloo["advantages"].tolist() == pytest.approx([1.0, -2.0, 1.5])
    assert other.report["importance_sampling"]["truncated_share"] == pytest.approx(1 / 3)


@pytest.mark.parametrize("name", ["grpo", "rloo", "ppo", "online_dpo"])
def test_rollouts_come_from_the_weights_of_the_step(name, make_bench, fake) -> None:
    generation = of(fake, temperature=0.7).model_copy(update={"max_new_tokens": 4, "unfinished": "keep"})
    bench = make_bench().replace(generation=generation, reward=worded, judge=Longer())
    loaded = len(fake.loaded)
    registry.get(name).train(bench)
    steps = 3  # 24 prompts, 8 a step
    assert len(fake.loaded) - loaded == steps and not fake.adapters
    assert bench.ledger.generated_tokens > 0
    if name != "online_dpo":  # which learns from no ratio
        found = bench.report["importance_sampling"]
        assert found["of"] == ("reply" if name == "rloo" else "token")
        assert found["truncated_share"] == 0 and found["mean_ratio"] == pytest.approx(1, abs=1e-4)
        assert 0 < found["largest_difference"] < 1e-3


@pytest.fixture
def one_model_at_a_time(fake, monkeypatch, tmp_path):
    """The server as one of a comparison whose policies are whole models."""
    server = vllm_server.Server(VllmClient(fake.url), turn=FileLock(tmp_path / "turn.lock"))
    monkeypatch.setattr(vllm_server, "serving", lambda *_: server)
    return server


def test_whole_models_take_turns_on_a_server(policies, fake, one_model_at_a_time, monkeypatch, tmp_path) -> None:
    whole = load_policy(drawn_adapter(tmp_path / "policy", 3)).merged()
    fake.forgets = 3  # keys and values of the weights before
    turns = []
    reload = VllmClient.replace_weights
    monkeypatch.setattr(
        VllmClient, "replace_weights", lambda *a: (turns.append(one_model_at_a_time.turn.is_locked), reload(*a))
    )
    greedy = Generation(max_new_tokens=16, temperature=0)
    for policy in (whole, policies["start"], whole):
        assert policy.sample(PROMPTS, of(fake, temperature=0), 0) == policy.sample(PROMPTS, greedy, 0)
    assert turns == [True] * 3 and fake.replaced == 3 and not one_model_at_a_time.turn.is_locked
    with pytest.raises(PrefzooError, match=r"holds whole models here .* is an adapter"):
        policies["adapted"].sample(PROMPTS, of(fake), 0)
    fake.takes_weights = False
    with pytest.raises(PrefzooError, match=r"collective_rpc: 404"):
        whole.sample(PROMPTS, of(fake), 0)
    assert not one_model_at_a_time.turn.is_locked


@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_rollouts_of_full_fine_tuning_come_from_the_weights_of_the_step(
    name, make_bench, fake, one_model_at_a_time
) -> None:
    generation = of(fake, temperature=0.7).model_copy(update={"max_new_tokens": 4, "unfinished": "keep"})
    adapter = Adapter(type="full")
    bench = make_bench().replace(generation=generation, reward=worded, adapter=adapter)
    registry.get(name).train(bench)
    assert fake.replaced == 3, "24 prompts, 8 a step"
    found = bench.report["importance_sampling"]
    assert found["mean_ratio"] == pytest.approx(1, abs=1e-4) and 0 < found["largest_difference"] < 1e-3


class Longer:
    """Prefers the longer of two replies."""

    def __call__(self, prompts, first, second, questions=None) -> list[float]:
        return [1.0 if len(a) >= len(b) else 0.0 for a, b in zip(first, second, strict=True)]

    def report(self) -> dict[str, Any]:
        return {"questions": 0}


def problems(generation: dict[str, Any], **content: Any) -> list[str]:
    base = {"algorithms": {"dpo": {}}, "model": {"path": "lab"}}
    try:
        recipes.check({**base, **content, "generation": generation})
    except RecipeError as error:
        return error.problems
    return []


def test_what_vllm_cannot_do_is_refused_with_the_recipe(monkeypatch, tmp_path) -> None:
    url = {"engine": "vllm", "vllm": {"url": "http://localhost:8000"}}
    found = problems(url, start={"algorithm": "sft"})
    assert len(found) == 1 and "generation.vllm.url" in found[0] and "start: none" in found[0]
    found = problems(
        url,
        start="none",
        adapter={"use_dora": True, "modules_to_save": ["lm_head"], "r": 600},
        algorithms={"sac": {}, "ilql": {}, "grpo": {"trainer": {"use_vllm": True}}},
    )
    for words in ("adapter.use_dora", "adapter.modules_to_save", "rank 512", "algorithms.sac", "algorithms.ilql"):
        assert any(words in problem for problem in found), words
    assert sum("use_vllm" in problem for problem in found) == 2
    assert any("adapter.type: 'qlora'" in each for each in problems(url, start="none", adapter={"type": "qlora"}))
    (problem,) = problems(url, start="none", adapter={"type": "full"})
    assert "generation.vllm.url: whole models" in problem and "generation.vllm.python" in problem
    judge = {"verdict": "generated", "path": str(MODEL_DIR)}
    assert any(each.startswith("judge.path") for each in problems(url, start="none", judge=judge))
    assert problems(url, start="none") == []

    monkeypatch.setattr(engine_check, "find_spec", lambda name: None)
    assert any("not installed here" in each for each in problems({"engine": "vllm"}))
    python = {"engine": "vllm", "vllm": {"python": str(tmp_path / "none")}}
    assert any("is no interpreter" in each for each in problems(python))
    python["vllm"]["python"] = sys.executable
    assert any("has no vllm" in each for each in problems(python))
    both = {"engine": "vllm", "vllm": {"url": "http://a", "python": "/b"}}
    assert any("beside url" in each for each in problems(both, start="none"))
    assert any("is no address" in each for each in problems({"engine": "vllm", "vllm": {"url": "localhost"}}))
    assert any("engine 'transformers'" in each for each in problems({**url, "engine": "transformers"}, start="none"))


def test_trls_own_vllm_needs_the_package_and_a_gpu(monkeypatch) -> None:
    algorithms = {"grpo": {"trainer": {"use_vllm": True}}}
    monkeypatch.setattr(engine_check, "find_spec", lambda name: object())
    monkeypatch.setattr(engine_check, "may_have_gpu", lambda: False)
    (problem,) = problems({"engine": "transformers"}, algorithms=algorithms)
    assert problem.startswith("algorithms.grpo.trainer.use_vllm: true needs a GPU")
    monkeypatch.setattr(engine_check, "may_have_gpu", lambda: True)
    assert problems({"engine": "transformers"}, algorithms=algorithms) == []


def test_auto_is_vllm_only_with_a_gpu_and_vllm_and_policies_that_it_serves(monkeypatch) -> None:
    def engine(**content: Any) -> str:
        return recipes.check({"algorithms": {"dpo": {}}, **content}).generation.engine

    monkeypatch.setattr(engine_check, "may_have_gpu", lambda: False)
    monkeypatch.setattr(engine_check, "find_spec", lambda name: object())
    assert engine() == "transformers"
    monkeypatch.setattr(engine_check, "may_have_gpu", lambda: True)
    assert engine() == "vllm" and engine(adapter={"type": "full"}) == "transformers"
    assert engine(algorithms={"sac": {}}) == "transformers"
    monkeypatch.setattr(engine_check, "find_spec", lambda name: None)
    assert engine() == "transformers"


def test_where_a_server_is_changes_no_stage_and_the_engine_does(tmp_path) -> None:
    def train(**generation: Any) -> str:
        recipe = recipes.check({"algorithms": {"dpo": {}}, "start": "none"})
        block = recipe.generation.model_copy(update=generation)
        plan = make_plan(recipe.model_copy(update={"generation": block}), tmp_path)
        return plan.stages["train dpo seed 0"].folder.name

    here, there = (VllmServer(url=f"http://{host}") for host in ("a", "b"))
    assert train(engine="vllm", vllm=here) == train(engine="vllm", vllm=there)
    assert train(engine="vllm", vllm=VllmServer(arguments=["--x"])) != train(engine="vllm") != train()


SERVER = """\
#!{python}
import json, os, sys
from http.server import BaseHTTPRequestHandler, HTTPServer
if {fails}:
    sys.exit("no memory left for keys and values")
print("started with", *sys.argv[1:], flush=True)
print("other weights:", os.environ.get("VLLM_SERVER_DEV_MODE"), flush=True)
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        assert self.headers["authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        assert "PYTHONPATH" not in os.environ and os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "True"
        self.send_response(200); self.end_headers()
        self.wfile.write(json.dumps({{"data": [{{"id": "base", "parent": None}}]}}).encode())
    def log_message(self, *args): pass
port = int(sys.argv[sys.argv.index("--port") + 1])
HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def interpreter(folder: Path, fails: bool = False) -> str:
    """What stands for the interpreter of an environment with vllm."""
    file = folder / ("broken" if fails else "python")
    file.write_text(SERVER.format(python=sys.executable, fails=fails))
    file.chmod(0o755)
    return str(file)


@pytest.fixture
def hosting(tmp_path, monkeypatch):
    monkeypatch.setattr(vllm_server, "hosting", vllm_server.Hosting(tmp_path / "servers", rank=20))
    return vllm_server.hosting


def test_a_server_is_started_once_and_stopped_with_what_it_left(tmp_path, hosting) -> None:
    settings = VllmServer(python=interpreter(tmp_path), arguments=["--swap-space", 2])
    one, two = (vllm_server.serving(str(MODEL_DIR), "float32", settings, lambda *_: None) for _ in range(2))
    assert one.client.url == two.client.url and one.client.base() == "base"
    (record,) = hosting.folder.glob("*.json")
    assert record.stat().st_mode & 0o077 == 0, "it holds the server's key"
    content = json.loads(record.read_text())
    for words in (
        "--enable-lora --max-lora-rank 32",
        "--logprobs-mode processed_logprobs",
        "--swap-space 2",
        f"--model {MODEL_DIR}",
    ):
        assert words in one.said()
    children = psutil.Process(content["pid"]).children()
    vllm_server.stop_servers(hosting.folder)
    assert not is_alive(content["pid"], content["began"]) and not any(child.is_running() for child in children)
    assert [file.suffix for file in hosting.folder.iterdir()] == [".log"]
    assert one.client.problem() is not None


def test_a_server_of_whole_models_is_one_of_its_own_and_takes_other_weights(tmp_path, hosting) -> None:
    settings = VllmServer(python=interpreter(tmp_path))
    usual = vllm_server.serving(str(MODEL_DIR), "float32", settings, lambda *_: None)
    hosting.whole, hosting.rank = True, 600  # no adapter has it
    one, two = (vllm_server.serving(str(MODEL_DIR), "float32", settings, lambda *_: None) for _ in range(2))
    assert one.client.url == two.client.url != usual.client.url and usual.turn is None
    assert "other weights: 1" in one.said() and "--enable-lora" not in one.said()
    assert "other weights: None" in usual.said()
    with one.turn, pytest.raises(Timeout):
        two.turn.acquire(timeout=0)
    vllm_server.stop_servers(hosting.folder)
    assert {file.suffix for file in hosting.folder.iterdir()} == {".log"}


def test_a_server_that_ends_is_told_with_its_last_lines(tmp_path, hosting) -> None:
    settings = VllmServer(python=interpreter(tmp_path, fails=True))
    with pytest.raises(PrefzooError, match=r"vLLM ended before it answered(?s:.*)no memory left for keys and values"):
        vllm_server.serving(str(MODEL_DIR), "float32", settings, lambda *_: None)


@pytest.mark.faults
def test_a_server_ends_with_the_process_that_it_is_for_and_with_its_watch(tmp_path) -> None:
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom prefzoo.models import vllm_server as v\n"
        "from prefzoo.settings import VllmServer\nv.hosting.folder = Path(sys.argv[2])\n"
        "v.serving('.', 'float32', VllmServer(python=sys.argv[1]), lambda *_: None)\n"
        "print('ready', flush=True); signal.pause()\n"
    )
    for victim in ("owner", "watch"):
        folder = tmp_path / victim
        command = [sys.executable, "-c", script, interpreter(tmp_path), str(folder)]
        owner = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert owner.stdout is not None and owner.stdout.readline() == "ready\n"
        (record,) = folder.glob("*.json")
        watch = psutil.Process(json.loads(record.read_text())["pid"])
        (server,) = watch.children()
        os.kill(owner.pid if victim == "owner" else watch.pid, signal.SIGKILL)
        deadline = time.monotonic() + 20
        while server.is_running() and server.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        owner.kill()
        owner.wait()
