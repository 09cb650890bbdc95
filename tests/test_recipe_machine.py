"""What this machine or this model cannot do is refused with the recipe, all at once, before anything is loaded."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from prefzoo import machine
from prefzoo.errors import RecipeError
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe import cross_check, model_check
from prefzoo.settings import Adapter

DPO = {"algorithms": {"dpo": {}}}


def problems(**content: Any) -> list[str]:
    try:
        recipes.check({**DPO, **content})
    except RecipeError as error:
        return error.problems
    return []


NEEDING_A_GPU = {
    "training": {"optim": "paged_adamw_32bit", "fp16": True},
    "algorithms": {"dpo": {"trainer": {"optim": "paged_lion_8bit"}}, "sft": {"trainer": {"fp16": True}}},
    "reward": {"trainer": {"optim": "paged_adamw_8bit"}},
    "start": {"algorithm": "sft", "trainer": {"fp16": True, "optim": "paged_ademamix_32bit"}},
}


def test_what_needs_a_gpu_is_refused_wherever_it_is_said(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    said = {p.partition(":")[0]: p.rpartition("Allowed here: ")[2] for p in problems(**NEEDING_A_GPU)}
    assert said == {
        "training.optim": "adamw_torch_fused",
        "training.fp16": "training.bf16",
        "algorithms.dpo.trainer.optim": "lion_8bit",
        "algorithms.sft.trainer.fp16": "training.bf16",
        "reward.trainer.optim": "adamw_8bit",
        "start.trainer.fp16": "training.bf16",
        "start.trainer.optim": "ademamix",
    }


def test_packages_that_a_trainer_needs_are_asked_for_by_name() -> None:
    block = {"trainer": {"use_vllm": True}}
    assert problems(algorithms={"grpo": block, "sft": {"trainer": {"use_liger_kernel": True}}}) == [
        "algorithms.sft.trainer.use_liger_kernel: true needs the package liger-kernel, which is not installed here.",
        "algorithms.grpo.trainer.use_vllm: true needs the package vllm, which is not installed here. Or say "
        "generation.engine: vllm, which samples everything",
    ]
    assert problems(algorithms={"grpo": {"trainer": {"use_vllm": False}}}) == []


def test_a_machine_with_a_gpu_may_have_all_of_it(monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert problems(**NEEDING_A_GPU, model={"attn_implementation": "flex_attention"}) == []


@pytest.mark.parametrize("name", ["flash_attention_3", "flex_attention"])
def test_attention_without_a_backward_pass_on_a_cpu_is_refused(name: str, monkeypatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    (said,) = problems(model={"attn_implementation": name})
    assert said.startswith(f"model.attn_implementation: {name!r} needs a GPU")
    assert said.endswith("Allowed here: sdpa, eager.")
    assert problems(model={"attn_implementation": "eager"}) == []


def test_a_gpu_is_looked_for_in_the_system(monkeypatch) -> None:
    there: set[str] = set()
    monkeypatch.setattr(machine.Path, "exists", lambda place: str(place) in there)
    monkeypatch.setattr(machine.Path, "glob", lambda place, pattern: iter([]))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not machine.may_have_gpu()
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert not machine.may_have_gpu()
    there.add("/dev/kfd")
    assert machine.may_have_gpu()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    assert not machine.may_have_gpu()
    assert cross_check.machine_problems(recipes.check(DPO)) == []


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ([], "[] names no layer"),
        ("", "'' names no layer"),
        ("(q", "'(q' is no regular expression"),
        (["all-linear"], "'all-linear' stands by itself"),
        (["q_proj", "k_prj"], "'k_prj' is no module of this model. Did you mean 'k_proj'?"),
        ("q_proj", "A name stands in a list: [q_proj]."),
        ("all_linear", "Did you mean 'all-linear'?"),
        (r"model\.decoder\..*", "is no module of this model"),
        (["lm_head"], "TRL's losses read by itself"),
        (r".*(q_proj|lm_head)", "TRL's losses read by itself"),
        (["embed_tokens"], "shares its weights with the other end"),
    ],
)
def test_targets_that_no_adapter_can_have_are_refused(targets: Any, words: str) -> None:
    (said,) = problems(adapter={"target_modules": targets})
    assert said.startswith("adapter.target_modules: ") and words in said
    assert problems(reward={"adapter": {"target_modules": targets}}) == ([] if targets == ["embed_tokens"] else [
        "reward." + said
    ])  # fmt: skip


def test_modules_to_save_are_looked_for_too() -> None:
    wrong = problems(adapter={"modules_to_save": ["norn", "lm_head", "norm", "self_attn"]})
    assert ["'norn' is no module" in wrong[0], "'lm_head' shares its weights" in wrong[1]] == [True, True]
    assert len(wrong) == 2


@pytest.mark.parametrize("targets", ["all-linear", ["q_proj"], ["layers.0.self_attn.q_proj"], r"model\..*\.[qv]_proj"])
def test_right_targets_pass(targets: Any) -> None:
    assert problems(adapter={"target_modules": targets}) == []


def model(folder: Path, tensors: dict[str, list[int]], **config: Any) -> str:
    """A folder with the names and shapes of weights, and no weights."""
    header = json.dumps({"__metadata__": {}, **{k: {"dtype": "F32", "shape": v} for k, v in tensors.items()}}).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


def found(path: str, **adapter: Any) -> list[str]:
    """What is said of an adapter on the model there; other checks would want a whole model."""
    recipe = recipes.check(DPO)
    there = recipe.model.model_copy(update={"path": path})
    return model_check.adapter_problems(recipe.model_copy(update={"model": there, "adapter": Adapter(**adapter)}))


def test_names_of_a_bare_backbone_and_of_two_tables_are_understood(tmp_path) -> None:
    """As hub checkpoints are: without the prefix that the model in memory has, and with a head of its own."""
    tensors = {"wte.weight": [9, 4], "h.0.attn.c_attn.weight": [4, 12], "lm_head.weight": [9, 4]}
    path = model(tmp_path, tensors, model_type="gpt2", vocab_size=9)
    assert found(path, target_modules=r"transformer\.h\.\d+\.attn\.c_attn") == []
    assert found(path, target_modules=["wte"], modules_to_save=["lm_head"]) == []
    model(tmp_path, tensors, model_type="gpt2", vocab_size=9, tie_word_embeddings=True)
    assert len(found(path, target_modules=["wte"], modules_to_save=["lm_head"])) == 2


def test_where_names_in_files_are_others_than_in_memory_nothing_is_refused(tmp_path) -> None:
    weights = {"model.layers.0.block_sparse_moe.experts.0.w1.weight": [4, 4]}
    path = model(tmp_path, weights, model_type="llama", vocab_size=9)
    assert len(found(path, target_modules=["gate_up_proj"])) == 1
    model(tmp_path, weights, model_type="mixtral", vocab_size=9)
    assert found(path, target_modules=["gate_up_proj"]) == found("owner/name", target_modules=["gate_up_proj"]) == []
    (tmp_path / "config.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (tmp_path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    assert found(path, target_modules=["gate_up_proj"]) == []
