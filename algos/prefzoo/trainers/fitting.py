"""Hand a bench to a TRL trainer: the one place where trainers are built, so that all are built alike."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from datasets import Dataset
from transformers import TrainerCallback, set_seed

from prefzoo import validation_messages
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS, Bench, Policy
from prefzoo.models.adapters import adapter_config, check_modules, of_adapter, restore
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device
from prefzoo.models.saved_policy import SavedPolicy
from prefzoo.trainers.charging import Charging
from prefzoo.trainers.checkpoints import Checkpoints, resumable
from prefzoo.trainers.config_audit import asked_and_used, training_facts
from prefzoo.trainers.curves import CURVES, Curves, guard_trackers, losses, reporting_arguments
from prefzoo.trainers.departures import TRAININGS
from prefzoo.trainers.milestones import Milestones

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments


def fit(
    bench: Bench,
    trainer_class: type[Trainer],
    config_class: type[TrainingArguments],
    rows: list[dict[str, Any]],
    settings: dict[str, Any],
    reference: bool = False,
    callbacks: Sequence[TrainerCallback] = (),
    **more: Any,
) -> LanguageModelPolicy:
    """Train a fresh adapter on the start (or go on with `bench.latest`), save it, and return what was saved, which is
    read when it is first used.

    Args:
        bench: gives the start, the adapter, the shared training arguments, the seed and the folder.
        trainer_class, config_class: a TRL trainer and its config.
        rows: the training rows, in the format that the trainer takes.
        settings: what is particular to the algorithm; overrides the shared arguments.
        reference: whether the start passes over the same tokens too, forward only; charged, where the trainer has not
            done that (`KnownReference`).
        callbacks: of the trainer, beside those that all have.
        more: further arguments of the trainer.

    Raises:
        PrefzooError: when there are no rows, or the loss stopped being a number.
    """
    if not rows:
        raise PrefzooError(f"{trainer_class.__name__} was given no rows to train on")
    learner = bench.latest or LanguageModelPolicy.from_start(bench.start, **bench.loading)
    assert isinstance(learner, LanguageModelPolicy)
    going_on = _thawed(learner.model) if learner.adapted else {}
    if not learner.adapted:
        check_modules(learner.model, bench.adapter)
    set_seed(bench.seed)  # the adapter is drawn here; TRL seeds that itself only from 1.15
    peft_config = None if learner.adapted else adapter_config(bench.adapter, "CAUSAL_LM")
    trainer = resumable(trainer_class)(
        model=learner.model,
        args=arguments(bench, config_class, settings),
        train_dataset=Dataset.from_list(rows),
        processing_class=learner.tokenizer,
        peft_config=peft_config,
        callbacks=[Progress(bench, trainer_class.__name__), *callbacks],
        **more,
    )
    if learner.adapted:
        _go_on(trainer.model, going_on)

    def policy(model: Any) -> LanguageModelPolicy:
        return LanguageModelPolicy(model, learner.tokenizer, bench.start, learner.loading)

    charged_already = bench.data.sampled or settings.get("include_num_input_tokens_seen") == "no"
    prompts = 0 if charged_already else _prompts(rows)
    reference = reference and not getattr(trainer, "reference_is_charged", False)
    run_trainer(trainer, bench, not learner.adapted, Charging(trainer, bench, prompts, reference), policy)
    folder = bench.out / "policy"
    if trainer.is_world_process_zero():
        policy(trainer.accelerator.unwrap_model(trainer.model)).save(folder)
    trainer.accelerator.wait_for_everyone()
    return SavedPolicy(folder)


def _thawed(model: Any) -> dict[str, torch.Tensor]:
    """Let the adapter of a loaded model, which is frozen, be trained on; what its weights are now."""
    for name, weight in model.named_parameters():
        weight.requires_grad_(of_adapter(name))
    return {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}


def _go_on(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Begin with these weights of the adapter, and with the start as the reference."""
    # TRL holds what an adapted model is given as to the reference; here that is the start, with the adapter off.
    if "ref" in model.peft_config:
        model.delete_adapter("ref")
    for name, weight in model.named_parameters():
        if name in weights:
            weight.data = weights[name]


def _prompts(rows: list[dict[str, Any]]) -> int:
    """How many prompts there are in training rows; a row without one stands for itself."""
    return len({json.dumps(row.get("prompt", row), sort_keys=True, default=str) for row in rows})


