"""How likely each of a few answers begins, for many prompts: one forward pass each, and no sampling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedTokenizerBase

from prefzoo.interface import Prompt
from prefzoo.policies.language_model import LanguageModelPolicy

TOKENS = 4096
"""How many tokens, padding included, are in a forward pass: more gain nothing on a CPU, and only need memory."""


@dataclass(frozen=True)
class Next:
    """What could come first in the answers to some prompts.

    Attributes:
        probabilities: of each wanted token, shape (prompts, wanted), in float64; not a number for a prompt that is
            longer than the model reads.
        tokens: how many passed through the model, without padding.
    """

    probabilities: torch.Tensor
    tokens: int


@torch.inference_mode()
def next_token(
    policy: LanguageModelPolicy,
    prompts: Sequence[Prompt],
    wanted: Sequence[int],
    begun: Sequence[int] = (),
    batch_tokens: int = TOKENS,
) -> Next:
    """The probabilities of some tokens as the next one.

    Prompts of like length go together, padded on the right, where no token before it sees the padding: neither that
    nor the size of a batch changes what is found, but for rounding.

    Args:
        wanted: ids of the tokens.
        begun: ids of what the answer already begins with.
        batch_tokens: how many tokens are in a forward pass.
    """
    rendered = policy.tokenizer.apply_chat_template(
        [list(prompt) for prompt in prompts], add_generation_prompt=True, return_dict=False
    )
    rows = [[*ids, *begun] for ids in rendered]
    limit = getattr(policy.model.config, "max_position_embeddings", None) or max(map(len, rows), default=0)
    found = torch.full((len(rows), len(wanted)), float("nan"), dtype=torch.float64)
    # Longest first: a batch that does not fit in memory is met at once, not after an hour.
    order = sorted((i for i in range(len(rows)) if len(rows[i]) <= limit), key=lambda i: -len(rows[i]))
    ids = torch.tensor(wanted)
    begin = 0
    while begin < len(order):
        batch = order[begin : begin + max(1, batch_tokens // len(rows[order[begin]]))]
        begin += len(batch)
        padded = policy.tokenizer.pad(
            {"input_ids": [rows[i] for i in batch]}, padding=True, padding_side="right", return_tensors="pt"
        ).to(policy.model.device)
        last = padded["attention_mask"].sum(1) - 1
        # Only where a row of the batch ends are there logits, instead of everywhere.
        ends, which = last.unique(return_inverse=True)
        logits = policy.model(**padded, logits_to_keep=ends, use_cache=False).logits  # (B, ends, V)
        row = torch.arange(len(batch), device=logits.device)
        found[batch] = logits[row, which].double().softmax(-1).cpu()[:, ids]
    return Next(found, sum(len(rows[i]) for i in order))


def spellings(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> list[list[int]]:
    """Tokens that an answer of one of `words` may begin with: for each way of spelling that makes single tokens of all
    of them (as it stands, after a space, or right after where the chat template lets a reply begin), one for each word.

    Several tokens are one word to the eye, such as "A" with and without a space before it, and which of them a model
    takes depends on its template; none of its probability is lost when all are asked for.
    """
    before = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
    )
    start = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    ways: list[list[int]] = []
    for space in ("", " "):
        alone = [list(tokenizer(space + word, add_special_tokens=False)["input_ids"]) for word in words]
        inside = [list(tokenizer(before + space + word, add_special_tokens=False)["input_ids"]) for word in words]
        after = [ids[len(start) :] if ids[: len(start)] == start else [] for ids in inside]
        for way in (alone, after):
            single = [ids[0] for ids in way if len(ids) == 1]
            if len(set(single)) == len(words) and single not in ways:
                ways.append(single)
    return ways
