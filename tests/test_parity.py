"""Our wrappers beside plain TRL scripts with the same settings: the same losses, step by step, and the same weights."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

import prefzoo
from prefzoo.feedback.reward_model import train_reward_model
from prefzoo.lab import MODEL_DIR

STEPS = 20
OF_20_STEPS = {"max_steps": STEPS, "logging_steps": 1}


def raw_trl(name: str, model: Any, rows: list[dict[str, Any]], folder: str, **more: Any) -> Any:
    """Train as TRL's documentation does, with the settings that `make_bench` gives ours."""
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer

    trainer = getattr(trl, f"{name}Trainer")(
        model=model,
        args=getattr(trl, f"{name}Config")(
            output_dir=folder,
            per_device_train_batch_size=8,
            max_steps=STEPS,
            logging_steps=1,
            learning_rate=1e-3,
            warmup_steps=0.1,
            seed=7,
            data_seed=7,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            report_to="none",
            save_strategy="no",
            use_cpu=True,
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=AutoTokenizer.from_pretrained(str(MODEL_DIR), padding_side="left"),
        peft_config=LoraConfig(r=4, lora_alpha=8, target_modules="all-linear", **more),
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
def test_parity_of_policies(make_bench, tmp_path, name, more, apart) -> None:
    """A reference that is taken beforehand has other rows beside it, and differs by rounding."""
    from transformers import AutoModelForCausalLM, set_seed

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
