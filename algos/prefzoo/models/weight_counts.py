"""How many weights a token passes through, and how many of them are trained: what FLOPs are counted by; and which
weights of a model are whose."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from prefzoo.models.adapters import of_adapter
from prefzoo.models.loading import count
from prefzoo.models.policy_kinds import EXTRA

VALUE = "value"
"""Name of a critic's adapter on the policy's base."""
HEAD, BACKBONE = "value_head", "value_backbone"
"""Names of a critic's own modules on the policy's model."""
REFERENCE = "ref"
"""Name of the adapter that TRL's trainers take for the reference, where the model has one of that name."""


@dataclass(frozen=True)
class Weights:
    """Numbers of weights of one model: those that a token passes through, those of them that are trained, and those of
    the start policy."""

    passed: int
    trained: int
    start: int


def weights_of(model: torch.nn.Module) -> Weights:
    """Count the weights of the policy or reward model that is trained, its adapter included, without a critic or a
    reference on it."""
    own = tuple(f"{name}." for name in getattr(model, EXTRA, ()))
    extra = count(weight for name, weight in model.named_parameters() if name.startswith(own)) if own else 0
    named = [
        (n, weight)
        for n, weight in model.named_parameters()
        if not (_of_critic(n) or of_reference(n) or n.startswith(own))
    ]
    start = count(weight for name, weight in named if not of_adapter(name))
    adapter = count(weight for name, weight in named if of_adapter(name))
    if not adapter:
        return Weights(start + extra, start + extra, start)
    replaced = count(weight for name, weight in named if ".original_module." in name)
    return Weights(start - replaced + adapter + extra, adapter + extra, start)


def critic_of(model: torch.nn.Module) -> Weights | None:
    """Count the weights of the critic on a policy's model: a backbone of its own, trained whole, or the policy's base
    with an adapter of the critic's, or the start. None where there is no critic."""
    own = count(weight for name, weight in model.named_parameters() if _of_critic(name) and weight.requires_grad)
    if not own:
        return None
    base = 0 if hasattr(model, BACKBONE) and not frozen_critic(model) else weights_of(model).start
    return Weights(base + own, own, base + own)


def frozen_critic(model: torch.nn.Module) -> bool:
    """Whether the critic on a policy's model is a head on the start, which learns without a pass over the start."""
    backbone = getattr(model, BACKBONE, None)
    own = backbone is not None and any(weight.requires_grad for weight in backbone.parameters())
    return hasattr(model, HEAD) and not own and VALUE not in getattr(model, "peft_config", {})


def is_finite(model: torch.nn.Module) -> bool:
    """Whether all weights that are trained are finite numbers; of divided ones, this process's share."""
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    shares = [weight.to_local() if isinstance(weight, DTensor) else weight for weight in trained]
    return all(bool(torch.isfinite(share).all()) for share in shares)


def gathered_weights(model: torch.nn.Module) -> dict[str, torch.Tensor] | None:
    """Return the weights by name of a model whose weights FSDP has gathered, to be saved: to ask for its `state_dict`
    would divide them again. None of any other model."""
    if not isinstance(model, FSDPModule):
        return None
    kept = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    kept = {name: weight.detach() for name, weight in kept.items()}
    for prefix, module in model.named_modules():
        for name in module._non_persistent_buffers_set:
            kept.pop(f"{prefix}.{name}".lstrip("."), None)
    return kept


def of_reference(name: str) -> bool:
    """Whether a weight of this name belongs to the reference's adapter."""
    return of_adapter(name) and f".{REFERENCE}." in name


def _of_critic(name: str) -> bool:
    return name.startswith((f"{HEAD}.", f"{BACKBONE}.")) or (of_adapter(name) and f".{VALUE}." in name)
