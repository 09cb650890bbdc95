"""A reward model that was trained elsewhere: any sequence-classification model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prefzoo.errors import PrefzooError
from prefzoo.models.dropout import without_dropout
from prefzoo.models.loading import device, keep_differentiable, load_tokenizer, positions, resolve, source
from prefzoo.models.score_head import backbone
from prefzoo.rewards.reward_files import reward_label
from prefzoo.rewards.reward_model import BATCH, RewardModel, conversation_tokens
from prefzoo.types import Prompt

SPEAKERS = {"user": "User", "assistant": "Assistant"}
FIRST_POSITION_AFTER_PADDING = frozenset(
    ["camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"]
) | {"xlm-roberta", "xlm-roberta-xl", "xmod"}
"""Model types that number the first token one above the pad token's id; the positions before it are nobody's."""
NO_LIMIT = 10**6
"""From here on a tokenizer's `model_max_length` stands for none; transformers writes 10**30."""


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
    def load(cls, path: str, loading: Mapping[str, Any] | None = None) -> GivenClassifier:
        """The classifier in a folder or on the hub; `loading` is as `from_pretrained_arguments` takes it.

        Raises:
            PrefzooError: when it is no classifier, lacks weights, or has labels of which no score can be made.
        """
        read = dict(loading or {})
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

    @property
    def positions(self) -> int | None:
        """How many tokens the model can read; None where neither it nor its tokenizer states a limit."""
        return most_tokens(self.model.config, self.tokenizer)

    def _tokens(self, prompt: Prompt, reply: str) -> dict[str, list[int]]:
        return classifier_tokens(self.tokenizer, prompt, reply)

    def batch_scores(self, rows: list[dict[str, list[int]]]) -> torch.Tensor:
        """See `RewardModel.batch_scores`."""
        if self.pad is not None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.pad)
        padded = self.tokenizer.pad(rows, padding=len(rows) > 1, padding_side=self.side, return_tensors="pt")
        logits = self.model(**padded.to(device())).logits.float()
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
        whole = GivenClassifier.load(str(self.folder), {**self.loading, "quantization": None}).model
        return backbone(whole), whole.score.weight.detach()


def classifier_tokenizer(path: str, trust_remote_code: bool, model_type: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a classifier; that of an encoder as it is, that of a decoder with a chat template."""
    if model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    return load_tokenizer(path, trust_remote_code, replies=False)


def classifier_tokens(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, reply: str) -> dict[str, list[int]]:
    """What a classifier reads of a prompt with a reply.

    Raises:
        jinja2.TemplateError: when its chat template refuses this conversation.
    """
    if tokenizer.chat_template is None:
        return {name: list(row) for name, row in tokenizer(*pair_of_texts(prompt, reply)).items()}
    return {"input_ids": conversation_tokens(tokenizer, prompt, reply)}


def pair_of_texts(prompt: Prompt, reply: str) -> tuple[str, str]:
    """A prompt and a reply for a tokenizer without a chat template: a single question as it is, several turns each
    behind who speaks, with a blank line between them; and the reply."""
    if len(prompt) == 1:
        return prompt[0]["content"], reply
    heads = [f"{SPEAKERS[turn['role']]}: " if turn["role"] in SPEAKERS else "" for turn in prompt]
    return "\n\n".join(head + turn["content"] for head, turn in zip(heads, prompt, strict=True)), reply


def most_tokens(config: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """How many tokens a classifier can read: as many as it has positions, and as its tokenizer allows."""
    own = positions(config)
    if own is not None and config.model_type in FIRST_POSITION_AFTER_PADDING:
        own -= config.pad_token_id + 1
    stated = [limit for limit in (own, tokenizer.model_max_length) if limit is not None and limit < NO_LIMIT]
    return min(stated, default=None)
