"""What a training was asked to use, what it did use, and where the two differ: nothing is changed without a word."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper

from prefzoo.interface import Bench
from prefzoo.models.adapters import of_adapter
from prefzoo.models.loading import count_parameters

if TYPE_CHECKING:
    from transformers import Trainer

QUANTIZED = ("Params4bit", "Int8Params")
"""Classes of bitsandbytes' weights."""


def asked_and_used(bench: Bench, trainer: Trainer) -> dict[str, Any]:
    """Of a training that has ended: `asked`, `used`, and `differs`, a sentence for each thing that is not as asked."""
    args: Any = trainer.args
    asked = {
        "adapter": bench.adapter.settings,
        "dtype": bench.machinery.loading.get("dtype", "float32"),
        "attn_implementation": bench.machinery.loading.get("attn_implementation"),
        "optim": str(getattr(args.optim, "value", args.optim)),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        "gradient_checkpointing": bool(args.gradient_checkpointing),
    }
    used = {**_of_model(trainer.accelerator.unwrap_model(trainer.model)), **_of_training(trainer)}
    return {"asked": asked, "used": used, "differs": _differences(asked, used)}


def _of_model(model: Any) -> dict[str, Any]:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    plain = [m for name, m in inner.named_modules() if not of_adapter(f".{name}.")]
    linear = [w for m in plain if isinstance(m, torch.nn.Linear) for w in [m._parameters["weight"]]]
    quantized = [m for m in plain if type(m._parameters.get("weight")).__name__ in QUANTIZED]
    frozen = [w for name, w in model.named_parameters() if not of_adapter(name) and type(w).__name__ not in QUANTIZED]
    adapted = [m for m in inner.modules() if isinstance(m, LoraLayer)]
    adapter: dict[str, Any] = {"type": "full"}
    if adapted:
        adapter = {
            "type": "qlora" if quantized else "lora",
            "layers": len(adapted),
            "r": max(m.r["default"] for m in adapted),
            "scale": max(m.scaling["default"] for m in adapted),
            "use_dora": any("default" in m.lora_magnitude_vector for m in adapted),
            "modules_to_save": [n for n, m in inner.named_modules() if isinstance(m, ModulesToSaveWrapper)],
        }
    if quantized:
        weight = quantized[0]._parameters["weight"]
        adapter |= {
            "quantized_layers": f"{len(quantized)} of {len(linear)} linear ones",
            **_quantization(quantized[0], weight),
        }
    trained = [w for w in model.parameters() if w.requires_grad]
    return {
        "adapter": adapter,
        "dtype": ", ".join(sorted({_name(w.dtype) for w in frozen})),
        "attn_implementation": model.config._attn_implementation,
        "parameters": count_parameters(model),
        "trainable_parameters": sum(w.numel() for w in trained),
        "trainable_dtype": ", ".join(sorted({_name(w.dtype) for w in trained})),
    }


def _quantization(module: Any, weight: Any) -> dict[str, Any]:
    if type(weight).__name__ == "Int8Params":
        return {"quant_type": "int8"}
    return {
        "quant_type": weight.quant_type,
        "double_quant": bool(weight.quant_state.nested),
        "compute_dtype": _name(module.compute_dtype),
        "storage_dtype": _name(weight.dtype),
    }


def _of_training(trainer: Any) -> dict[str, Any]:
    optimizer = getattr(trainer.optimizer, "optimizer", trainer.optimizer)
    numbers: Counter[str] = Counter()
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor) and value.numel() > 1:
                numbers[_name(value.dtype)] += value.numel()
    total = numbers.total()
    return {
        "optim": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        "optimizer_state": {dtype: round(count / total, 3) for dtype, count in sorted(numbers.items())},
        "paged": bool(getattr(optimizer, "is_paged", False)),
        "precision": trainer.accelerator.mixed_precision,
        "gradient_checkpointing": any(
            getattr(module, "gradient_checkpointing", False) for module in trainer.model.modules()
        ),
    }


def _differences(asked: dict[str, Any], used: dict[str, Any]) -> list[str]:
    wanted, found = dict(asked["adapter"]), used["adapter"]
    if "r" in wanted:
        wanted["scale"] = wanted["alpha"] / wanted["r"] ** (0.5 if wanted["use_rslora"] else 1.0)
    if "compute_dtype" in wanted:
        wanted["compute_dtype"] = wanted["compute_dtype"] or asked["dtype"]
    pairs = {f"adapter.{key}": (value, found[key]) for key, value in wanted.items() if key in found}
    pairs |= {key: (asked[key], used[key]) for key in ("dtype", "precision", "gradient_checkpointing")}
    if asked["attn_implementation"]:
        pairs["attn_implementation"] = (asked["attn_implementation"], used["attn_implementation"])
    pairs["paged optimizer"] = ("paged" in asked["optim"], used["paged"])
    pairs.pop("adapter.modules_to_save", None)  # one name may stand for several modules
    said = [f"{key}: {was!r} was asked for, {got!r} used" for key, (was, got) in pairs.items() if was != got]
    names, modules = wanted.get("modules_to_save", ()), found.get("modules_to_save", ())
    said += [f"adapter.modules_to_save: this model has no {n!r}" for n in names if not any(_is(m, n) for m in modules)]
    said += [
        f"adapter.modules_to_save: {m!r} is trained too, because its name ends like one that was asked for"
        for m in modules
        if m != "score" and not any(_is(m, n) for n in names)
    ]
    small = used["optimizer_state"].get("uint8", 0.0)
    if "8bit" in asked["optim"] and small < 0.5:
        said.append(
            f"optim: {asked['optim']!r} was asked for, and {small:.0%} of the optimizer's state is in 8 bits; "
            "bitsandbytes keeps that of weights with fewer than 4,096 numbers in 32"
        )
    return said


def _is(path: str, name: str) -> bool:
    """Whether a module's path is, or ends with, this name."""
    return f".{path}".endswith(f".{name}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
