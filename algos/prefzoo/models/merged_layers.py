"""Linear layers whose adapter is added to their weights, for passes without a gradient."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import nn

MOST_BYTES = 2**30
"""How large the merged weights of a model may be together; the adapters of a larger one are left as they are."""
SHARE_OF_GPU = 1 / 4
"""Of what is free of a GPU's memory, where that is more."""


@contextlib.contextmanager
def merged_layers(model: Any) -> Iterator[None]:
    """Within this block, which must not need gradients, each layer with a LoRA adapter is one plain linear layer.

    The sum of a layer's weights and its adapter is a copy: the weights themselves, which are the start's, do not
    change. Merged are plain adapters in float32, in which the sum is the same to rounding; all others stay as they are.
    A layer with its adapter off becomes the layer below the adapter. What is no torch module has no layers.
    """
    layers: list[tuple[nn.Module, str, Any]] = [
        (parent, name, layer)
        for parent in (model.modules() if isinstance(model, nn.Module) else ())
        for name, layer in parent._modules.items()
        if type(layer) is Linear and _can_merge(layer)
    ]
    weights = [layer.base_layer.weight for _, _, layer in layers]
    if weights and sum(weight.nbytes for weight in weights) > most_bytes(weights[0].device):
        layers = []
    try:
        for parent, name, layer in layers:
            parent._modules[name] = _merged(layer)
        yield
    finally:
        for parent, name, layer in layers:
            parent._modules[name] = layer


def most_bytes(device: torch.device) -> int:
    """How large the merged weights of a model on this device may be together."""
    if device.type != "cuda":
        return MOST_BYTES
    return max(MOST_BYTES, int(SHARE_OF_GPU * torch.cuda.mem_get_info(device)[0]))


def _adapters(layer: Any) -> list[str]:
    return [] if layer.disable_adapters else [name for name in layer.active_adapters if name in layer.lora_A]


def _can_merge(layer: Any) -> bool:
    base, adapters = layer.base_layer, _adapters(layer)
    weights = [base.weight, *(part[name].weight for name in adapters for part in (layer.lora_A, layer.lora_B))]
    return (
        type(base) is nn.Linear
        and not layer.merged
        and not layer.fan_in_fan_out
        and all(weight.dtype == torch.float32 and weight.device == base.weight.device for weight in weights)
        and not any(name in layer.lora_variant or layer.lora_bias[name] for name in adapters)
        and not any(layer.training and not isinstance(layer.lora_dropout[name], nn.Identity) for name in adapters)
        and not (layer._forward_hooks or layer._forward_pre_hooks or base._forward_hooks or base._forward_pre_hooks)
    )


@torch.no_grad()
def _merged(layer: Any) -> nn.Linear:
    base: nn.Linear = layer.base_layer
    if not (adapters := _adapters(layer)):
        return base
    weight = base.weight
    for name in adapters:
        first, second = layer.lora_A[name].weight, layer.lora_B[name].weight
        weight = torch.addmm(weight, second, first, alpha=layer.scaling[name])
    plain = nn.Linear(base.in_features, base.out_features, base.bias is not None, device="meta")
    plain.weight, plain.bias = nn.Parameter(weight, requires_grad=False), base.bias
    return plain.train(base.training)
