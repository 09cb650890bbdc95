"""Every algorithm under every adapter: it begins as the start, trains, and comes back from disk in another process."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("bitsandbytes")

from prefzoo import registry
from prefzoo.comparison.findings.notes import notes
from prefzoo.comparison.recipe import check as recipes
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.feedback.judges.local import local_judge
from prefzoo.feedback.reward_model import RewardModel, train_reward_model
from prefzoo.interface import Completion
from prefzoo.lab import MODEL_DIR
from prefzoo.policies import bases, load_policy
from prefzoo.policies.adapters import of_adapter
from prefzoo.policies.language_model import LanguageModelPolicy
from prefzoo.policies.loading import load_model
from prefzoo.settings import Adapter, Generation

ALGORITHMS = ("sft", "dpo", "rejection_sampling", "ppo", "a2c", "reinforce", "grpo", "rloo")
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
CASES = [(name, adapter) for name in ALGORITHMS for adapter in ("full", "lora", "qlora")]
CASES += [(name, adapter) for name in ("dpo", "ppo") for adapter in ("dora", "qdora", "int8", "saved")]
FRESH = """
import json, sys
from prefzoo.interface import Completion
from prefzoo.policies import load_policy
for folder, (prompts, ids, found) in json.load(open(sys.argv[1])).items():
    replies = [Completion("", tuple(each), True) for each in ids]
    assert load_policy(folder).log_probabilities(prompts, replies) == found, folder
    print(folder)
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> str:
    """A model as small as bitsandbytes quantizes, with the lab's tokenizer; its head is not tied to its embeddings."""
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

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
    return [text.count("e") - len(text) / 20 for text in completions]


@pytest.fixture
def bench(make_bench, base):
    def make(adapter: str, **training: Any):
        block = Adapter(**ADAPTERS[adapter])
        loading = {"dtype": "float32", "trust_remote_code": False, "quantization": block.quantization}
        made = make_bench(**training).replace(adapter=block, loading=loading, start=base, reward=worded)
        return made.replace(generation=Generation(max_new_tokens=6))

    return make


