"""The config that a trainer is built with: what all trainers share, and what is particular to an algorithm."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from prefzoo import validation_messages
from prefzoo.errors import PrefzooError
from prefzoo.interface import CHECKPOINTS, Bench
from prefzoo.machine import refuse_divided_weights
from prefzoo.models.loading import device
from prefzoo.trainers.curves import reporting_arguments
from prefzoo.trainers.divided_weights import refuse_indivisible

if TYPE_CHECKING:
    from transformers import TrainingArguments


def arguments(
    bench: Bench, config_class: type[TrainingArguments], settings: dict[str, Any], per_example: int = 1
) -> TrainingArguments:
    """Return a trainer's config: the bench's shared arguments, then what is particular to the algorithm.

    Args:
        per_example: how many training rows count as one of `training.batch_size`; see `views.rows_per_example`.

    Raises:
        PrefzooError: when an optimizer step's rows cannot be divided among the processes, or this machine cannot do
            what is asked for.
    """
    refuse_divided_weights()
    if bench.adapter.type == "qlora":
        refuse_indivisible("adapter.type 'qlora'")
    training = bench.training
    if device().type == "cpu":
        optimizer = str(settings.get("optim", training.optim))
        if optimizer.startswith("paged"):
            # bitsandbytes itself would fall back to one that is not paged.
            raise PrefzooError(validation_messages.paged_without_gpu("training.optim", optimizer))
        if settings.get("fp16", training.fp16):
            raise PrefzooError(validation_messages.fp16_without_gpu("training.fp16"))
    processes = int(os.environ.get("WORLD_SIZE", 1))  # set by `accelerate launch`
    rows, over = divmod(training.batch_size * per_example, training.accumulation * processes)
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
