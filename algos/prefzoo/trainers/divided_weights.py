"""Weights that the processes of a training divide among themselves (FSDP2): how they are divided, gathered and saved.

Each weight is a `DTensor`, of which a process holds its share; the weights of a block of the model are whole while the
block is computed, and those of all blocks while a trainer samples (`whole_weights`). What is saved is made of gathered
weights, by the first process: all must ask for them together. Where nothing is divided, the functions here give what a
trainer has.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast
from unittest import mock

import torch
from accelerate import PartialState
from accelerate.utils import AutocastKwargs, DistributedType, broadcast, gather_object
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from prefzoo.errors import PrefzooError
from prefzoo.interface import is_first_process
from prefzoo.machine import divides_weights
from prefzoo.models.weight_counts import BACKBONE, is_finite

if TYPE_CHECKING:
    from transformers import Trainer

PASS = "pass_through"
"""Attribute of a divided model: a method that FSDP takes for a forward pass; see `as_forward_pass`."""
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

    It divides where the type of the processes is that of several GPUs when a trainer's accelerator is made, which is
    when this must be called. The type decides nothing else by then: the processes were joined, and their device chosen,
    when the trainer's arguments were made.
    """
    state = PartialState()
    if divides_weights() and state.distributed_type == DistributedType.MULTI_CPU:
        state.distributed_type = DistributedType.MULTI_GPU


def keep_precision(trainer: Trainer) -> None:
    """Have FSDP gather weights and average gradients in their own precision; nothing changes without FSDP.

    accelerate would have it compute in bfloat16 throughout, and average gradients in it. Autocast (`prepare_dividing`)
    leaves norms and the stream between blocks in float32, as it does in one process.

    Raises:
        PrefzooError: when the launch divides weights and accelerate does not.
    """
    if is_divided(trainer):
        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = None
    elif divides_weights():
        raise PrefzooError(
            f"the launch asks for FSDP, and accelerate does not divide weights on {trainer.accelerator.device}; launch "
            "data parallel processes (recipes/accelerate/ddp.yaml)"
        )


def prepare_dividing(trainer: Trainer) -> None:
    """Prepare a trainer whose weights will be divided when it begins: keep its model's skeleton, and have its models
    compute under autocast where one process's would."""
    if not is_divided(trainer):
        return
    setattr(trainer, SKELETON, without_numbers(trainer.model))
    # Else each process would add up whole gradients until the last pass of a step.
    trainer.accelerator.gradient_state.plugin_kwargs["sync_each_batch"] = True
    # Copies of weights in 16 bits, which autocast would keep of all blocks until the pass has ended.
    trainer.accelerator.autocast_handler = AutocastKwargs(cache_enabled=False)
    reference = getattr(trainer, "ref_model", None)
    for model in (*([] if reference is None else [reference]), trainer.model):
        trainer.accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)


def divided_blocks(model: Any) -> Any:
    """Divide the blocks of a model that is not trained, each by itself, so that one is whole at a time; what is outside
    of them is left to TRL, or to `divided_model`."""
    for module in model.modules():
        if type(module).__name__ in (model._no_split_modules or ()):
            fully_shard(module, reshard_after_forward=True)
    return model


def divided_model(model: Any) -> Any:
    """Divide a model that is not trained, on the device of the processes; what is outside of its blocks is whole from
    its first pass on."""
    return fully_shard(divided_blocks(model))


@contextlib.contextmanager
def references_by_blocks() -> Iterator[None]:
    """Within this block a reference that TRL makes for itself is divided block by block, where TRL would gather all of
    it for each pass."""
    from trl.models.utils import prepare_fsdp
    from trl.trainer import grpo_trainer, rloo_trainer

    def by_blocks(model: Any, accelerator: Any) -> Any:
        return prepare_fsdp(divided_blocks(model), accelerator)

    with contextlib.ExitStack() as patched:
        for module in (grpo_trainer, rloo_trainer):
            patched.enter_context(mock.patch.object(module, "prepare_fsdp", by_blocks))
        yield


