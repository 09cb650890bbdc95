"""A reward model: a scalar head on the start, trained on pairs, ratings or rankings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from prefzoo.errors import PrefzooError
from prefzoo.models import shared_base
from prefzoo.models.adapters import read_adapter
from prefzoo.models.dropout import without_dropout
from prefzoo.models.loading import (
    count_parameters,
    device,
    keep_differentiable,
    load_tokenizer,
    resolve,
    source,
    tokenizer_arguments,
)
from prefzoo.models.merged_layers import merged_layers
from prefzoo.models.score_head import backbone, load_score_model
from prefzoo.models.shared_beginnings import shared_beginnings
from prefzoo.rewards.reward_files import REWARD_FILE, critic_problem, relative_path, resolve_path, reward_label
from prefzoo.rewards.reward_text import classifier_tokenizer, classifier_tokens, conversation_tokens, most_tokens
from prefzoo.types import Prompt
from prefzoo.views import prompt_key

BATCH = 64
"""How many replies are scored at a time."""


class RewardModel:
    """Scores a reply by the head's value at its last token.

    A reply is decoded text here: it is put into this model's own chat template and tokenizer, which need not be
    the policy's. The score of a reply does not depend on what else is in its batch.

    Args:
        model: a `score_head.ScoreHead`, or a `PeftModel` over one.
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
    def load(cls, path: str, loading: Mapping[str, Any] | None = None, quantized: bool = True) -> RewardModel:
        """A reward model that this project trained, or any sequence-classification model (folder or hub id; see
        `GivenClassifier`).

        Args:
            loading: how a model's files are read (dtype, trust_remote_code, quantization). One that was trained here is
                read as it was trained; whether its code may run is said here alone, never by its folder.
            quantized: False reads a quantized base in full precision.
        """
        folder = Path(path)
        if not (folder / REWARD_FILE).is_file():
            return GivenClassifier.load(path, loading, quantized)
        description = json.loads((folder / REWARD_FILE).read_text(encoding="utf-8"))
        given = dict(loading or {})
        trained = description.get("loading", {})
        read = {**given, **{key: trained[key] for key in ("dtype", "quantization", "chat_template") if key in trained}}
        read |= {} if quantized else {"quantization": None}
        base = resolve_path(description["base"], folder) if "base" in description else None
        tokenizer = load_tokenizer(base or path, replies=False, **tokenizer_arguments(read))
        if base is None:
            return cls(load_score_model(path, draw_head=False, **read), tokenizer, folder, read, None)
        shared = shared_base.load_score_model_with_shared_weights(base, **read)
        model = shared if shared is not None else load_score_model(base, **read)
        return cls(read_adapter(model, str(folder)), tokenizer, folder, read, base)

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
        if backbone(self.model).dtype != backbone(model).dtype:  # int8 weights of both would look equal
            return
        shared = {name.replace(".base_layer", ""): module for name, module in backbone(model).named_modules()}
        for name, module in backbone(self.model).named_modules():
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
        self._check_critic(policy)
        model = RewardModel.load(str(self.folder), self.loading, quantized=False).model
        merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
        return backbone(merged), merged.score.weight.detach()

    def _check_critic(self, policy: PreTrainedTokenizerBase) -> None:
        if problem := critic_problem(policy.get_vocab(), self.tokenizer.get_vocab()):
            raise PrefzooError(
                f"value_model: {problem} The policy's tokenizer is that of {policy.name_or_path}, the reward model is "
                f"in {self.folder}."
            )

    def spec(self, folder: Path) -> dict[str, Any]:
        """See `prefzoo.Reward`."""
        local = self.folder.is_dir()
        return {"type": "model", "path": relative_path(self.folder, folder) if local else str(self.folder)}

    @torch.inference_mode()
    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        rows = [self.tokens(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        lengths = [len(row["input_ids"]) for row in rows]
        limit = self.positions
        if limit is not None and (longest := max(lengths, default=0)) > limit:
            raise PrefzooError(
                f"the reward model in {self.folder} has {limit} positions, and a prompt with its reply takes {longest} "
                "of its tokens. Lower data.max_prompt_tokens or generation.max_new_tokens."
            )
        self.flops += 2.0 * self.parameters * sum(lengths)
        # Longest first, and replies to one prompt side by side, which share it.
        keys = [prompt_key(prompt) for prompt in prompts]
        most = dict(sorted(zip(keys, lengths, strict=True), key=lambda pair: pair[1]))
        order = sorted(range(len(rows)), key=lambda i: (-most[keys[i]], keys[i], -lengths[i]))
        scores = [0.0] * len(rows)
        with merged_layers(self.model):
            for begin in range(0, len(order), self.batch_size):
                batch = order[begin : begin + self.batch_size]
                for i, value in zip(batch, self.batch_scores([rows[i] for i in batch]).tolist(), strict=True):
                    scores[i] = value
        if bad := [i for i, score in enumerate(scores) if not math.isfinite(score)]:
            raise PrefzooError(
                f"the reward model in {self.folder} gives {scores[bad[0]]} to {len(bad)} of {len(scores)} replies, "
                f"first to {completions[bad[0]][:80]!r}: its training diverged, or model.dtype is too narrow for it"
            )
        return scores

    batch_size = BATCH

    @property
    def positions(self) -> int | None:
        """How many tokens the model can read; None where it states no limit."""
        return most_tokens(self.model.config)

    def tokens(self, prompt: Prompt, reply: str) -> dict[str, list[int]]:
        """What the model reads of a prompt with a reply: `input_ids`, and whatever else its tokenizer gives.

        Raises:
            PrefzooError: when its chat template refuses this conversation.
        """
        try:
            return self._tokens(prompt, reply)
        except TemplateError as error:
            roles = ", ".join(turn["role"] for turn in prompt)
            raise PrefzooError(
                f"the chat template of the reward model in {self.folder} refuses a conversation of {roles}, assistant: "
                f"{error}"
            ) from error

    def _tokens(self, prompt: Prompt, reply: str) -> dict[str, list[int]]:
        return {"input_ids": conversation_tokens(self.tokenizer, prompt, reply)}

    def batch_scores(self, rows: list[dict[str, list[int]]]) -> torch.Tensor:
        """The scores of tokenized rows, (B,)."""
        with shared_beginnings(self.model):
            return self.forward(**self.padded(rows))

    def padded(self, rows: list[dict[str, list[int]]]) -> Mapping[str, torch.Tensor]:
        """Tokenized rows as the tensors that `forward` takes, each (B, T), on the model's device."""
        batch = self.tokenizer.pad(rows, padding=True, padding_side="right", return_tensors="pt")
        return batch.to(device())

    def forward(self, **padded: torch.Tensor) -> torch.Tensor:
        """The scores of padded rows, (B,)."""
        return pooled_scores(self.model, **padded)


class GivenClassifier(RewardModel):
    """Scores by the model's own forward pass, as it was trained.

    With one label the score is its value; with two it is the log-odds of the good one, in nats
    (`reward_files.reward_label`). A text is padded with what the model's own config calls padding, which its forward
    leaves out, so that no score depends on the batch; where the config names none, or the code is the model's own,
    each text is read alone.

    The prompt and the reply are rendered by the chat template of the model's tokenizer. Where an encoder (BERT,
    DeBERTa, RoBERTa and the like) has none they are a pair of texts, see `pair_of_texts`.
    """

    @classmethod
    def load(cls, path: str, loading: Mapping[str, Any] | None = None, quantized: bool = True) -> GivenClassifier:
        """The classifier in a folder or on the hub; see `RewardModel.load`.

        Raises:
            PrefzooError: when it is no classifier, lacks weights, or has labels of which no score can be made.
        """
        read = {**(loading or {}), **({} if quantized else {"quantization": None})}
        place, settings = source(resolve(path), **read)
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                place, output_loading_info=True, **settings
            )
        except ValueError as error:
            raise PrefzooError(f"reward.path: {path!r} could not be read as a reward model: {error}") from error
        if missing := sorted(info["missing_keys"]):
            raise PrefzooError(
                f"reward.path: {path!r} is not a reward model: it has no weights for {', '.join(missing)}"
            )
        tokenizer = classifier_tokenizer(place, bool(settings["trust_remote_code"]), model.config.model_type)
        return cls(without_dropout(keep_differentiable(model)), tokenizer, Path(path), read, None)

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        folder: Path,
        loading: Mapping[str, Any],
        base: str | None,
    ) -> None:
        super().__init__(model, tokenizer, folder, loading, base)
        try:
            self.good = reward_label(model.config.to_dict())
        except ValueError as error:
            raise PrefzooError(f"reward.path: {str(folder)!r} {error}.") from error
        pad = getattr(model.config.get_text_config(), "pad_token_id", None)
        self.pad = pad if pad is not None and 0 <= pad < len(tokenizer) else None
        self.side = "right" if hasattr(model, "score") else tokenizer.padding_side
        alone = self.pad is None or not type(model).__module__.startswith("transformers.")
        self.batch_size = 1 if alone else BATCH

    def _tokens(self, prompt: Prompt, reply: str) -> dict[str, list[int]]:
        return classifier_tokens(self.tokenizer, prompt, reply)

    def batch_scores(self, rows: list[dict[str, list[int]]]) -> torch.Tensor:
        """See `RewardModel.batch_scores`."""
        return self.forward(**self.padded(rows))

    def padded(self, rows: list[dict[str, list[int]]]) -> Mapping[str, torch.Tensor]:
        """See `RewardModel.padded`."""
        if self.pad is not None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.pad)
        batch = self.tokenizer.pad(rows, padding=len(rows) > 1, padding_side=self.side, return_tensors="pt")
        return batch.to(device())

    def forward(self, **padded: torch.Tensor) -> torch.Tensor:
        """See `RewardModel.forward`."""
        logits = self.model(**padded).logits.float()
        return logits[:, 0] if self.good is None else logits[:, self.good] - logits[:, 1 - self.good]

    def critic(self, policy: PreTrainedTokenizerBase) -> tuple[torch.nn.Module, torch.Tensor]:
        """See `RewardModel.critic`; of a decoder with one linear head."""
        self._check_critic(policy)
        head = getattr(self.model, "score", None)
        if not isinstance(head, torch.nn.Linear) or head.bias is not None or self.good is not None:
            raise PrefzooError(
                f"value_model: 'reward' begins as the reward model, and the one in {self.folder} has no single head on "
                "the last token of a decoder. Allowed here: shared, separate."
            )
        whole = GivenClassifier.load(str(self.folder), self.loading, quantized=False).model
        return backbone(whole), whole.score.weight.detach()


def _storage(weight: torch.Tensor) -> tuple[object, ...]:
    """All that can differ between two copies of one weight in memory; in 4 bits most of it is not in the tensor."""
    state = getattr(weight, "quant_state", None)
    quantized = () if state is None else (state.quant_type, state.blocksize, state.nested, state.dtype)
    return type(weight), weight.dtype, weight.shape, *quantized


def pooled_scores(model: PreTrainedModel | PeftModel, input_ids: Any, attention_mask: Any) -> torch.Tensor:
    """The head's value at the last attended token of each row, shape (B,)."""
    return model(input_ids=input_ids, attention_mask=attention_mask).logits[:, 0].float()
