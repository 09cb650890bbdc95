"""Weights that the processes of a training divide among themselves (FSDP2): how they are divided, gathered and saved.

Each weight is a `DTensor`, of which a process holds its share; the weights of a block of the model are whole while the
block is computed. What is saved is made of gathered weights, by the first process: all must ask for them together.
Where nothing is divided, the functions here give what a trainer has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from accelerate import PartialState
from accelerate.utils import DistributedType, gather_object
from torch.distributed.tensor import DTensor, distribute_tensor

from prefzoo.errors import PrefzooError
from prefzoo.interface import is_first_process
from prefzoo.machine import divides_weights
from prefzoo.models.weight_counts import is_finite

if TYPE_CHECKING:
    from transformers import Trainer

SKELETON = "skeleton"
"""Attribute of a trainer: its model as it was before its weights were divided, without their numbers."""


def refuse_indivisible(what: str) -> None:
    """Refuse to train with divided weights what needs whole ones.

    Raises:
        PrefzooError: where the launch divides weights.
    """
    if divides_weights():
        raise PrefzooError(
            f"{what} cannot be trained with weights that FSDP divides over processes; launch it with data parallel "
            "processes (recipes/accelerate/ddp.yaml), and let it fit by adapter.type=qlora. docs/scale.md says what can"
        )


def divide_on_cpus() -> None:
    """Have accelerate divide weights on CPUs too, where it would pass over FSDP and train data parallel.

    It takes FSDP for processes whose distributed type is that of a GPU, when it is asked for a trainer's accelerator.
    The type says nothing else by then: the processes were joined, and their device chosen, when the trainer's arguments
    were made, which is after when this must be called, each time.
    """
    state = PartialState()
    if divides_weights() and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def prepare_dividing(trainer: Trainer) -> None:
    """Prepare a trainer whose weights will be divided when it begins: keep its model's skeleton, and compute in the
    precision of one process.

    accelerate would have FSDP compute in bfloat16 throughout, and average gradients in it. Autocast, as in one process,
    leaves weights, norms, the stream between blocks and gradients in their own precision.
    """
    if not is_divided(trainer):
        return
    setattr(trainer, SKELETON, without_numbers(trainer.model))
    trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = None
    trainer.accelerator.prepare_model(trainer.model, device_placement=False, evaluation_mode=True)


def is_divided(trainer: Trainer) -> bool:
    """Whether the weights of a trainer's model are divided, or will be when it begins."""
    return bool(trainer.is_fsdp_enabled)


def without_numbers(model: Any) -> Any:
    """Return a copy of a model whose weights are on torch's `meta` device: all but their numbers."""
    weights = {
        id(weight): torch.nn.Parameter(weight.detach().to("meta"), weight.requires_grad) for weight in model.parameters()
    }
    return copy.deepcopy(model, weights)


def whole_model(trainer: Trainer) -> Any:
    """Return a trainer's model to be saved.

    Of divided weights it is a copy in which the trained ones are whole, on the CPU, in the first process, and none
    elsewhere; what is frozen has no numbers. All processes must ask at the same time.
    """
    if not is_divided(trainer):
        return trainer.accelerator.unwrap_model(trainer.model)
    trained = trained_weights(trainer)
    model = copy.deepcopy(getattr(trainer, SKELETON))
    if trained:
        model.load_state_dict(trained, strict=False, assign=True)
        model.tie_weights()
    return model


def trained_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return a copy of each trained weight by its name, whole and on the CPU, in the first process; divided weights are
    gathered one after the other, for which all processes must ask at the same time."""
    found = {}
    for name, weight in _trained(trainer.accelerator.unwrap_model(trainer.model)):
        whole = weight.detach()
        if isinstance(whole, DTensor):
            whole = whole.full_tensor()
        if is_first_process():
            found[name] = whole.cpu().contiguous()
    return found


def set_trained_weights(model: Any, saved: dict[str, torch.Tensor]) -> None:
    """Give the trained weights of a model the numbers that `trained_weights` returned.

    Raises:
        ValueError: when other weights are trained.
    """
    trained = dict(_trained(model))
    if odd := trained.keys() ^ saved.keys():
        raise ValueError(f"other weights were trained: {min(odd)}")
    with torch.no_grad():
        for name, weight in trained.items():
            numbers = saved[name]
            if isinstance(weight, DTensor):
                numbers = distribute_tensor(numbers.to(weight.device), weight.device_mesh, weight.placements)
            weight.copy_(numbers)


def all_finite(trainer: Trainer) -> bool:
    """Whether all trained weights are finite numbers, those of other processes included, which must ask too."""
    return all(gather_object([is_finite(trainer.model)]))


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
