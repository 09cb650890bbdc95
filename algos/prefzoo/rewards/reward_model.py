"""A reward model: a scalar head on the start, trained on pairs, ratings or rankings."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from prefzoo.errors import PrefzooError
from prefzoo.models import shared_base
from prefzoo.models.dropout import without_dropout
from prefzoo.models.loading import (
    count_parameters,
    device,
    keep_differentiable,
    load_tokenizer,
    positions,
    resolve,
    source,
    tokenizer_arguments,
)
from prefzoo.rewards.reward_files import REWARD_FILE, critic_problem, resolve_path
from prefzoo.types import Prompt


class RewardModel:
    """Scores a reply by the head's value at its last token.

    A reply is decoded text here: it is put into this model's own chat template and tokenizer, which need not be
    the policy's. The score of a reply does not depend on what else is in its batch.

    Args:
        model: a sequence-classification model with one label, or a `PeftModel` over one.
        tokenizer: the model's own.
        folder: where it is saved.
        loading: how its weights were read.
        base: folder or hub id of the model that it is an adapter on; None when it is whole.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        loading: Mapping[str, Any],
        base: str | None,
    ) -> None:
        self.model, self.tokenizer, self.folder = model.eval(), tokenizer, folder
        self.loading, self.base = loading, base
        self.flops = 0.0

    @classmethod
    def load(cls, path: str, loading: Mapping[str, Any] | None = None) -> RewardModel:
        """A reward model that this project trained, or any sequence-classification model (folder or hub id), which is
        read as `loading` says (dtype, trust_remote_code, quantization)."""
        folder = Path(path)
        description: dict[str, Any] = {}
        if (folder / REWARD_FILE).is_file():
            description = json.loads((folder / REWARD_FILE).read_text(encoding="utf-8"))
        is_adapter = "base" in description
        base = resolve_path(description["base"], folder) if is_adapter else resolve(path)
        loading = dict(description.get("loading", loading or {}))
        tokenizer = load_tokenizer(base, replies=False, **tokenizer_arguments(loading))
        shared = None
        if is_adapter:
            shared = shared_base.load_classifier_with_shared_weights(base, tokenizer.pad_token_id, **loading)
        model, missing = (shared, []) if shared is not None else classifier(base, tokenizer, **loading)
        if is_adapter:
            return cls(PeftModel.from_pretrained(model, str(folder)), tokenizer, folder, loading, base)
        if missing:
            raise PrefzooError(
                f"reward.path: {path!r} is not a reward model: it has no weights for {', '.join(missing)}"
            )
        return cls(model, tokenizer, folder, loading, None)

    @property
    def parameters(self) -> int:
        """Weights that a token passes through."""
        return count_parameters(self.model)

    def share_base(self, model: PreTrainedModel | PeftModel, path: str) -> None:
        """Use the frozen weights of `model` in the place of this model's equal ones, so that they are in memory once.

        Args:
            model: a policy that trains an adapter, on the frozen weights in `path`.
            path: folder of the plain model; nothing happens where this reward is not an adapter on the same one, or
                reads it in another dtype. Weights that are quantized otherwise stay this model's own.
        """
        if self.base is None or Path(self.base).resolve() != Path(path).resolve():
            return
        if _backbone(self.model).dtype != _backbone(model).dtype:  # int8 weights of both would look equal
            return
        shared = {name.replace(".base_layer", ""): module for name, module in _backbone(model).named_modules()}
        for name, module in _backbone(self.model).named_modules():
            twin = shared.get(name.replace(".base_layer", ""))
            for key, weight in list(module._parameters.items()):
                other = getattr(twin, key, None)
                stored = [_storage(w) for w in (weight, other) if w is not None]
                if "lora_" not in name and len(stored) == 2 and stored[0] == stored[1]:
                    module._parameters[key] = other

    def critic(self, policy: PreTrainedTokenizerBase) -> tuple[torch.nn.Module, torch.Tensor]:
        """What a critic begins with: a copy of this model's backbone, adapter merged in, and of its head (1, H).

        Args:
            policy: the tokenizer of the policy whose tokens it will value.

        Raises:
            PrefzooError: when they are other tokens here.
        """
        if problem := critic_problem(policy.get_vocab(), self.tokenizer.get_vocab()):
            raise PrefzooError(
                f"value_model: {problem} The policy's tokenizer is that of {policy.name_or_path}, the reward model is "
                f"in {self.folder}."
            )
        model = RewardModel.load(str(self.folder), {**self.loading, "quantization": None}).model
        merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
        return merged.base_model, merged.score.weight.detach()

    def spec(self, folder: Path) -> dict[str, Any]:
        """See `prefzoo.Reward`."""
        local = self.folder.is_dir()
        return {"type": "model", "path": os.path.relpath(self.folder, folder) if local else str(self.folder)}

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        if not completions:
            return []
        conversations = [
            [*prompt, {"role": "assistant", "content": text}] for prompt, text in zip(prompts, completions, strict=True)
        ]
        rows = self.tokenizer.apply_chat_template(conversations, return_dict=False, tokenize=True)
        limit = positions(self.model.config)
        if limit is not None and (longest := max(map(len, rows), default=0)) > limit:
            raise PrefzooError(
                f"the reward model in {self.folder} has {limit} positions, and a prompt with its reply takes {longest} "
                "of its tokens. Lower data.max_prompt_tokens or generation.max_new_tokens."
            )
        self.flops += 2.0 * self.parameters * sum(map(len, rows))
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        scores = [0.0] * len(rows)
        for begin in range(0, len(order), 64):
            batch = order[begin : begin + 64]
            padded = self.tokenizer.pad(
                {"input_ids": [list(rows[i]) for i in batch]}, padding=True, padding_side="right", return_tensors="pt"
            ).to(device())
            for i, value in zip(batch, pooled_scores(self.model, **padded).tolist(), strict=True):
                scores[i] = value
        if bad := [i for i, score in enumerate(scores) if not math.isfinite(score)]:
            raise PrefzooError(
                f"the reward model in {self.folder} gives {scores[bad[0]]} to {len(bad)} of {len(scores)} replies, "
                f"first to {completions[bad[0]][:80]!r}: its training diverged, or model.dtype is too narrow for it"
            )
        return scores


