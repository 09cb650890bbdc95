"""What a training was asked to use, what it did use, and where the two differ: nothing is changed without a word.

Two questions are answered. Did the libraries do what the trainer's own arguments ask for (`requested_and_actual`)? And
are those arguments, whoever made them, the ones that the recipe gives to all algorithms alike? `training_facts` and
`noting_sampling` keep what is needed for that, and `trainers.recipe_deviations` answers it.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils import ModulesToSaveWrapper

from prefzoo.interface import Bench
from prefzoo.models import replayed_steps
from prefzoo.models.adapters import of_adapter
from prefzoo.models.loading import count
from prefzoo.models.policy_kinds import EXTRA
from prefzoo.models.vllm_sampling import noting_servers
from prefzoo.models.weight_counts import of_reference
from prefzoo.trainers.recipe_deviations import SAMPLING

if TYPE_CHECKING:
    from transformers import Trainer


QUANTIZED = ("Params4bit", "Int8Params")
"""Classes of bitsandbytes' weights."""


def requested_and_actual(bench: Bench, trainer: Trainer) -> dict[str, Any]:
    """Of a training that has ended: `asked`, `used`, and `differs`, a sentence for each thing that is not as asked."""
    args: Any = trainer.args
    requested = {
        "adapter": bench.adapter.settings,
        "dtype": bench.loading.get("dtype", "float32"),
        "attn_implementation": bench.loading.get("attn_implementation"),
        "optim": str(getattr(args.optim, "value", args.optim)),
        "precision": "bf16" if args.bf16 else "fp16" if args.fp16 else "no",
        "gradient_checkpointing": bool(args.gradient_checkpointing),
    }
    used = {**_of_model(trainer.accelerator.unwrap_model(trainer.model)), **_of_training(trainer)}
    return {"asked": requested, "used": used, "differs": _differences(requested, used)}


def _of_model(model: Any) -> dict[str, Any]:
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    plain = [m for name, m in inner.named_modules() if not of_adapter(f".{name}.")]
    linear = [w for m in plain if isinstance(m, torch.nn.Linear) for w in [m._parameters["weight"]]]
    quantized = [m for m in plain if type(m._parameters.get("weight")).__name__ in QUANTIZED]
    own = tuple(f"{name}." for name in getattr(model, EXTRA, ()))  # beside the model, in a dtype of their own
    of_base = [w for name, w in model.named_parameters() if not of_adapter(name) and not name.startswith(own)]
    frozen = [w for w in of_base if type(w).__name__ not in QUANTIZED]
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
        "parameters": count(w for name, w in model.named_parameters() if not of_reference(name)),
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
    together = trainer.args.world_size
    weights = "divided among them (FSDP)" if trainer.is_fsdp_enabled else "whole in each"
    return {
        **({"processes": together, "weights": weights} if together > 1 else {}),
        "optim": f"{type(optimizer).__module__}.{type(optimizer).__qualname__}",
        "optimizer_state": {dtype: round(count / total, 3) for dtype, count in sorted(numbers.items())},
        "paged": bool(getattr(optimizer, "is_paged", False)),
        "precision": trainer.accelerator.mixed_precision,
        "gradient_checkpointing": any(
            getattr(module, "gradient_checkpointing", False) for module in trainer.model.modules()
        ),
    }


def _differences(requested: dict[str, Any], used: dict[str, Any]) -> list[str]:
    wanted, actual = dict(requested["adapter"]), used["adapter"]
    if "r" in wanted:
        wanted["scale"] = wanted["alpha"] / wanted["r"] ** (0.5 if wanted["use_rslora"] else 1.0)
    if "compute_dtype" in wanted:
        wanted["compute_dtype"] = wanted["compute_dtype"] or requested["dtype"]
    pairs = {f"adapter.{key}": (value, actual[key]) for key, value in wanted.items() if key in actual}
    pairs |= {key: (requested[key], used[key]) for key in ("dtype", "precision", "gradient_checkpointing")}
    if requested["attn_implementation"]:
        pairs["attn_implementation"] = (requested["attn_implementation"], used["attn_implementation"])
    pairs["paged optimizer"] = ("paged" in requested["optim"], used["paged"])
    pairs.pop("adapter.modules_to_save", None)  # one name may stand for several modules
    sentences = [f"{key}: {was!r} was asked for, {got!r} used" for key, (was, got) in pairs.items() if was != got]
    names, modules = wanted.get("modules_to_save", ()), actual.get("modules_to_save", ())
    lacking = [name for name in names if not any(_is(module, name) for module in modules)]
    sentences += [f"adapter.modules_to_save: this model has no {name!r}" for name in lacking]
    sentences += [
        f"adapter.modules_to_save: {m!r} is trained too, because its name ends like one that was asked for"
        for m in modules
        if m != "score" and not any(_is(m, n) for n in names)
    ]
    small = used["optimizer_state"].get("uint8", 0.0)
    if "8bit" in requested["optim"] and small < 0.5:
        sentences.append(
            f"optim: {requested['optim']!r} was asked for, and {small:.0%} of the optimizer's state is in 8 bits; "
            "bitsandbytes keeps that of weights with fewer than 4,096 numbers in 32"
        )
    return sentences


