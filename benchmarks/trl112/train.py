"""PPO as the last TRL that had it does it (1.12.0, `trl.experimental.ppo`); run by its own environment's Python.

    .venv-trl112/bin/python benchmarks/trl112/train.py SETTINGS.json

Written as TRL's example `examples/scripts/ppo/ppo.py` is: the policy has a LoRA adapter and is its own reference, the
reward is a sequence classifier, and the critic is that classifier once more, trained whole. With `"value": "lora"`
the critic has an adapter of the policy's shape and a trained head, which TRL does not document but admits.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from clock import Clock
from datasets import Dataset
from measuring import resident_bytes, versions, write
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    set_seed,
)
from trl.experimental.ppo import PPOConfig, PPOTrainer


def main(given: dict) -> None:
    imported = resident_bytes()
    set_seed(given["seed"])
    out = Path(given["out"])
    tokenizer = AutoTokenizer.from_pretrained(given["start"], padding_side="left")
    policy = AutoModelForCausalLM.from_pretrained(given["start"], dtype=torch.float32)
    reward, value = (
        AutoModelForSequenceClassification.from_pretrained(given["reward"], num_labels=1, dtype=torch.float32)
        for _ in range(2)
    )
    lora = {"r": given["r"], "lora_alpha": given["alpha"], "target_modules": "all-linear"}
    if given["value"] == "lora":
        value = get_peft_model(value, LoraConfig(**lora, task_type="SEQ_CLS", modules_to_save=["score"]))
    ids = [
        tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=False)
        for prompt in given["prompts"]
    ]
    clock = Clock("objective/scores")
    trainer = PPOTrainer(
        args=settings(given, len(ids)),
        processing_class=tokenizer,
        model=policy,
        ref_model=None,
        reward_model=reward,
        value_model=value,
        train_dataset=Dataset.from_dict({"input_ids": ids}),
        peft_config=LoraConfig(**lora, task_type="CAUSAL_LM"),
        callbacks=[clock],
    )
    trainer.train()
    trainer.save_model(str(out / "policy"))
    found = {"imported_bytes": imported, "times": clock.times, "scores": clock.scores, "versions": versions()}
    write(out / "found.json", found)


def settings(given: dict, episodes: int) -> PPOConfig:
    """The trainer's config."""
    return PPOConfig(
        output_dir=str(Path(given["out"]) / "trainer"),
        per_device_train_batch_size=given["batch"],
        gradient_accumulation_steps=1,
        num_mini_batches=1,
        num_ppo_epochs=given["epochs"],
        total_episodes=episodes,
        local_rollout_forward_batch_size=given["batch"],
        response_length=given["response"],
        temperature=given["temperature"],
        stop_token="eos",
        missing_eos_penalty=given["missing_eos_penalty"],
        kl_coef=given["kl_coefficient"],
        kl_estimator="k1",
        cliprange=0.2,
        cliprange_value=0.2,
        vf_coef=0.1,
        gamma=1.0,
        lam=0.95,
        whiten_rewards=False,
        learning_rate=given["learning_rate"],
        lr_scheduler_type="constant",
        optim="adamw_torch_fused",
        seed=given["seed"],
        bf16=False,
        gradient_checkpointing=False,
        num_sample_generations=0,
        logging_steps=1,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
    )


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
