"""Our wrappers beside plain TRL scripts with the same settings: the same losses, step by step, and the same weights."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pytest
import torch

import prefzoo
from conftest import worded
from prefzoo.lab import MODEL_DIR
from prefzoo.models import shared_beginnings
from prefzoo.rewards.train_reward import train_reward_model

STEPS = 20
NOT_CUT = {"max_length": None}
OF_20_STEPS = {"max_steps": STEPS, "logging_steps": 1}


def raw_trl(
    name: str,
    model: Any,
    rows: list[dict[str, Any]],
    folder: str,
    config: Mapping[str, Any] = NOT_CUT,
    reward: Any = None,
    trainer_class: Any = None,
    config_class: Any = None,
    **more: Any,
) -> Any:
    """Train as TRL's documentation does, with the settings that `make_bench` gives ours."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer

    trainer = (trainer_class or getattr(trl, f"{name}Trainer"))(
        model=model,
        args=(config_class or getattr(trl, f"{name}Config"))(
            output_dir=folder,
            per_device_train_batch_size=8,
            learning_rate=1e-3,
            warmup_steps=0.1,
            seed=7,
            data_seed=7,
            bf16=False,
            gradient_checkpointing=False,
            report_to="none",
            save_strategy="no",
            use_cpu=not torch.cuda.is_available(),
            **{"max_steps": STEPS, "logging_steps": 1, **config},
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(str(MODEL_DIR), padding_side="left"),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **more),
        **({"reward_funcs": reward} if reward else {}),
    )
    trainer.train()
    return trainer


def losses(history: list[dict[str, Any]]) -> list[float]:
    return [entry["loss"] for entry in history if "loss" in entry]


def learned(model: Any) -> torch.Tensor:
    named = [
        w.detach().flatten() for name, w in model.named_parameters() if "lora_" in name or "modules_to_save" in name
    ]
    return torch.cat(named)


def assert_alike(ours: Any, bench: Any, raw: Any, apart: float = 1e-6) -> None:
    curve = losses(json.loads((bench.out / "curves.json").read_text())[-1])
    theirs = losses(raw.state.log_history)
    assert len(curve) == STEPS == len(theirs)
    assert curve == pytest.approx(theirs, abs=1e-5)
    assert max(curve) - min(curve) > 1e-2  # something was learned, so that the same losses mean something
    assert torch.allclose(learned(ours), learned(raw.model), atol=apart)


IN_EACH_STEP = {"precompute_ref_log_probs": False}


@pytest.mark.parametrize(("name", "more", "apart"), [("dpo", IN_EACH_STEP, 1e-6), ("dpo", {}, 1e-5), ("sft", {}, 1e-6)])
def test_parity_of_policies(make_bench, tmp_path, name, more, apart, monkeypatch) -> None:
    """A reference that is taken beforehand has other rows beside it, and replies that share their prompt's tokens go
    through the model together: both differ by rounding."""
    from transformers import AutoModelForCausalLM, set_seed

    if apart == 1e-6:
        monkeypatch.setattr(shared_beginnings, "put_together", lambda ids, mask: None)
    bench = make_bench()
    ours = prefzoo.get(name, trainer={**OF_20_STEPS, **more}).train(bench)
    rows = bench.data.preferences if name == "dpo" else bench.data.chosen()
    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(str(MODEL_DIR), dtype=torch.float32)
    raw = raw_trl(name.upper(), model, rows, str(tmp_path / "raw"), task_type="CAUSAL_LM")
    assert_alike(ours.model, bench, raw, apart)
    if name == "dpo":
        first = losses(json.loads((bench.out / "curves.json").read_text())[-1])[0]
        assert first == pytest.approx(math.log(2), abs=1e-5)


def test_parity_of_reward_models(make_bench, tmp_path) -> None:
    from transformers import AutoModelForSequenceClassification, set_seed

    bench = make_bench()
    ours = train_reward_model(bench, OF_20_STEPS)
    set_seed(7)
    model = AutoModelForSequenceClassification.from_pretrained(str(MODEL_DIR), num_labels=1, dtype=torch.float32)
    model.config.pad_token_id = ours.tokenizer.pad_token_id
    more = {"task_type": "SEQ_CLS", "modules_to_save": ["score"]}
    raw = raw_trl("Reward", model, bench.data.preferences, str(tmp_path / "raw"), **more)
    assert_alike(ours.model, bench, raw)


