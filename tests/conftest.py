"""Shared fixtures: everything runs on the bundled lab model, without a network, and on the CPU unless
`PREFZOO_TEST_DEVICE=gpu` says otherwise."""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
from pathlib import Path
from typing import Any

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["DO_NOT_TRACK"] = "1"
os.environ["WANDB_MODE"] = "disabled"
if os.environ.get("PREFZOO_TEST_DEVICE", "cpu") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
else:
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what is computed twice is to be the same to the last bit

import pytest

from prefzoo.interface import Bench
from prefzoo.settings import Adapter, Budget, Generation, Training

HH_FILE = Path(__file__).parents[2] / "shared" / "data" / "hh-rlhf" / "harmless-base-1500.jsonl.gz"
BRIEF = ["budget.prompts=48", "evaluation.prompts=16", "generation.max_new_tokens=24"]
SMALL = [
    *BRIEF,
    "algorithms={sft: {}, dpo: {beta: 0.5}, rejection_sampling: {n: 4},"
    " random_choice: {algorithm: rejection_sampling, n: 4, keep: random}, best_of_n: {n: 4}}",
]
"""Settings under which a whole comparison takes seconds, of what is quick to train; nothing is learned."""
TRACKED = [*SMALL, "training.batch_size=4", "algorithms.rejection_sampling.iterations=2"]
"""As small, with enough steps for a curve, and a trial of two rounds."""
OFFLINE = [*TRACKED, "tracking.wandb.mode=offline"]
LABELS = ["dpo", "rejection_sampling"]


def representatives() -> list[str]:
    """Names of algorithms, one for each way to train. Losses on pairs differ in a formula alone, which
    `test_pairwise_losses` looks at: of them TRL's, one of our own with a reference, and one without. So do policy
    gradients, see `test_policy_gradients`: of them those that differ in what they are made of. XPO is trained as online
    DPO is."""
    from prefzoo import registry

    kept = ("dpo", "dpop", "simpo", "a2c", "grpo", "ppo", "reinforce", "rloo")
    families = {registry.load("dpo").family, registry.load("ppo").family}
    others = [name for name in registry.names() if registry.load(name).family not in families and name != "xpo"]
    return sorted([*kept, *others])


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two workers share the cores; a test that needs no torch does not wait for it."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)
        if "CUBLAS_WORKSPACE_CONFIG" in os.environ:
            torch.use_deterministic_algorithms(True, warn_only=True)


READ_PICTURES = {
    "test_report",
    "test_report_tables",
    "test_page",
    "test_old_results",
    "test_tracking",
    "test_judge_audit",
}
READ_PICTURES |= {"test_budgets", "test_compare"}


@pytest.fixture(autouse=True)
def pictures_only_where_they_are_read(request, monkeypatch) -> None:
    """Drawing takes a comparison of this size three seconds of a core."""
    if request.module.__name__ not in READ_PICTURES:
        monkeypatch.setattr("prefzoo.report.report_files.pictures", lambda results, curves: [])


@pytest.fixture(scope="session")
def lab_rows():
    """A few lab rows as the data stage makes them."""
    from prefzoo import lab
    from prefzoo.data.formats import Row

    pairs = lab.preferences("train", 24, 3)
    imitated = {d["id"]: d["completion"] for d in lab.demonstrations("train", 24, 3)}
    return [
        Row(
            p["id"],
            [{"role": "user", "content": p["prompt"]}],
            p["chosen"],
            p["rejected"],
            imitated[p["id"]],
            p["slice"],
        )
        for p in pairs
    ]


@pytest.fixture
def make_bench(tmp_path, lab_rows):
    """A bench on the lab model itself as the start."""
    from prefzoo.data.row_views import views_of
    from prefzoo.lab import MODEL_DIR

    def make(adapter: str = "lora", epochs: float = 1.0, name: str = "trial", **training) -> Bench:
        out = tmp_path / name
        out.mkdir(exist_ok=True)
        return Bench(
            start=str(MODEL_DIR),
            data=views_of(lab_rows),
            reward=None,
            adapter=Adapter(type=adapter, **({} if adapter == "full" else {"r": 4, "alpha": 8})),
            budget=Budget(prompts=24, epochs=epochs),
            generation=Generation(max_new_tokens=24),
            training=Training(**{"batch_size": 8, "learning_rate": 1e-3, **training}),
            seed=7,
            out=out,
        )

    return make


