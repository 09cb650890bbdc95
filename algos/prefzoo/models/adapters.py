"""The adapter on a base: its config for peft, checks of the modules that it names, and its first weights."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper
from transformers import PreTrainedModel

from prefzoo import validation_messages
from prefzoo.errors import PrefzooError
from prefzoo.settings import Adapter

FUSED = ("out_proj", "dt_proj")
"""Linear layers of a Mamba block whose weights its kernels read by themselves: an adapter on them would do nothing."""


def adapter_config(
    adapter: Adapter, task: str, modules_to_save: Sequence[str] = (), model: torch.nn.Module | None = None
) -> PeftConfig | None:
    """peft's config for the recipe's adapter; None for full fine-tuning.

    Args:
        adapter: the recipe's block.
        task: peft's name of what the model does: `CAUSAL_LM`, `SEQ_CLS`.
        model: what it is for: `all-linear` leaves out the layers in it that an adapter cannot train.
        modules_to_save: names of modules that must be trained whole and saved, whatever the recipe says.
    """
    if adapter.type == "full":
        return None
    saved = list(dict.fromkeys([*modules_to_save, *adapter.modules_to_save]))
    return LoraConfig(
        r=adapter.r,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=adapter.target_modules,
        exclude_modules=_fused(model) if model is not None and adapter.target_modules == "all-linear" else None,
        use_dora=adapter.use_dora,
        use_rslora=adapter.use_rslora,
        init_lora_weights=adapter.init_lora_weights,
        task_type=task,
        modules_to_save=saved or None,
    )


def _fused(model: torch.nn.Module) -> list[str] | None:
    """Paths of the layers named in `FUSED` in Mamba blocks, which are told by their parameters A_log and D."""
    blocks = [path for path, module in model.named_modules() if {"A_log", "D"} <= module._parameters.keys()]
    paths = [f"{block}.{name}" for block in blocks for name in FUSED]
    known = dict(model.named_modules())
    return [path for path in paths if path in known] or None


def of_adapter(name: str) -> bool:
    """True for the name of an adapter's weight in a `PeftModel`, or of a weight in a copy of a module to save."""
    return "lora_" in name or ".modules_to_save." in name


def check_modules(model: torch.nn.Module, adapter: Adapter, head: bool = True) -> None:
    """Refuse names of modules that this model does not have, of which peft would pass over all but the last.

    Args:
        model: without an adapter.
        head: whether it has the head of a language model, and all of `modules_to_save` must be there.

    Raises:
        PrefzooError: naming each, or a module that cannot be trained whole.
    """
    if adapter.type == "full":
        return
    modules = {name: module for name, module in model.named_modules() if name}
    targets, fused = adapter.target_modules, _fused(model) or []
    problems = []
    output = model.get_output_embeddings() if head and isinstance(model, PreTrainedModel) else None
    for target in targets if isinstance(targets, list) else [targets] * (targets != "all-linear"):
        key, layers = "adapter.target_modules", _targets(modules, target, isinstance(targets, list))
        if any(module is output for module in layers):
            problems.append(validation_messages.adapter_on_head(key, target))
        elif not layers:
            problems.append(
                validation_messages.unknown_module(key, target, _with_weights(modules), isinstance(targets, list))
            )
        elif head and _tied(model, layers):
            problems.append(validation_messages.tied_module(key, target))
        elif any(modules[path] in layers for path in fused):
            problems.append(validation_messages.fused_module(key, target))
    for name in adapter.modules_to_save:
        key, layers = "adapter.modules_to_save", _named(modules, name)
        if not layers and head:
            problems.append(validation_messages.unknown_module(key, name, _with_weights(modules), listed=True))
        elif any(not w.is_floating_point() or type(w).__name__ == "Params4bit" for m in layers for w in m.parameters()):
            problems.append(f"{key}: {name!r} is quantized here; an adapter can train it")
        elif _tied(model, layers):
            problems.append(validation_messages.tied_module(key, name))
    if problems:
        raise PrefzooError("; ".join(problems))


def restore(model: torch.nn.Module) -> None:
    """Give a new adapter back what TRL rounded to bfloat16, as it does with all that is trained on a quantized base:
    copies of modules to save, and the magnitudes of DoRA. With them rounded the policy would not begin as the start."""
    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for copy in module.modules_to_save.values():
                for weight, original in zip(copy.parameters(), module.original_module.parameters(), strict=True):
                    weight.data = original.data.clone()
        elif isinstance(module, LoraLayer):
            for name, magnitude in module.lora_magnitude_vector.items():
                first, second = module.lora_A[name].weight, module.lora_B[name].weight
                magnitude.update_layer(
                    base_layer=module.get_base_layer(),
                    lora_A=first.float(),
                    lora_B=second.float(),
                    scaling=module.scaling[name],
                )


def _named(modules: dict[str, torch.nn.Module], name: str) -> list[torch.nn.Module]:
    return [module for path, module in modules.items() if f".{path}".endswith(f".{name}")]


def _targets(modules: dict[str, torch.nn.Module], target: str, listed: bool) -> list[torch.nn.Module]:
    if listed:
        return _named(modules, target)
    return [module for path, module in modules.items() if re.fullmatch(target, path)]


def _with_weights(modules: dict[str, torch.nn.Module]) -> set[str]:
    return {path.rpartition(".")[2] for path, module in modules.items() if list(module.parameters(False))}


def _tied(model: torch.nn.Module, layers: list[torch.nn.Module]) -> bool:
    uses: dict[int, int] = {}
    for module in model.modules():
        for weight in module.parameters(recurse=False):
            uses[id(weight)] = uses.get(id(weight), 0) + 1
    return any(uses[id(weight)] > 1 for module in layers for weight in module.parameters())