def arguments(bench: Bench, config_class: type[TrainingArguments], settings: dict[str, Any]) -> TrainingArguments:
    """A trainer's config: the bench's shared arguments, then what is particular to the algorithm.

    Raises:
        PrefzooError: when an optimizer step's rows cannot be divided among the processes, or this machine cannot do
            what is asked for.
    """
    training = bench.training
    if device().type == "cpu":
        optimizer = str(settings.get("optim", training.optim))
        if optimizer.startswith("paged"):
            # bitsandbytes itself would fall back to one that is not paged.
            raise PrefzooError(validation_messages.paged("training.optim", optimizer))
        if settings.get("fp16", training.fp16):
            raise PrefzooError(validation_messages.half_precision("training.fp16"))
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by `accelerate launch`
    rows, over = divmod(training.batch_size, training.accumulation * processes)
    if over:
        raise PrefzooError(
            f"training.batch_size {training.batch_size} cannot be divided into {training.accumulation} passes "
            f"(training.accumulation) on each of {processes} processes"
        )
    shared: dict[str, Any] = {
        "output_dir": str(bench.out / CHECKPOINTS),
        "per_device_train_batch_size": rows,
        "gradient_accumulation_steps": training.accumulation,
        "num_train_epochs": bench.budget.epochs,
        "learning_rate": training.learning_rate,
        "lr_scheduler_type": training.lr_scheduler_type,
        "warmup_steps": training.warmup_ratio,  # below 1 it is a share of all steps
        "weight_decay": training.weight_decay,
        "max_grad_norm": training.max_grad_norm,
        "optim": training.optim,
        "bf16": training.bf16,
        "fp16": training.fp16,
        "gradient_checkpointing": training.gradient_checkpointing,
        "seed": bench.seed,
        "data_seed": bench.seed,
        "logging_steps": 5,
        "logging_first_step": True,  # where DPO's loss is ln 2, and a short training has little more
        "logging_nan_inf_filter": False,  # a loss that is not a number must be seen
        "include_num_input_tokens_seen": "non_padding",
        "save_strategy": "no",  # see `checkpoints`
        "save_total_limit": 2,
        "disable_tqdm": True,
        "use_cpu": not torch.cuda.is_available(),
        "dataloader_pin_memory": torch.cuda.is_available(),
        **reporting_arguments(bench),
    }
    if "disable_dropout" in config_class.__dataclass_fields__:
        shared["disable_dropout"] = False  # the model's own is off in all trainers; the adapter's is the recipe's
    if "max_length" in config_class.__dataclass_fields__:
        shared["max_length"] = None  # rows were made to fit, for all algorithms at once
    return config_class(**{**shared, **settings})


def run_trainer(
    trainer: Trainer,
    bench: Bench,
    new: bool = True,
    charging: Charging | None = None,
    policy: Callable[[Any], Policy] | None = None,
) -> None:
    """Train (or go on with a training that was killed), charge the ledger, keep the curves in `curves.json` and what
    was used, beside what was asked for, in the bench's report.

    Args:
        trainer: built by a class that `resumable` returned.
        new: whether its adapter is a new one.
        charging: its account; None charges what was trained on alone.
        policy: makes a policy of its model, where that is one, so that it can be kept on the way.

    Raises:
        PrefzooError: when a logged loss is not a finite number.
    """
    charging = charging or Charging(trainer, bench, prompts=0, reference=False)
    if bench.adapter.type != "full":
        # TRL rounds what is trained on a quantized base to bfloat16, in which small steps are lost.
        if new:
            restore(trainer.model)
        head = getattr(torch, bench.loading.get("dtype", "float32"))
        for name, weight in trainer.model.named_parameters():
            if weight.requires_grad:
                weight.data = weight.data.to(torch.float32 if "lora_" in name else head)
    trainer.add_callback(Curves(bench.out / CURVES))
    guard_trackers(trainer, bench)
    checkpoints = Checkpoints(bench, trainer)
    if bench.milestones and policy is not None:
        trainer.add_callback(Milestones(bench, trainer, charging, checkpoints.folder, policy))
    trainer.add_callback(checkpoints)  # last, for it clears its folder when the training ends
    checkpoints.train()
    charging.settle()
    bench.report["model"] = asked_and_used(bench, trainer)
    bench.report.setdefault(TRAININGS, []).append(training_facts(trainer))
    logged = [
        (float(entry.get("loss", entry.get("train_loss", 0.0))), entry["step"]) for entry in losses(trainer.state)
    ]
    bad = [(loss, step) for loss, step in logged if not math.isfinite(loss)]
    # The last steps may be in no log: what they did to the weights is.
    if bad or not all(bool(torch.isfinite(w).all()) for w in trainer.model.parameters() if w.requires_grad):
        loss, step = bad[0] if bad else logged[-1]
        raise PrefzooError(
            f"training diverged: the loss is {loss} at step {step} of {trainer.state.max_steps}, or weights are not "
            "finite; a lower learning_rate usually helps"
        )


class Progress(TrainerCallback):
    """Tells the bench's watcher how many optimizer steps are done."""

    def __init__(self, bench: Bench, what: str) -> None:
        self.bench, self.what = bench, what.removesuffix("Trainer")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **more: Any) -> None:
        self.bench.progress(self.what, state.global_step, state.max_steps)