def is_divided(trainer: Trainer) -> bool:
    """Whether the weights of a trainer's model are divided, or will be when it begins."""
    return bool(trainer.is_fsdp_enabled)


@contextlib.contextmanager
def whole_weights(trainer: Trainer, *models: Any) -> Iterator[None]:
    """Within this block every process has all weights of these models of a trainer, its policy unless others are named,
    and passes through them as often as it likes: to sample, each must take as many steps as its own replies have. A
    critic's own model stays divided, through which all pass together. What is written into the weights is lost.

    All processes must enter it at the same time.
    """
    if not is_divided(trainer):
        yield
        return
    roots = [trainer.accelerator.unwrap_model(model) for model in models or (trainer.model,)]
    for root in roots:
        as_forward_pass(root, lambda: None)  # the first pass decides which module is the root
    divided = [
        module
        for root in roots
        for name, module in root.named_modules()
        if isinstance(module, FSDPModule) and not name.startswith(BACKBONE)
    ]
    groups = [group for module in divided for group in module._get_fsdp_state()._fsdp_param_groups]
    after_passes = [group.post_forward_mesh_info for group in groups]  # None where weights stay whole after a pass
    for group in groups:
        group.post_forward_mesh_info = None
    for module in divided:
        module.unshard()
    trained = {weight: weight.requires_grad for root in roots for weight in root.parameters()}
    try:
        yield
    finally:
        for weight, was_trained in trained.items():  # peft has changed that of these, where adapters were off meanwhile
            weight.requires_grad_(was_trained)
        for module in divided:
            module.reshard()
        for group, after_pass in zip(groups, after_passes, strict=True):
            group.post_forward_mesh_info = after_pass


def take_from_first(weights: Iterable[torch.Tensor]) -> None:
    """Give weights that each process has drawn for itself the numbers of the first process's: dividing takes a share of
    each, where data parallel training would begin with the first's."""
    for weight in weights:
        numbers = weight.detach().to(PartialState().device, copy=True)
        weight.data.copy_(broadcast(numbers))


def as_forward_pass(model: Any, function: Callable[[], Any]) -> Any:
    """Return what a function gives that passes through parts of a model, but not through the model's own `forward`.

    Where weights are divided, those that stand outside of blocks are whole meanwhile, and their gradients averaged."""
    if not isinstance(model, FSDPModule):
        return function()
    if not hasattr(model, PASS):
        setattr(model, PASS, lambda function: function())
        register_fsdp_forward_method(cast(torch.nn.Module, model), PASS)
    return getattr(model, PASS)(function)


def without_numbers(model: Any) -> Any:
    """Return a copy of a model whose weights are on torch's `meta` device: all but their numbers."""
    weights = {
        id(weight): torch.nn.Parameter(weight.detach().to("meta"), weight.requires_grad)
        for weight in model.parameters()
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
        odd = model.load_state_dict(trained, strict=False, assign=True).unexpected_keys
        assert not odd, f"trained weights that the model did not have: {odd}"
        model.tie_weights()
    return model


def trained_weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """Return a copy of each trained weight by its name, whole and on the CPU, in the first process; divided weights are
    gathered one after the other, for which all processes must ask at the same time."""
    found = {}
    for name, weight in _trained(trainer.accelerator.unwrap_model(trainer.model)):
        whole = gathered(weight)
        if is_first_process():
            found[name] = whole.cpu().contiguous()
    return found


def gathered(weight: torch.Tensor) -> torch.Tensor:
    """Return the numbers of a weight, whole; of a divided one all processes must ask at the same time."""
    numbers = weight.detach()
    return numbers.full_tensor() if isinstance(numbers, DTensor) else numbers


def shared_as(weight: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """Return whole numbers, the same in all processes, divided among them as a weight is."""
    if not isinstance(weight, DTensor):
        return numbers
    return distribute_tensor(numbers.to(weight.device), weight.device_mesh, weight.placements)


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
            weight.copy_(shared_as(weight, saved[name]))


def all_finite(trainer: Trainer) -> bool:
    """Whether all trained weights are finite numbers, those of other processes included, which must ask too."""
    return all(gather_object([is_finite(trainer.model)]))


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