@pytest.fixture(scope="session")
def small_run(tmp_path_factory):
    """One small comparison with every algorithm, two seeds, shared by the tests that read its results. One worker makes
    it; the others take a copy, for some tests go on with it."""
    from prefzoo import compare

    out = tmp_path_factory.mktemp("runs") / "small"
    if "PYTEST_XDIST_WORKER" in os.environ:
        own = tmp_path_factory.getbasetemp()
        made = own.with_name("shared") / out.relative_to(own)  # as deep: policies name their start by a relative path
        made.parent.mkdir(parents=True, exist_ok=True)
        with made.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            compare("quickstart", seeds=2, sets=SMALL, out=made)
        shutil.copytree(made, out, symlinks=True)
    return compare("quickstart", seeds=2, sets=SMALL, out=out), out


def metrics(results: Any) -> dict[tuple[str, str], dict[str, float]]:
    return {(k, s): trial.metrics for k, each in results.algorithms.items() for s, trial in each.seeds.items()}


@pytest.fixture(scope="session")
def tracked(tmp_path_factory):
    """A comparison that was tracked offline, started in an empty folder."""
    from prefzoo import compare

    out, empty = tmp_path_factory.mktemp("tracked"), tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(empty)
        results = compare("quickstart", LABELS, seeds=2, sets=OFFLINE, out=out)
    assert not list(empty.iterdir())
    return results, out


@pytest.fixture
def copied(tracked, tmp_path):
    """The finished stages of `tracked`, of which nothing is logged yet."""
    out = tmp_path / "copy"
    shutil.copytree(tracked[1], out, ignore=shutil.ignore_patterns("wandb", "tracking.*"), symlinks=True)
    return out


@pytest.fixture
def short_pauses_and_no_key(monkeypatch) -> None:
    from openai import _base_client

    monkeypatch.setattr(_base_client, "INITIAL_RETRY_DELAY", 0.01)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


@pytest.fixture
def client_of(tmp_path):
    """Makes a client of a server (a `ChatServer`) whose answers are cached in the test's folder."""
    from prefzoo.judges.endpoint import EndpointClient
    from prefzoo.judges.judge_settings import EndpointSettings

    def make(server: Any, progress=None, **settings) -> EndpointClient:
        whole = {"base_url": server.url, "model": "m", "timeout": 10.0, "retries": 3, **settings}
        return EndpointClient(EndpointSettings(**whole), tmp_path / "answers", progress)

    return make


LORA = {"r": 4, "alpha": 8}
ADAPTERS: dict[str, dict[str, Any]] = {
    "full": {"type": "full"},
    "lora": LORA,
    "qlora": {"type": "qlora", **LORA},
    "dora": {"use_dora": True, "use_rslora": True, "init_lora_weights": "gaussian", **LORA},
    "qdora": {"type": "qlora", "use_dora": True, "modules_to_save": ["model.norm"], **LORA},
    "int8": {"type": "qlora", "quant_type": "int8", **LORA},
    "saved": {"modules_to_save": ["lm_head"], "target_modules": ["q_proj", "v_proj"], **LORA},
}


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> str:
    """A model as small as bitsandbytes quantizes, with the lab's tokenizer; its head is not tied to its embeddings."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    from prefzoo.lab import MODEL_DIR

    folder = tmp_path_factory.mktemp("base")
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=512,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=False,
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [tokenizer.eos_token_id, *range(200, 400)]  # so that replies do end
    torch.nn.init.uniform_(model.model.norm.weight, 0.5, 1.5)  # not whole numbers, which survive any rounding
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def worded(prompts, completions) -> list[float]:
    """A reward that any model can raise."""
    return [text.count("e") - len(text) / 20 for text in completions]


@pytest.fixture
def adapted(make_bench, base):
    """A bench for one of `ADAPTERS`, by name, on `base`."""
    from prefzoo.settings import Adapter, Generation

    def make(adapter: str, **training: Any):
        block = Adapter(**ADAPTERS[adapter])
        loading = {"dtype": "float32", "trust_remote_code": False, "quantization": block.quantization}
        made = make_bench(**training).replace(adapter=block, loading=loading, start=base, reward=worded)
        return made.replace(generation=Generation(max_new_tokens=6))

    return make
