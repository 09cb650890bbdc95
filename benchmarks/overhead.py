"""What our wrappers cost beside raw TRL: time and peak memory of the same training, each in a fresh process.

    python benchmarks/overhead.py [--prompts 800] [--repeats 5] [--tasks dpo,sft,reward] [--out overhead.json]

Each task is trained by `prefzoo` and by a plain TRL script with the same model (the lab's), the same rows and the same
settings; the final losses must agree, or the two did not do the same work. Both sides load the model, train, and save;
ours loads the saved policy again, because that is what an algorithm returns. The two sides of a pair run one after the
other, in alternating order; ratios are of the medians. The goal is at most 1.05. Processor time is told beside the
whole time, because on a machine that others use too the whole time says little.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from measuring import machine, measured, medians, ratios, write

GOAL = 1.05
SIDES = ("prefzoo", "trl")
TASKS = ("dpo", "sft", "reward")
SEED = 0


def with_prefzoo(task: str, rows: list[dict[str, Any]], out: Path) -> float:
    """Train through our wrapper; the mean loss of the training."""
    import prefzoo
    from prefzoo.data.views import Views
    from prefzoo.lab import MODEL_DIR
    from prefzoo.settings import Adapter, Budget, Generation, Training

    bench = prefzoo.Bench(
        start=str(MODEL_DIR),
        data=Views([row["prompt"] for row in rows], rows, []),
        reward=None,
        adapter=Adapter(),
        budget=Budget(prompts=len(rows)),
        generation=Generation(),
        training=Training(learning_rate=1e-3),
        seed=SEED,
        out=out,
    )
    if task == "reward":
        from prefzoo.feedback.reward_model import train_reward_model

        train_reward_model(bench, {})
    else:
        prefzoo.get(task).train(bench)
    return json.loads((out / "curves.json").read_text())[-1][-1]["train_loss"]


def with_trl(task: str, rows: list[dict[str, Any]], out: Path) -> float:
    """Train as TRL's own documentation does; the mean loss of the training."""
    import torch
    import trl
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer, set_seed

    from prefzoo.lab import MODEL_DIR

    reward = task == "reward"
    name = {"dpo": "DPO", "sft": "SFT", "reward": "Reward"}[task]
    set_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(MODEL_DIR, padding_side="left")
    if reward:
        model = AutoModelForSequenceClassification.from_pretrained(MODEL_DIR, num_labels=1, dtype=torch.float32)
        model.config.pad_token_id = tokenizer.pad_token_id
    else:
        model = AutoModelForCausalLM.from_pretrained(MODEL_DIR, dtype=torch.float32)
    if task == "sft":
        rows = [{"prompt": row["prompt"], "completion": row["chosen"]} for row in rows]
    trainer = getattr(trl, f"{name}Trainer")(
        model=model,
        args=getattr(trl, f"{name}Config")(
            output_dir=str(out / "trainer"),
            per_device_train_batch_size=16,
            num_train_epochs=1,
            learning_rate=1e-3,
            warmup_steps=0.1,
            seed=SEED,
            data_seed=SEED,
            logging_steps=5,
            optim="adamw_torch_fused",
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=16,
            lora_alpha=32,
            target_modules="all-linear",
            task_type="SEQ_CLS" if reward else "CAUSAL_LM",
            modules_to_save=["score"] if reward else None,
        ),
    )
    trainer.train()
    trainer.save_model(str(out / "saved"))
    return trainer.state.log_history[-1]["train_loss"]


def trial(side: str, task: str, rows: Path, out: Path) -> dict[str, float]:
    """One training in a process of its own: what it used, and its loss."""
    command = [sys.executable, __file__, "--child", side, "--tasks", task, "--rows", str(rows), "--out", str(out)]
    return {**measured(command, out), "loss": json.loads((out / "loss").read_text())}


def compare(tasks: list[str], prompts: int, repeats: int) -> dict[str, Any]:
    """All runs, and for each task the medians and their ratios."""
    from prefzoo import lab

    found: dict[str, Any] = {"machine": machine(), "prompts": prompts, "repeats": repeats, "goal": GOAL, "tasks": {}}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder) / "rows.json"
        pairs = lab.preferences("train", prompts, SEED)
        content = [
            {
                "prompt": [{"role": "user", "content": pair["prompt"]}],
                "chosen": [{"role": "assistant", "content": pair["chosen"]}],
                "rejected": [{"role": "assistant", "content": pair["rejected"]}],
            }
            for pair in pairs
        ]
        rows.write_text(json.dumps(content))
        for task in tasks:
            runs: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
            for turn in range(repeats):
                for side in SIDES if turn % 2 == 0 else SIDES[::-1]:
                    runs[side].append(trial(side, task, rows, Path(folder) / f"{task}-{side}-{turn}"))
                print(f"{task}: pair {turn + 1} of {repeats}", file=sys.stderr)
            losses = {run["loss"] for each in runs.values() for run in each}
            if max(losses) - min(losses) > 1e-5:
                raise SystemExit(f"{task}: the losses differ ({sorted(losses)}); the two sides did other work")
            middle = {side: medians(each) for side, each in runs.items()}
            found["tasks"][task] = {
                "medians": middle,
                "ratios": ratios(middle["prefzoo"], middle["trl"]),
                "runs": runs,
            }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prompts", type=int, default=800)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--tasks", default=",".join(TASKS))
    parser.add_argument("--out", type=Path, default=Path("overhead.json"))
    parser.add_argument("--child", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--rows", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        train = {"prefzoo": with_prefzoo, "trl": with_trl}[given.child]
        loss = train(given.tasks, json.loads(given.rows.read_text()), given.out)
        (given.out / "loss").write_text(json.dumps(loss))
        return
    found = compare(given.tasks.split(","), given.prompts, given.repeats)
    write(given.out, found)
    units = {"seconds": ("s", 1), "cpu_seconds": ("cpu s", 1), "peak_bytes": ("MiB", 2**20)}
    print("task  " + "".join(f"{'prefzoo ' + unit:>15}{'trl ' + unit:>11}{'ratio':>8}" for unit, _ in units.values()))
    for task, each in found["tasks"].items():
        line = f"{task:6}"
        for what, (_, size) in units.items():
            ours, raw = (each["medians"][side][what] / size for side in SIDES)
            line += f"{ours:15.1f}{raw:11.1f}{each['ratios'][what]:8.3f}"
        print(line)
    print(given.out)


if __name__ == "__main__":
    main()