GROUP = {"scale_rewards": "group"}
SEQUENCE = {"importance_sampling_level": "sequence", **GROUP}
OLD = {"minibatches": 3}
SAMPLES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "grpo": ({}, {"loss_type": "grpo", "epsilon": 0.2, **GROUP}),
    "rloo": ({}, {}),
    "dr_grpo": ({}, {"loss_type": "dr_grpo", "scale_rewards": "none", "epsilon": 0.2}),
    "bnpo": ({}, {"loss_type": "bnpo", "epsilon": 0.2, **GROUP}),
    "dapo": ({**OLD, "shaping": {"overlong": 0}}, {"loss_type": "dapo", "epsilon_high": 0.28, **GROUP}),
    "cispo": (OLD, {"loss_type": "cispo", "epsilon_high": 5.0, **GROUP}),
    "sapo": (OLD, {"loss_type": "sapo", **GROUP}),
    "gspo": (OLD, {"loss_type": "grpo", "epsilon": 3e-4, "epsilon_high": 4e-4, **SEQUENCE}),
    "luspo": (OLD, {"loss_type": "luspo", "epsilon": 2e-3, "epsilon_high": 2.5e-3, **SEQUENCE}),
    "vespo": (OLD, {"loss_type": "vespo", **GROUP}),
}
"""Settings of ours, and the fields of TRL's config that they shall be."""


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n in ("grpo", "rloo") else pytest.mark.slow) for n in SAMPLES]
)
def test_parity_of_what_samples(make_bench, base, tmp_path, name) -> None:
    """RLOO's loss is 0 whatever is learned, and GRPO's nearly: what tells is the gradient, and the weights."""
    from transformers import AutoModelForCausalLM, set_seed

    own, particular = SAMPLES[name]
    # Adam divides by a gradient's size: a step on an old rollout would see that of rounding in the one before.
    steps = {**OF_20_STEPS, **({"adam_epsilon": 1e-5} if own else {})}
    bench = make_bench(epochs=7.0).replace(start=base, reward=worded)
    settings = {"generations": 4, "kl_coefficient": 0.05, "missing_eos_penalty": 0.0, **own}
    ours = prefzoo.get(name, **settings, trainer=steps).train(bench)
    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    sampling = {
        "num_generations": 4,
        "gradient_accumulation_steps": 4,
        "steps_per_generation": 4 * own.get("minibatches", 1),
        "max_completion_length": bench.generation.max_new_tokens,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": 0,
        "beta": 0.05,
    }

    def reward(prompts, completions, **_: Any) -> list[float]:
        return worded(prompts, [turns[0]["content"] for turns in completions])

    rows = [{"prompt": list(prompt)} for prompt in bench.data.prompts]
    config = {**steps, **sampling, **particular}
    trainer = "RLOO" if name == "rloo" else "GRPO"
    raw = raw_trl(trainer, model, rows, str(tmp_path / "raw"), config, reward, task_type="CAUSAL_LM")
    curve = json.loads((bench.out / "curves.json").read_text())[-1]
    rollouts = math.ceil(STEPS / own.get("minibatches", 1))
    for logged, times in (
        ("loss", STEPS),
        ("grad_norm", STEPS),
        ("reward", rollouts),
        ("completions/mean_length", rollouts),
    ):
        found, theirs = ([each[logged] for each in log if logged in each] for log in (curve, raw.state.log_history))
        assert len(found) == times and found == pytest.approx(theirs, rel=1e-4, abs=1e-5), logged
    # Adam divides by a gradient's size: where it is tiny, the last digit of a log-probability moves a weight by 2e-6.
    assert torch.allclose(learned(ours.model), learned(raw.model), atol=1e-5)
    assert (learned(ours.model) - learned(model_of_step_0(bench))).abs().max() > 1e-4


def model_of_step_0(bench: Any) -> Any:
    """The same adapter, before it learned anything."""
    still = bench.replace(out=bench.out / "still", training=bench.training.model_copy(update={"learning_rate": 0.0}))
    return prefzoo.get("sft", trainer={"max_steps": 1}).train(still).model
