"""What a `trainer:` block may say: not what the comparison or the algorithm sets, and no numbers that cannot be."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec
from typing import Any

import pytest

from prefzoo import registry
from prefzoo.config_fields import OWNED, RANGES, config_fields, trainer_problems
from prefzoo.errors import RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe import check_recipe as recipes

DPO = "trl.trainer.dpo_config:DPOConfig"
GRPO = "trl.trainer.grpo_config:GRPOConfig"
SFT = "trl.trainer.sft_config:SFTConfig"

SETTABLE = {
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "num_train_epochs",
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "optim",
    "bf16",
    "fp16",
    "gradient_checkpointing",
    "logging_steps",
    "logging_first_step",
    "disable_tqdm",
    "use_cpu",
    "dataloader_pin_memory",
}
"""Arguments that all trainers are given alike and one of them may be given otherwise; the report then says so."""

SETTABLE_ONLINE = {"shuffle_dataset", "remove_unused_columns"}
LOSSES_OF_GRPO = ("dr_grpo", "bnpo", "dapo", "cispo", "sapo", "gspo", "luspo", "vespo")
VARIANTS = {"grpo": {"loss_type", "scale_rewards"}}
"""Its variants are algorithms of their own too."""


def problems(content: dict[str, Any]) -> list[str]:
    with pytest.raises(RecipeError) as caught:
        recipes.check(content)
    return caught.value.problems


class _Config:
    """Keeps what it is given."""

    __dataclass_fields__ = ("disable_dropout", "max_length")

    def __init__(self, **given: Any) -> None:
        self.given = given


def test_what_all_trainers_are_given_is_either_owned_or_settable(make_bench, monkeypatch) -> None:
    from prefzoo.trainers.trainer_arguments import arguments

    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "")
    bench = make_bench().replace(reporting={"report_to": ["tensorboard"], "run_name": "x", "project": "y"})
    given = arguments(bench, _Config, {}).given
    assert set(given) - set(OWNED) == SETTABLE


class _Caught(Exception):
    pass


@pytest.mark.parametrize(
    "name",
    ["dpo", "sft", "grpo", "rloo", "ppo", "a2c", "reinforce", "reinforce_plus_plus", *LOSSES_OF_GRPO],
)
def test_what_an_algorithm_sets_is_owned(name: str, make_bench, monkeypatch) -> None:
    from prefzoo.trainers import fitting, online

    def fit(bench: Any, trainer: Any, config: Any, rows: Any, settings: dict[str, Any], **more: Any) -> None:
        raise _Caught(settings)

    monkeypatch.setattr(fitting, "fit", fit)
    monkeypatch.setattr(online, "fit", fit)
    with pytest.raises(_Caught) as caught:
        registry.get(name).train(make_bench())
    (settings,) = caught.value.args
    cls = registry.load(name)
    assert set(settings) - set(cls.owned) - set(OWNED) - SETTABLE_ONLINE == VARIANTS.get(name, set())


def test_what_is_owned_exists() -> None:
    known = set()
    for cls in registry.sound().values():
        if cls.config is not None and find_spec(cls.config.partition(":")[0]) is not None:  # TRL 1.14 lacks one
            fields = set(config_fields(cls.config))
            assert set(cls.owned) <= fields, cls
            known |= fields
    assert set(OWNED) <= known and set(RANGES) <= known


@pytest.mark.parametrize(
    ("label", "settings", "says"),
    [
        ("sft", {"output_dir": "x"}, "cannot be set here (got 'x'); a comparison's folder is given by --out."),
        ("sft", {"seed": 3}, "cannot be set here (got 3); say `seeds`, or the `seed_offset` of a label."),
        ("dpo", {"report_to": "wandb"}, "cannot be set here (got 'wandb'); say `tracking.report_to`."),
        ("dpo", {"beta": 0.2}, "cannot be set here (got 0.2); say `algorithms.dpo.beta`."),
        ("dpo", {"loss_type": "ipo"}, "cannot be set here (got 'ipo'); say `algorithms.dpo.loss_type`."),
        ("grpo", {"beta": 0.2}, "cannot be set here (got 0.2); say `algorithms.grpo.kl_coefficient`."),
        ("grpo", {"temperature": 2}, "cannot be set here (got 2); say `generation.temperature`."),
        ("rloo", {"num_iterations": 2}, "cannot be set here (got 2); say `algorithms.rloo.epochs`."),
        ("ppo", {"epsilon": 0.1}, "cannot be set here (got 0.1); say `algorithms.ppo.clip`."),
        ("a2c", {"epsilon": 0.1}, "cannot be set here (got 0.1); nothing is clipped: each rollout"),
        ("reinforce", {"loss_type": "grpo"}, "cannot be set here (got 'grpo'); the loss is the algorithm's own."),
        ("rejection_sampling", {"max_length": 9}, "cannot be set here (got 9); rows are cut alike for all: say `data"),
        ("grpo", {"loss_type": "dr_grop"}, "unknown value 'dr_grop'. Did you mean 'dr_grpo'?"),
        ("sft", {"loss_type": "ntl"}, "unknown value 'ntl'. Did you mean 'nll'?"),
        ("sft", {"optim": 3}, "unknown value 3. Allowed: "),
        ("sft", {"optim": "adamw_torc"}, "unknown value 'adamw_torc'. Did you mean 'adamw_torch'?"),
        ("sft", {"lr_scheduler_type": ["cosine"]}, "unknown value ['cosine']. Did you mean 'cosine'?"),
        (
            "dpo",
            {"train_sampling_strategy": "zz"},
            "unknown value 'zz'. Allowed: batch_rebalance, group_by_length, random",
        ),
        ("grpo", {"train_sampling_strategy": "sequental"}, "unknown value 'sequental'. Did you mean 'sequential'?"),
        (
            "sft",
            {"eos_token": "<|edn|>"},
            "'<|edn|>' is no token of 'lab'. Did you mean '<|end|>'? Its special tokens:",
        ),
        ("sft", {"learning_rate": -1e-4}, "must be at least 0 (got -0.0001)"),
        ("sft", {"learning_rate": float("inf")}, "must be a finite number (got inf)"),
        ("sft", {"num_train_epochs": 0}, "must be above 0 (got 0)"),
        ("sft", {"max_steps": -5}, "must be at least -1 (got -5)"),
        ("sft", {"adam_beta1": 1.0}, "must be below 1 (got 1.0)"),
        ("sft", {"per_device_train_batch_size": 0}, "must be at least 1 (got 0)"),
    ],
)
def test_what_cannot_be_said_under_trainer_is_refused_with_what_to_do(label: str, settings: dict, says: str) -> None:
    (problem,) = problems({"algorithms": {label: {"trainer": settings}}})
    assert problem.startswith(f"algorithms.{label}.trainer.{next(iter(settings))}: {says}")


CHANGES_WHAT_IS_SAMPLED = {
    "top_p": 0.9,
    "top_k": 50,
    "min_p": 0.1,
    "repetition_penalty": 1.5,
    "generation_kwargs": {"top_p": 0.3},
    "vllm_structured_outputs_regex": "[a-z]*",
    "chat_template_kwargs": {"enable_thinking": False},
    "reward_weights": [3.0],
    "sync_ref_model": True,
    "num_generations_eval": 2,
    "auto_find_batch_size": True,
}
CLIPS = {"epsilon_high": 0.3, "delta": 2.0, "off_policy_mask_threshold": 0.5}
NOT_ITS_LOSS = {
    "importance_sampling_level": "sequence",
    "sapo_temperature_pos": 1.1,
    "vespo_k_pos": 1.0,
    "use_liger_kernel": True,
    "use_bias_correction_kl": False,
    "multi_objective_aggregation": "normalize_then_sum",
    "mask_truncated_completions": True,
}
BY_GRPO = {
    "importance_sampling_level": "sequence",
    "mask_truncated_completions": True,
    "vllm_importance_sampling_correction": False,
}
TOOLS = {"max_tool_calling_iterations": 2}
VLLM = {"use_vllm": True, "vllm_mode": "server"}


@pytest.mark.parametrize(
    ("label", "refused", "settable"),
    [
        ("ppo", {**NOT_ITS_LOSS, **TOOLS}, {**CLIPS, "entropy_coef": 0.01}),
        ("a2c", {**NOT_ITS_LOSS, **TOOLS, **CLIPS}, {"entropy_coef": 0.01}),
        ("reinforce", {**NOT_ITS_LOSS, **TOOLS, **CLIPS}, {"top_entropy_quantile": 0.2}),
        ("grpo", TOOLS, {**CLIPS, **BY_GRPO}),
        ("rloo", {"reward_clip_range": [-1.0, 1.0]}, {"epsilon_high": 0.3, "normalize_advantages": True}),
    ],
)
def test_what_samples_can_be_told_nothing_that_changes_what_is_sampled_or_does_nothing(
    label: str, refused: dict[str, Any], settable: dict[str, Any]
) -> None:
    refused = {**CHANGES_WHAT_IS_SAMPLED, **refused}
    found = problems({"algorithms": {label: {"trainer": {**refused, **settable, **VLLM}}}})
    told = [each for each in found if "needs the package" not in each]  # of vLLM, which tests do without
    assert {each.partition(": ")[0] for each in told} == {f"algorithms.{label}.trainer.{field}" for field in refused}
    assert all("cannot be set here" in each for each in told)


def test_the_start_and_the_reward_are_held_to_the_same() -> None:
    content = {
        "algorithms": {"mine": {"algorithm": "dpo", "trainer": {"beta": 1}}},
        "start": {"trainer": {"seed": 1}},
        "reward": {"trainer": {"data_seed": 1, "learning_rate": -1}},
    }
    assert [problem.partition(": ")[0] for problem in problems(content)] == [
        "algorithms.mine.trainer.beta",
        "reward.trainer.data_seed",
        "reward.trainer.learning_rate",
        "start.trainer.seed",
    ]
    assert "say `algorithms.mine.beta`" in problems(content)[0]
    with pytest.raises(RecipeError, match=r"trainer\.beta: cannot be set here"):
        registry.get("dpo", trainer={"beta": 1})


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        (SFT, {"learning_rate": 0.0, "num_train_epochs": 0.5, "max_steps": 3, "logging_steps": 1, "loss_type": "dft"}),
        (DPO, {"loss_weights": [1.0, 0.5], "f_divergence_type": "js_divergence", "warmup_steps": 0, "max_steps": -1}),
        (SFT, {"optim": "sgd", "train_sampling_strategy": "random", "lr_scheduler_type": "cosine", "debug": ""}),
        (DPO, {"train_sampling_strategy": "group_by_length", "logging_strategy": "steps"}),
        (GRPO, {"loss_type": "dr_grpo", "scale_rewards": "none", "epsilon_high": 0.28, "max_grad_norm": 0}),
    ],
)
def test_what_makes_a_variant_of_an_algorithm_can_be_said(config: str, settings: dict) -> None:
    assert trainer_problems(config, settings, "trainer.") == []


def test_tokens_of_the_model_can_be_named_and_those_of_a_hub_model_are_not_known_here(tmp_path) -> None:
    def named(token: str, **more: Any) -> dict[str, Any]:
        settings = {"eos_token": token}
        return {"algorithms": {"sft": {"trainer": settings}}, "start": {"trainer": settings}, **more}

    recipes.check(named("<|end|>"))
    recipes.check(named("x", model={"path": "owner/name"}))
    assert {problem.partition(": ")[0] for problem in problems(named("x y"))} == {
        "algorithms.sft.trainer.eos_token",
        "start.trainer.eos_token",
    }
    pieces = {"added_tokens": [], "model": {"vocab": [["a", -1.0], ["</s>", -2.0]]}}  # Unigram's is a list
    model = shutil.copytree(MODEL_DIR, tmp_path / "model")
    (model / "tokenizer.json").write_text(json.dumps(pieces))
    recipes.check(named("</s>", model={"path": str(model)}))
    assert "is no token of" in problems(named("<|end|>", model={"path": str(model)}))[0]
