"""One training with TRL and nothing else, as its documentation does it; run as a process of its own.

    python raw.py SETTINGS.json

It imports nothing of prefzoo: this is what a competent user would write with the same model, data and settings, once
for each method. `evaluate` in the settings adds what a user would have to add in order to compare: replies to the test
prompts, their scores and their KL to the start.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
import trl
from clock import Clock
from datasets import Dataset
from measuring import gpu_memory, write
from peft import LoraConfig
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BitsAndBytesConfig,
    set_seed,
)

NAMES = {
    "sft": "SFT",
    "start": "SFT",
    "rejection_sampling": "SFT",
    "reward": "Reward",
    "dpo": "DPO",
    "grpo": "GRPO",
    "rloo": "RLOO",
}
ONLINE = ("grpo", "rloo")


def main(given: dict[str, Any]) -> dict[str, Any]:
    """Train, save, and evaluate where that is asked for; the times of the steps and the mean loss."""
    task, clock = given["task"], Clock()
    set_seed(given["seed"])
    model, tokenizer = loaded(given)
    rows = json.loads(Path(given["rows"]).read_text())
    trainer = getattr(trl, f"{NAMES[task]}Trainer")(
        model=model,
        args=arguments(given),
        train_dataset=Dataset.from_list(examples(task, rows, model, tokenizer, given)),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16,
            lora_alpha=32,
            target_modules="all-linear",
            task_type="SEQ_CLS" if task == "reward" else "CAUSAL_LM",
            modules_to_save=["score"] if task == "reward" else None,
        ),
        callbacks=[clock],
        **(scored_by(given["reward"]) if task in ONLINE else {}),
    )
    trainer.train()
    if given.get("merge"):  # what later scripts start from, or score with
        trainer.model.merge_and_unload().save_pretrained(given["merge"])
        tokenizer.save_pretrained(given["merge"])
    else:
        trainer.save_model(str(Path(given["out"]) / "saved"))
    if given.get("evaluate"):
        evaluate(trainer.model.eval(), tokenizer, rows["test"], given)
    return {"times": clock.times, "loss": trainer.state.log_history[-1]["train_loss"], **gpu_memory()}


def loaded(given: dict[str, Any]) -> tuple[Any, Any]:
    """The model to train and its tokenizer."""
    tokenizer = AutoTokenizer.from_pretrained(given["start"], padding_side="left")
    dtype = getattr(torch, given.get("dtype", "float32"))
    read: dict[str, Any] = {"dtype": dtype}
    if given.get("quantized"):
        read["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        read["device_map"] = {"": 0 if torch.cuda.is_available() else "cpu"}
    if given["task"] != "reward":
        return AutoModelForCausalLM.from_pretrained(given["start"], **read), tokenizer
    model = AutoModelForSequenceClassification.from_pretrained(given["start"], num_labels=1, **read)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


def examples(task: str, rows: dict[str, Any], model: Any, tokenizer: Any, given: dict[str, Any]) -> list[Any]:
    """The rows in the format that the task's trainer takes."""
    if task == "sft":
        return [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows["preferences"]]
    if task == "start":
        return rows["demonstrations"]
    if task in ONLINE:
        return [{"prompt": prompt} for prompt in rows["prompts"]]
    if task == "rejection_sampling":
        return best(model, tokenizer, rows["prompts"], given)
    return rows["preferences"]


def arguments(given: dict[str, Any]) -> Any:
    """The trainer's config."""
    task = given["task"]
    more: dict[str, Any] = {"max_length": None}
    if task in ONLINE:
        more = {
            "num_generations": given["generations"],
            "gradient_accumulation_steps": given["generations"],
            "max_completion_length": given["response"],
            "temperature": 1.0,
            "top_p": 1.0,
            "top_k": 0,
            "beta": 0.05,
            **({"loss_type": "grpo", "scale_rewards": "group"} if task == "grpo" else {}),
        }
    steps = given.get("online_steps" if task in ONLINE else "steps", 100)
    return getattr(trl, f"{NAMES[task]}Config")(
        output_dir=str(Path(given["out"]) / "trainer"),
        per_device_train_batch_size=given["batch"],
        num_train_epochs=1,
        learning_rate=given["learning_rate"],
        warmup_steps=0.1 if steps > 10 else 0,  # of ten steps that would be one, at rate 0, which ours leaves out
        seed=given["seed"],
        data_seed=given["seed"],
        logging_steps=5,
        optim="adamw_torch_fused",
        **{"bf16": False, "gradient_checkpointing": False, **given.get("training", {})},
        report_to="none",
        save_strategy="no",
        disable_tqdm=True,
        use_cpu=not torch.cuda.is_available(),
        **more,
    )


