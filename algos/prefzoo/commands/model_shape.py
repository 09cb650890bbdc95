"""How many weights a model has, and where, by its config alone: no weights are read, and none take memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prefzoo.errors import PrefzooError
from prefzoo.recipe.recipe_schema import Recipe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from prefzoo.settings import Adapter


@dataclass(frozen=True)
class ModelShape:
    """Numbers of weights of a causal language model, and the widths of its layers.

    Attributes:
        weights: all of the start's, the embeddings included; those of a tied head count once.
        linear: those in linear layers but the head, which quantization packs.
        linear_rows: outputs of these layers, each of which has a constant in int8.
        head: those of the head where it is not tied to the embeddings, else 0.
        block: those of the largest of the repeated blocks.
        outside: those outside of the blocks: embeddings, head, last norm.
        adapter: those of the adapter, 0 with full fine-tuning.
        adapter_inputs, adapter_layers: widths of the inputs of adapted layers of a block, added up, and their number.
        layers: repeated blocks.
        hidden, heads, kv_heads, head_width, inner, vocabulary: as the config has them; `inner` is of the MLP.
    """

    weights: int
    linear: int
    linear_rows: int
    head: int
    block: int
    outside: int
    adapter: int
    adapter_inputs: int
    adapter_layers: int
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_width: int
    inner: int
    vocabulary: int


def read_shape(recipe: Recipe) -> ModelShape:
    """The shape of a recipe's model with its adapter. Of a hub id its config alone is fetched, where it is not cached.

    Raises:
        PrefzooError: when the config cannot be had, or is of no causal language model.
    """
    from transformers import AutoConfig

    from prefzoo.lab import MODEL_DIR

    model = recipe.model
    path = str(MODEL_DIR) if model.path == "lab" else model.path
    try:
        config = AutoConfig.from_pretrained(path, revision=model.revision, trust_remote_code=model.trust_remote_code)
    except (OSError, ValueError) as error:
        raise PrefzooError(
            f"model.path: the config of {model.path!r} could not be read ({' '.join(str(error).split())[:200]}). "
            "Allowed: lab, a folder with a config.json, a hub id whose config is in the cache or can be fetched "
            "(`hf download OWNER/NAME config.json`)"
        ) from error
    return shape_of(config, recipe.adapter)


def shape_of(config: PreTrainedConfig, adapter: Adapter) -> ModelShape:
    """The shape of the model that a config describes: it is built on torch's `meta` device, where tensors have shapes
    and no content.

    Raises:
        PrefzooError: when transformers has no causal language model for it.
    """
    import torch
    from peft import get_peft_model
    from transformers import AutoModelForCausalLM

    from prefzoo.models.adapters import adapter_config, of_adapter

    with torch.device("meta"):
        try:
            model: Any = AutoModelForCausalLM.from_config(config)
        except ValueError as error:
            raise PrefzooError(f"model.path: {' '.join(str(error).split())[:200]}") from error
    text = config.get_text_config()
    blocks: Any = max((m for m in model.modules() if isinstance(m, torch.nn.ModuleList)), key=len, default=[])
    head = model.get_output_embeddings()
    tied = head is not None and head.weight is model.get_input_embeddings().weight
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    weights = sum(p.numel() for p in model.parameters())
    in_blocks = [sum(p.numel() for p in block.parameters()) for block in blocks]
    first = {id(m) for block in list(blocks)[:1] for m in block.modules()}
    rank = {id(m): m.in_features for m in linear if id(m) in first}
    adapted: list[int] = []
    added = 0
    if (lora := adapter_config(adapter, "CAUSAL_LM", model=model)) is not None:
        with_adapter = get_peft_model(model, lora, low_cpu_mem_usage=True)
        added = sum(p.numel() for name, p in with_adapter.named_parameters() if of_adapter(name))
        layers = [m for m in with_adapter.modules() if hasattr(m, "lora_A") and id(m.get_base_layer()) in rank]
        adapted = [rank[id(layer.get_base_layer())] for layer in layers]
    heads = int(getattr(text, "num_attention_heads", 1) or 1)
    return ModelShape(
        weights=weights,
        linear=sum(m.weight.numel() for m in linear),
        linear_rows=sum(m.out_features for m in linear),
        head=0 if head is None or tied else head.weight.numel(),
        block=max(in_blocks, default=weights),
        outside=weights - sum(in_blocks),
        adapter=added,
        adapter_inputs=sum(adapted),
        adapter_layers=len(adapted),
        layers=max(1, len(blocks)),
        hidden=int(text.hidden_size),
        heads=heads,
        kv_heads=int(getattr(text, "num_key_value_heads", None) or heads),
        head_width=int(getattr(text, "head_dim", None) or text.hidden_size // heads),
        inner=int(getattr(text, "intermediate_size", None) or 4 * text.hidden_size),
        vocabulary=int(text.vocab_size),
    )