def _is(path: str, name: str) -> bool:
    """Whether a module's path is, or ends with, this name."""
    return f".{path}".endswith(f".{name}")


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def training_facts(trainer: Any) -> dict[str, Any]:
    """Return what a trainer that is done really used, by the recipe's names, so that it can be held against the recipe.

    `trainer` is the name of its class, `rows` the size of its data; `budget.epochs` is what its arguments come to where
    they count steps, and `training.batch_size` counts rows of an optimizer step, as the recipe does.
    """
    args = trainer.args
    generations = getattr(args, "num_generations", None) or 1
    batch = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size / generations
    rows = len(trainer.train_dataset)
    facts: dict[str, Any] = {
        "trainer": type(trainer).__name__,
        "rows": rows,
        "seed": args.seed,
        "budget.epochs": args.num_train_epochs if args.max_steps <= 0 else args.max_steps * batch / rows,
        "training.batch_size": batch / getattr(trainer, "rows_per_example", 1),
        "training.learning_rate": args.learning_rate,
        "training.lr_scheduler_type": _plain(args.lr_scheduler_type),
        "training.warmup_ratio": args.warmup_steps,
        "training.weight_decay": args.weight_decay,
        "training.max_grad_norm": args.max_grad_norm,
        "training.optim": _plain(args.optim),
        "training.bf16": bool(args.bf16),
        "training.fp16": bool(args.fp16),
        **adapter_facts(trainer.accelerator.unwrap_model(trainer.model)),
    }
    if hasattr(args, "num_generations"):  # it samples by itself
        facts["generation.temperature"] = args.temperature
        facts["generation.max_new_tokens"] = args.max_completion_length
    return facts


def adapter_facts(model: Any) -> dict[str, Any]:
    """Return the adapter that is on a model, by the recipe's names; `adapter.scale` is what it is multiplied by."""
    used = _of_model(model)["adapter"]
    names = [name for name in ("type", "r", "scale", "use_dora") if name in used]
    return {f"adapter.{name}": used[name] for name in names}


@contextlib.contextmanager
def noting_sampling(report: dict[str, Any]) -> Iterator[None]:
    """While the block runs, keep in `report` how replies were drawn by any model of this process or of vLLM's, each way
    once; by the recipe's names. Greedy answers, such as a judge's, are no sampling."""
    from transformers import GenerationMixin

    generate = GenerationMixin.generate

    def noting_generate(model: Any, *args: Any, **kwargs: Any) -> Any:
        config = kwargs.get("generation_config") or model.generation_config

        def setting(name: str) -> Any:
            return kwargs[name] if kwargs.get(name) is not None else getattr(config, name, None)

        with replayed_steps.noting_steps() as ways:
            output = generate(model, *args, **kwargs)
        if setting("do_sample"):
            facts = {f"generation.{name}": setting(name) for name in ("temperature", "max_new_tokens")}
            facts["generation.engine"] = "transformers"
            if model.device.type in replayed_steps.DEVICES:
                facts["steps"] = "; ".join(ways) or "launched one by one"
            if facts not in report.setdefault(SAMPLING, []):
                report[SAMPLING].append(facts)
        return output

    with mock.patch.object(GenerationMixin, "generate", noting_generate), noting_servers(report, SAMPLING):
        yield


def _plain(value: Any) -> str:
    return str(getattr(value, "value", value))