def _backbone(model: PreTrainedModel | PeftModel) -> torch.nn.Module:
    """The transformer without its head; its modules have the same names under every head."""
    return (model.get_base_model() if isinstance(model, PeftModel) else model).base_model


def _storage(weight: torch.Tensor) -> tuple[object, ...]:
    """All that can differ between two copies of one weight in memory; in 4 bits most of it is not in the tensor."""
    state = getattr(weight, "quant_state", None)
    quantized = () if state is None else (state.quant_type, state.blocksize, state.nested, state.dtype)
    return type(weight), weight.dtype, weight.shape, *quantized


def pooled_scores(model: PreTrainedModel | PeftModel, input_ids: Any, attention_mask: Any) -> torch.Tensor:
    """The head's value at the last attended token of each row, shape (B,).

    The model's own forward looks for the pad token instead, and misses the end of a reply whose tokenizer pads with
    the end-of-sequence token.
    """
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    hidden = inner.base_model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (B, T, H)
    last = attention_mask.sum(-1) - 1
    return inner.score(hidden[torch.arange(len(last), device=hidden.device), last]).float()[:, 0]


def classifier(path: str, tokenizer: PreTrainedTokenizerBase, **loading: Any) -> tuple[PreTrainedModel, list[str]]:
    """A model with one scalar head, and the names of weights that `path` does not have: those of a new head, which
    are drawn from torch's current random state; `loading` is as `weights` takes it."""
    place, settings = source(path, **loading)
    model, info = AutoModelForSequenceClassification.from_pretrained(
        place, num_labels=1, output_loading_info=True, **settings
    )
    without_dropout(keep_differentiable(model)).config.get_text_config().pad_token_id = tokenizer.pad_token_id
    return model, sorted(info["missing_keys"])