def storages(model: torch.nn.Module) -> set[int]:
    """Where the weights of the base under an adapter lie."""
    return {w.untyped_storage().data_ptr() for name, w in model.named_parameters() if not of_adapter(name)}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the trained policies said of some replies: folder -> prompts, token ids, log-probabilities."""
    return {}


@pytest.mark.parametrize(("name", "adapter"), CASES)
def test_each_begins_as_the_start_and_trains(name: str, adapter: str, bench, kept) -> None:
    trial = bench(adapter)
    kind = trial.adapter.type
    settings = {"n": 2, "keep": "random"} if name == "rejection_sampling" else {}
    policy = registry.get(name, trainer={"max_steps": 2, "logging_steps": 1}, **settings).train(trial)
    curve = json.loads((trial.out / "curves.json").read_text())[0]
    if name == "dpo":
        assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    elif name != "sft" and name != "rejection_sampling":
        assert curve[0]["kl" if name in ("grpo", "rloo") else "rollout/kl"] == pytest.approx(0, abs=1e-5)
    prompts = trial.data.prompts[:4]
    replies = [each[0] for each in policy.sample(prompts, trial.generation, seed=0)]
    found = policy.log_probabilities(prompts, replies)
    with policy.as_start() as start:
        own = LanguageModelPolicy.from_start(trial.start, **trial.loading)
        assert start.log_probabilities(prompts, replies) == own.log_probabilities(prompts, replies) != found
    assert policy.adapted == (kind != "full")
    model = trial.report["model"]
    assert model["differs"] == []
    assert model["used"]["adapter"]["type"] == kind
    kept[str(trial.out / "policy")] = [[list(p) for p in prompts], [r.token_ids for r in replies], found]


def test_a_fresh_process_loads_them_and_finds_the_same(kept, tmp_path) -> None:
    """After the test above, whose policies it takes."""
    if not kept:
        pytest.skip("nothing was trained")
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    said = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "kept.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.split() == list(kept)


def test_on_one_base_they_find_the_same_whatever_was_on_it_before(kept, base) -> None:
    """After the first test, whose policies it takes."""
    if not kept:
        pytest.skip("nothing was trained")

    def found(folder: str) -> Any:
        prompts, ids, _ = kept[folder]
        policy = load_policy(folder)
        return policy, policy.log_probabilities(prompts, [Completion("", tuple(each), True) for each in ids])

    with bases.shared():
        policies = {}
        for folder in (*kept, *reversed(kept)):
            policies[folder], again = found(folder)
            assert again == kept[folder][2], folder
        adapted = [policy for policy in policies.values() if policy.adapted]
        ways = {json.dumps(policy.loading): policy.loading for policy in adapted}
        held = [storages(local_judge(base, False, loading).model.model) for loading in ways.values()]
    assert {len(each) for each in held} == {12}, "7 layers, 3 norms, embeddings and head"
    assert set.union(*(storages(policy.model) for policy in adapted)) == set.union(*held)


def test_a_base_is_read_once_for_each_way_and_again_when_its_files_changed(base, tmp_path) -> None:
    folder = str(shutil.copytree(base, tmp_path / "base"))
    with bases.shared():
        first, again, other = (
            bases.lend(folder),
            bases.lend(folder, dtype="float32"),
            bases.lend(folder, dtype="float16"),
        )
        assert storages(first) == storages(again) and storages(first).isdisjoint(storages(other))
        first.get_input_embeddings().weight.data = torch.zeros(1)  # puts another in its place, which is its own affair
        assert storages(bases.lend(folder)) == storages(again)
        changed = load_model(base)
        torch.nn.init.zeros_(changed.model.norm.weight)
        changed.save_pretrained(folder)
        assert not bases.lend(folder).model.norm.weight.any() and again.model.norm.weight.all()
    assert storages(bases.lend(folder)).isdisjoint(storages(bases.lend(folder))), "outside, everybody's own"


@pytest.mark.parametrize("adapter", [a for a in ADAPTERS if a != "saved"])
def test_a_step_of_size_0_leaves_the_start_and_the_reward_model_comes_back(adapter: str, bench) -> None:
    trial = bench(adapter, learning_rate=0.0)
    policy = registry.get("sft", trainer={"max_steps": 1}).train(trial)
    prompts = trial.data.prompts[:4]
    replies = [each[0] for each in policy.sample(prompts, trial.generation, seed=0)]
    assert policy.kl_to_start(prompts, replies) == [0.0] * 4
    rewards = bench(adapter)
    scored = train_reward_model(rewards, {"max_steps": 2})
    texts = [reply.text for reply in replies]
    scores = scored(prompts, texts)
    # A score does not depend on what else is in its batch; int8 rounds what has been added up in another order.
    assert scored(prompts[2:3], texts[2:3]) == pytest.approx(scores[2:3], abs=1e-2 if adapter == "int8" else 1e-5)
    assert RewardModel.load(str(rewards.out / "reward"))(prompts, texts) == scores
    with bases.shared():
        lent = RewardModel.load(str(rewards.out / "reward"))
        beside = LanguageModelPolicy.from_start(trial.start, **trial.loading)
        assert lent(prompts, texts) == scores and lent.parameters == scored.parameters
    own = storages(lent.model) - storages(beside.model)
    assert len(own) == (1 if adapter != "full" else len(storages(lent.model))), "the head alone, under an adapter"
    assert rewards.report["model"]["used"]["adapter"].get("modules_to_save", ["score"])[-1] == "score"


def test_what_was_used_is_found_in_the_model(bench) -> None:
    trial = bench("qdora", gradient_checkpointing=True)
    registry.get("dpo", trainer={"max_steps": 1}).train(trial)
    used = trial.report["model"]["used"]
    assert used["adapter"] == {
        "type": "qlora",
        "layers": 7,
        "r": 4,
        "scale": 2.0,
        "use_dora": True,
        "modules_to_save": ["model.norm"],
        "quantized_layers": "7 of 8 linear ones",  # not the head
        "quant_type": "nf4",
        "double_quant": True,
        "compute_dtype": "float32",
        "storage_dtype": "uint8",
    }
    assert used["gradient_checkpointing"] and used["precision"] == "no"
    # 7 layers of 64 x 64 with two factors of rank 4 and a magnitude each, and the norm.
    assert used["trainable_parameters"] == 7 * (2 * 4 * 64 + 64) + 64
    assert used["parameters"] == 2 * 1024 * 64 + 7 * 64 * 64 + 3 * 64 + used["trainable_parameters"]
    assert used["optimizer_state"] == {"float32": 1.0}


def test_8_bit_moments_are_kept_in_8_bits_or_said_not_to_be(bench) -> None:
    small = bench("lora", optim="adamw_8bit")
    registry.get("sft", trainer={"max_steps": 1}).train(small)
    (said,) = small.report["model"]["differs"]
    assert "'adamw_8bit' was asked for, and 0% of the optimizer's state is in 8 bits" in said
    large = bench("lora", optim="adamw_8bit")
    large = large.replace(adapter=Adapter(r=64, alpha=8))  # factors of 4,096 numbers
    registry.get("sft", trainer={"max_steps": 1}).train(large)
    assert large.report["model"]["differs"] == []
    assert large.report["model"]["used"]["optimizer_state"]["uint8"] > 0.9
    assert large.report["model"]["used"]["optim"].startswith("bitsandbytes.")


def test_peft_takes_ends_of_names_and_that_is_said(bench) -> None:
    trial = bench("lora").replace(adapter=Adapter(r=4, modules_to_save=["norm"]))
    registry.get("sft", trainer={"max_steps": 1}).train(trial)
    assert [said.partition(" is ")[0] for said in trial.report["model"]["differs"]] == [
        f"adapter.modules_to_save: 'model.layers.0.{name}'" for name in ("input_layernorm", "post_attention_layernorm")
    ]


def test_what_is_not_as_asked_is_said(bench) -> None:
    """A bench that says one thing, and a base that was loaded as another: as if the loading had fallen back."""
    trial = bench("qlora")
    whole = trial.replace(loading={"dtype": "float32", "attn_implementation": "eager"})
    registry.get("sft", trainer={"max_steps": 1}).train(whole)
    assert whole.report["model"]["differs"] == ["adapter.type: 'qlora' was asked for, 'lora' used"]
    assert whole.report["model"]["used"]["attn_implementation"] == "eager"


def test_the_report_notes_what_differs_once() -> None:
    recipe = recipes.check({"algorithms": {"dpo": {}}})
    other = {"model": {"differs": ["dtype: 'bfloat16' was asked for, 'float32' used"]}}
    seed = SimpleNamespace(details=other, metrics={"finished": 1.0}, ledger={"reward_calls": 0})
    dpo = SimpleNamespace(differs={}, algorithm="dpo", seeds={"0": seed, "1": seed})
    said = notes(recipe, {"dpo": dpo}, {}, {"splits": {"test": {"prompts": 300}}})
    assert [n for n in said if n.startswith("The model")] == [
        "The model of dpo: dtype: 'bfloat16' was asked for, 'float32' used."
    ]


def test_going_on_with_an_adapter_keeps_its_weights_and_the_start_as_reference(bench) -> None:
    """TRL would round the weights on a quantized base, and take the adapter as it is for the reference."""
    trial = bench("qdora")
    registry.get("sft", trainer={"max_steps": 2}).train(trial)
    policy = load_policy(trial.out / "policy")
    assert isinstance(policy, LanguageModelPolicy)
    before = {n: w.clone() for n, w in policy.model.named_parameters() if "lora_" in n or "modules_to_save" in n}
    again = bench("qdora", learning_rate=0.0).replace(latest=policy)
    kept = registry.get("dpo", trainer={"max_steps": 1, "logging_steps": 1}).train(again)
    after = dict(kept.model.named_parameters())
    assert before and all(torch.equal(after[name], weight) for name, weight in before.items())
    curve = json.loads((again.out / "curves.json").read_text())[-1]
    assert abs(curve[0]["loss"] - math.log(2)) > 1e-4  # of another policy than the reference


@pytest.mark.parametrize("adapter", ["dora", "saved"])
def test_what_is_exported_is_the_policy(adapter: str, bench, tmp_path) -> None:
    trial = bench(adapter)
    policy = registry.get("sft", trainer={"max_steps": 2}).train(trial)
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        logits = policy.model(ids).logits
        policy.export(tmp_path / "exported")
        exported = LanguageModelPolicy.from_start(str(tmp_path / "exported")).model(ids).logits
    torch.testing.assert_close(exported, logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("training", "words"),
    [({"optim": "paged_adamw_8bit"}, "Allowed here: adamw_8bit"), ({"fp16": True}, "Allowed here: training.bf16")],
)
def test_what_needs_a_gpu_is_refused_before_training(training: dict[str, Any], words: str, bench) -> None:
    with pytest.raises(PrefzooError, match=words):
        registry.get("dpo").train(bench("lora", **training))
    with pytest.raises(PrefzooError, match=words):
        registry.get("dpo", trainer=training).train(bench("lora"))
    with pytest.raises(PrefzooError, match=words):
        train_reward_model(bench("lora", **training), {})


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"target_modules": ["q_proj", "k_prj"]}, "'k_prj' is no module of this model. Did you mean 'k_proj'"),
        ({"target_modules": "q|v"}, "'q|v' is no module"),
        ({"modules_to_save": ["lm_had"]}, "Did you mean 'lm_head'"),
        ({"target_modules": ["lm_head"]}, "TRL's losses read by itself"),
        ({"target_modules": ".*(q_proj|lm_head)"}, "TRL's losses read by itself"),
    ],
)
def test_modules_that_a_model_does_not_have_are_refused(block: dict[str, Any], words: str, bench) -> None:
    with pytest.raises(PrefzooError) as caught:
        registry.get("sft").train(bench("lora").replace(adapter=Adapter(**block)))
    assert words in str(caught.value)


def test_modules_that_cannot_be_trained_whole_are_refused(bench, make_bench) -> None:
    for key in ("modules_to_save", "target_modules"):  # an adapter would be merged into both ends
        tied = make_bench().replace(adapter=Adapter(**{key: ["embed_tokens"]}))
        with pytest.raises(PrefzooError, match=f"{key}: 'embed_tokens' shares its weights with the other end"):
            registry.get("sft").train(tied)
    train_reward_model(tied, {"max_steps": 1})  # where there is no other end
    trial = bench("qlora")
    with pytest.raises(PrefzooError, match="'q_proj' is quantized here"):
        registry.get("sft").train(trial.replace(adapter=Adapter(type="qlora", modules_to_save=["q_proj"])))


@pytest.mark.parametrize(
    ("block", "words"),
    [
        ({"type": "full", "r": 8}, "adapter.r: has no meaning with type 'full'"),
        ({"use_dora": True, "type": "full"}, "adapter.use_dora: has no meaning with type 'full'"),
        ({"compute_dtype": "bfloat16"}, "no meaning with type 'lora', allowed: qlora"),
        ({"type": "qlora", "quant_type": "int8", "double_quant": False}, "no meaning with quant_type 'int8'"),
        ({"type": "qlora", "quant_type": "int8", "use_dora": True}, "'int8' cannot be combined with use_dora"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the weights of the base"),
        ({"init_lora_weights": "loftq"}, "with the adapter off the policy is no longer the start"),
        ({"init_lora_weights": False}, "not exactly the start"),
        ({"init_lora_weights": "orthogonal"}, "'orthogonal' begins at 0 to rounding only"),
        ({"init_lora_weights": "gausian"}, "Did you mean 'gaussian'"),
    ],
)
def test_what_means_nothing_together_is_refused_by_name(block: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.check({"algorithms": {"dpo": {}}, "adapter": block})
    assert words.replace(",", ";") in str(caught.value) or words in str(caught.value)


def test_one_precision_and_weights_whose_gradients_can_be_scaled(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(RecipeError, match=r"training\.fp16: .*in one of them"):
        recipes.check({"algorithms": {"dpo": {}}, "training": {"bf16": True, "fp16": True}})
    with pytest.raises(RecipeError, match=r"training\.fp16: true scales .* float32"):
        recipes.check({"algorithms": {"dpo": {}}, "training": {"fp16": True}, "model": {"dtype": "float16"}})
    assert recipes.check({"algorithms": {"dpo": {}}, "training": {"fp16": True}}).training.fp16
