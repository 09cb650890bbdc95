"""PPO as LLaMA-Factory 0.9.3 does it on trl 0.9.6; run by its own environment's Python.

    .venv-llamafactory/bin/python benchmarks/llamafactory/train.py SETTINGS.json

The policy has a LoRA adapter and is its own reference; the reward is another adapter on the same base with a head; the
critic is a head on the policy's own hidden states (LLaMA-Factory's `reward_model_type: lora`). LLaMA-Factory passes
over replies under autocast to bfloat16, on a CPU too. That is left out: a CPU without instructions for bfloat16
multiplies matrices in it eight times slower than in float32, and the other side computes in float32.
"""

from __future__ import annotations

import json
import shutil
import sys
from contextlib import nullcontext
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from clock import Clock
from llamafactory.train.ppo.trainer import CustomPPOTrainer
from llamafactory.train.tuner import run_exp
from measuring import resident_bytes, versions, write
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer


def start_for_older(start: Path, folder: Path) -> None:
    """The start as transformers 4 reads it: the tokenizer's class has another name there."""
    shutil.copytree(start, folder)
    path = folder / "tokenizer_config.json"
    noted = json.loads(path.read_text())
    noted["additional_special_tokens"] = noted.pop("extra_special_tokens")
    write(path, {**noted, "tokenizer_class": "PreTrainedTokenizerFast"})


def reward_for_llamafactory(reward: Path, folder: Path) -> None:
    """The reward's adapter and head in LLaMA-Factory's files: the adapter of a language model, and a value head."""
    folder.mkdir()
    weights = load_file(str(reward / "adapter_model.safetensors"))
    head = weights.pop("base_model.model.score.weight")
    save_file(weights, str(folder / "adapter_model.safetensors"))
    values = {"v_head.summary.weight": head, "v_head.summary.bias": head.new_zeros(1)}
    save_file(values, str(folder / "value_head.safetensors"))
    noted = json.loads((reward / "adapter_config.json").read_text())
    kept = ("base_model_name_or_path", "peft_type", "r", "lora_alpha", "lora_dropout", "target_modules")
    write(folder / "adapter_config.json", {**{k: noted[k] for k in kept}, "task_type": "CAUSAL_LM"})


def prompts_for_llamafactory(prompts: list, start: Path, folder: Path) -> None:
    """A dataset whose prompts are already in the template of the start."""
    folder.mkdir()
    tokenizer = AutoTokenizer.from_pretrained(start)
    texts = [tokenizer.apply_chat_template(p, add_generation_prompt=True, tokenize=False) for p in prompts]
    write(folder / "prompts.json", [{"instruction": text, "input": "", "output": ""} for text in texts])
    write(folder / "dataset_info.json", {"prompts": {"file_name": "prompts.json"}})


def main(given: dict) -> None:
    imported = resident_bytes()
    out = Path(given["out"])
    start_for_older(Path(given["start"]), out / "start")
    reward_for_llamafactory(Path(given["reward"]), out / "reward")
    prompts_for_llamafactory(given["prompts"], out / "start", out / "data")
    made = CustomPPOTrainer.__init__

    def without_autocast(self: CustomPPOTrainer, *args: object, **more: object) -> None:
        made(self, *args, **more)
        self.amp_context = nullcontext()

    CustomPPOTrainer.__init__ = without_autocast
    clock = Clock("reward")
    arguments = {
        "stage": "ppo",
        "do_train": True,
        "model_name_or_path": str(out / "start"),
        "reward_model": str(out / "reward"),
        "reward_model_type": "lora",
        "finetuning_type": "lora",
        "lora_rank": given["r"],
        "lora_alpha": given["alpha"],
        "lora_dropout": 0.0,
        "lora_target": "all",
        "template": "empty",
        "dataset": "prompts",
        "dataset_dir": str(out / "data"),
        "cutoff_len": 512,
        "per_device_train_batch_size": given["batch"],
        "gradient_accumulation_steps": 1,
        "ppo_buffer_size": 1,
        "ppo_epochs": given["epochs"],
        "num_train_epochs": 1,
        "max_new_tokens": given["response"],
        "temperature": given["temperature"],
        "top_k": 0,
        "top_p": 1.0,
        "learning_rate": given["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "optim": "adamw_torch_fused",
        "disable_gradient_checkpointing": True,
        "seed": given["seed"],
        "logging_steps": 1,
        "save_steps": 10**6,
        "report_to": "none",
        "output_dir": str(out / "policy"),
    }
    run_exp(arguments, [clock])
    found = {"imported_bytes": imported, "times": clock.times, "scores": clock.scores}
    write(out / "found.json", {**found, "versions": versions()})


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
