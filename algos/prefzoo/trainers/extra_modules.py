"""Modules of an algorithm's own on the model that a trainer trains, such as a value head."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from prefzoo.models.policy_kinds import EXTRA
from prefzoo.trainers.divided_weights import is_divided, take_from_first

if TYPE_CHECKING:
    from transformers import Trainer


def add_module(trainer: Trainer, name: str, module: nn.Module) -> None:
    """Put `module` on the trainer's model under `name`: it is optimized, clipped, kept in checkpoints and counted as
    trained weights, like the adapter.

    `fit` calls it for the modules of a policy kind. With several processes the module's gradient is averaged after each
    backward pass, wherever in the loss the module was used; each process must use it in each pass. What is saved of the
    language model leaves the module out.

    Args:
        trainer: built, and not begun.
        name: of the module; no other module of the model may begin with it.
        module: whose parameters are trained; its buffers are not kept in checkpoints.
    """
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    model.add_module(name, module.to(accelerator.device))
    setattr(model, EXTRA, (*getattr(model, EXTRA, ()), name))
    if accelerator.num_processes == 1:
        return
    take_from_first(module.parameters())
    if is_divided(trainer):  # with the model's own weights, and its gradients are averaged with theirs
        return

    def average(weight: torch.Tensor) -> None:
        # What earlier passes of the step added up is alike in all processes already, and its mean is itself.
        assert weight.grad is not None
        weight.grad.copy_(accelerator.reduce(weight.grad, "mean"))

    for weight in module.parameters():
        weight.register_post_accumulate_grad_hook(average)
    # DistributedDataParallel takes a weight that is used outside of its own forward pass for an unused one.
    own = [f"{name}.{key}" for key in module.state_dict()]
    ignored = getattr(model, "_ddp_params_and_buffers_to_ignore", [])
    model._ddp_params_and_buffers_to_ignore = [*ignored, *own]
