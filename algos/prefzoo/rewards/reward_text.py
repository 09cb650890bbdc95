"""What a reward model reads of a prompt with a reply: a conversation in its chat template, or a pair of texts."""

from __future__ import annotations

from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from prefzoo.models.loading import load_tokenizer, positions
from prefzoo.types import Prompt

SPEAKERS = {"user": "User", "assistant": "Assistant"}
FIRST_POSITION_AFTER_PADDING = frozenset(
    ["camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "roberta-prelayernorm"]
) | {"xlm-roberta", "xlm-roberta-xl", "xmod"}
"""Model types that number the first token one above the pad token's id; the positions before it are nobody's."""


def conversation_tokens(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, reply: str) -> list[int]:
    """A prompt with a reply in a chat template, as it is trained and scored."""
    return list(tokenizer.apply_chat_template([*prompt, {"role": "assistant", "content": reply}], return_dict=False))


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


def most_tokens(config: Any) -> int | None:
    """How many tokens a classifier has positions for; None where its config states no limit."""
    limit = positions(config)
    if limit is not None and config.model_type in FIRST_POSITION_AFTER_PADDING:
        limit -= config.pad_token_id + 1
    return limit