def scored_by(path: str) -> dict[str, Any]:
    """The trainer's arguments for a reward model."""
    reward, tokenizer = classifier(path)
    return {"reward_funcs": reward, "reward_processing_classes": tokenizer}


def classifier(path: str) -> tuple[Any, Any]:
    """A reward model and its tokenizer."""
    model = AutoModelForSequenceClassification.from_pretrained(path, num_labels=1, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, tokenizer


@torch.inference_mode()
def sampled(model: Any, tokenizer: Any, prompts: list[Any], given: dict[str, Any], n: int = 1) -> list[torch.Tensor]:
    """Batches of prompts and replies, (B, P + T), prompts of similar length side by side."""
    texts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in prompts]
    order = sorted((text for text in texts for _ in range(n)), key=len)
    batches = []
    for begin in range(0, len(order), 128):
        inputs = tokenizer(order[begin : begin + 128], padding=True, add_special_tokens=False, return_tensors="pt")
        output = model.generate(
            **inputs.to(model.device),
            max_new_tokens=given["response"],
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
        )
        batches.append((inputs["input_ids"].shape[1], output))
    return batches


@torch.inference_mode()
def scores(path: str, asked: list[str], replies: list[str]) -> list[float]:
    """Of each reply by the reward model."""
    model, tokenizer = classifier(path)
    texts = [a + reply + tokenizer.eos_token for a, reply in zip(asked, replies, strict=True)]
    found: list[float] = []
    for begin in range(0, len(texts), 64):
        inputs = tokenizer(
            texts[begin : begin + 64], padding=True, padding_side="right", add_special_tokens=False, return_tensors="pt"
        )
        found += model(**inputs.to(model.device)).logits[:, 0].tolist()
    return found


def best(model: Any, tokenizer: Any, prompts: list[Any], given: dict[str, Any]) -> list[dict[str, Any]]:
    """The best of several sampled replies to each prompt, as rows to imitate."""
    asked = {tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False): p for p in prompts}
    pairs = [
        pair
        for width, batch in sampled(model, tokenizer, list(asked.values()), given, given["generations"])
        for pair in decoded(tokenizer, width, batch)
    ]
    texts = [p for p, _ in pairs]
    chosen: dict[str, tuple[float, str]] = {}
    for text, (_, reply), score in zip(
        texts, pairs, scores(given["reward"], texts, [r for _, r in pairs]), strict=True
    ):
        chosen[text] = max(chosen.get(text, (-float("inf"), "")), (score, reply))
    return [
        {"prompt": asked[text], "completion": [{"role": "assistant", "content": reply}]}
        for text, (_, reply) in chosen.items()
    ]


def decoded(tokenizer: Any, width: int, batch: torch.Tensor) -> list[tuple[str, str]]:
    """Each prompt's text, as it was rendered, and its reply's."""
    asked = tokenizer.batch_decode(batch[:, :width])
    texts = [text.replace(tokenizer.pad_token, "") for text in asked]
    return list(zip(texts, tokenizer.batch_decode(batch[:, width:], skip_special_tokens=True), strict=True))


@torch.inference_mode()
def evaluate(model: Any, tokenizer: Any, prompts: list[Any], given: dict[str, Any]) -> None:
    """Replies to the test prompts, their scores and their KL to the start, into `evaluation.json`."""
    batches = sampled(model, tokenizer, prompts, given)
    pairs = [pair for width, batch in batches for pair in decoded(tokenizer, width, batch)]
    divergences: list[float] = []
    for width, batch in batches:
        for part in batch.split(32):
            attention = (part != tokenizer.pad_token_id).long()
            own = model(input_ids=part, attention_mask=attention).logits[:, width - 1 : -1].log_softmax(-1)
            with model.disable_adapter():
                start = model(input_ids=part, attention_mask=attention).logits[:, width - 1 : -1].log_softmax(-1)
            each = (own.exp() * (own - start)).sum(-1) * attention[:, width:]
            divergences += each.sum(-1).tolist()
    found = scores(given["reward"], [p for p, _ in pairs], [r for _, r in pairs])
    write(Path(given["out"]) / "evaluation.json", {"replies": pairs, "scores": found, "kl": divergences})


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    write(Path(settings["out"]) / "found.json", main(settings))
