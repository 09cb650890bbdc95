"""The probabilities of a few next tokens for many prompts, without sampling; what prompts share is computed once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from prefzoo.models.batch_invariance import takes
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.merged_layers import merged_layers
from prefzoo.models.padding import padded
from prefzoo.types import Prompt

TOKENS = 4096
"""How many tokens, padding included, are in a batch: more gain nothing on a CPU, and only need memory."""
SMALL = 200_000_000
"""Number of parameters below which batches on a CPU run in parallel, one thread each. Threads that share one operation
of so small a model mostly wait for each other; a larger model keeps them busy, and several of its batches need several
times the memory."""


@dataclass(frozen=True)
class Next:
    """Probabilities of the first token of the answers to some prompts.

    Attributes:
        probabilities: of each wanted token, shape (prompts, wanted), in float64; not a number for a prompt that is
            longer than the model reads.
        tokens: how many passed through the model, without padding.
    """

    probabilities: torch.Tensor
    tokens: int


def next_token(
    policy: LanguageModelPolicy,
    prompts: Sequence[Prompt],
    wanted: Sequence[int],
    begun: Sequence[int] = (),
    batch_tokens: int = TOKENS,
) -> Next:
    """Return the probabilities of some tokens as the next one.

    Every two prompts that begin alike, such as the same question with two replies in either order, go through the model
    together up to where they part, if all of its layers are attention: the state of another layer cannot be relied on
    to be copied. Those of like length are batched, padded on the right, where no token before it sees
    the padding: neither that nor the size of a batch changes the probabilities, but for rounding. No more threads are
    used than torch has.

    Args:
        wanted: ids of the tokens.
        begun: ids of what the answer already begins with.
        batch_tokens: how many tokens are in a batch.
    """
    tokenizer, conversations = policy.tokenizer, [list(prompt) for prompt in prompts]
    template = {"add_generation_prompt": True, "return_dict": False}
    rows = [[*ids, *begun] for ids in (tokenizer.apply_chat_template(conversations, **template) if prompts else [])]
    limit = getattr(policy.model.config, "max_position_embeddings", None) or max(map(len, rows), default=0)
    order = sorted((i for i in range(len(rows)) if len(rows[i]) <= limit), key=rows.__getitem__)
    couples: dict[int, list[tuple[int, int]]] = {}
    share = bool(order) and policy.attention_only
    for i, j in _neighbours(rows, order):
        alike = min(_shared_length(rows[i], rows[j]), len(rows[i]) - 1, len(rows[j]) - 1) if share else 0
        # By up to a quarter less, so that couples of which few share quite as much can be batched.
        couples.setdefault(alike - alike % 2 ** max(0, alike.bit_length() - 3), []).append((i, j))
    probabilities = torch.full((len(rows), len(wanted)), float("nan"), dtype=torch.float64)
    ids, passed, batches = torch.tensor(wanted), 0, list[tuple[int, list[int]]]()
    # As many rows as places where one may end: their logits stay below 256 MiB in float32, whatever the vocabulary.
    most = math.isqrt(2**26 // len(tokenizer)) // 2
    # Longest first: a batch that does not fit in memory is met at once, not after an hour.
    for shared, some in sorted(couples.items(), reverse=True):
        some.sort(key=lambda couple: -max(len(rows[i]) for i in couple))
        begin = 0
        while begin < len(some):
            longest = max(len(rows[i]) for i in some[begin])
            batch = some[begin : begin + max(1, min(most, batch_tokens // (2 * longest - shared)))]
            begin += len(batch)
            flat = [i for couple in batch for i in couple]
            batches.append((shared, flat))
            passed += sum(len(rows[i]) - shared for i in flat) + shared * len(batch)

    def fill(batch: tuple[int, list[int]]) -> None:
        shared, flat = batch
        logits = _last_logits(policy, [rows[i] for i in flat], shared)
        probabilities[flat] = logits.double().softmax(-1).cpu()[:, ids]

    with merged_layers(policy.model):
        in_parallel(fill, batches, policy.model.device.type == "cpu" and policy.parameters < SMALL)
    return Next(probabilities, passed)


def in_parallel(work: Callable[[Any], None], batches: Sequence[Any], threaded: bool) -> None:
    """Do `work` on each batch; `threaded`, on as many at a time as torch has threads, one for each."""
    threads = torch.get_num_threads()
    if not threaded or threads == 1:
        for batch in batches:
            work(batch)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for _ in pool.map(work, batches):
                pass
    finally:
        torch.set_num_threads(threads)  # it holds for threads yet to come, too


def _neighbours(rows: list[list[int]], order: list[int]) -> Iterator[tuple[int, int]]:
    """Rows two by two, those that begin alike together; one that is like no other goes with itself."""
    waiting = list(reversed(order))
    while waiting:
        i = waiting.pop()
        nearer = len(waiting) > 1 and _shared_length(rows[waiting[-1]], rows[waiting[-2]]) > _shared_length(
            rows[i], rows[waiting[-1]]
        )
        yield i, i if nearer or not waiting else waiting.pop()


def _shared_length(one: list[int], other: list[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((k for k, (x, y) in pairs if x != y), min(len(one), len(other)))


@torch.inference_mode()
def _last_logits(policy: LanguageModelPolicy, rows: list[list[int]], shared: int) -> torch.Tensor:
    """The logits after the last token of each row, shape (rows, vocabulary); row 2k and row 2k + 1 begin with the same
    `shared` tokens."""
    model, device = policy.model, policy.model.device
    inputs = padded([row[shared:] for row in rows], policy.tokenizer, "right", device)
    mask = inputs["attention_mask"]
    # Only where a row ends are there logits, instead of everywhere.
    ends, which = (mask.sum(1) - 1).unique(return_inverse=True)
    cache = None
    if shared:
        beginnings = torch.tensor([row[:shared] for row in rows[::2]], device=device)
        last = {"logits_to_keep": 1} if takes(model, "logits_to_keep") else {}
        cache = model(input_ids=beginnings, use_cache=True, **last).past_key_values
        cache.reorder_cache(torch.arange(len(beginnings), device=device).repeat_interleave(2))
        mask = torch.cat([mask.new_ones(len(rows), shared), mask], 1)
    more: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
    if keeps := takes(model, "logits_to_keep"):
        more["logits_to_keep"] = ends
    logits = model(input_ids=inputs["input_ids"], attention_mask=mask, use_cache=cache is not None, **more).logits
    if not keeps:
        logits = logits[:, ends]  # (rows, ends, V)
    return logits[torch.arange(len(rows), device=device), which].float()


def spellings(tokenizer: PreTrainedTokenizerBase, answers: Sequence[str]) -> list[list[int]]:
    """Return tokens that one of `answers` may begin with: a list with one token for each answer, for each spelling (as
    it stands, after a space, or right after where the chat template lets a reply begin) that makes one token of each.

    Several tokens are one word to the eye, such as "A" with and without a space before it, and which of them a model
    takes depends on its template; none of its probability is lost when all are asked for.
    """
    before = tokenizer.apply_chat_template(
        [{"role": "user", "content": "?"}], add_generation_prompt=True, tokenize=False
    )
    start = list(tokenizer(before, add_special_tokens=False)["input_ids"])
    single_tokens: list[list[int]] = []
    for space in ("", " "):
        alone = [list(tokenizer(space + word, add_special_tokens=False)["input_ids"]) for word in answers]
        inside = [list(tokenizer(before + space + word, add_special_tokens=False)["input_ids"]) for word in answers]
        after = [ids[len(start) :] if ids[: len(start)] == start else [] for ids in inside]
        for tokens in (alone, after):
            single = [ids[0] for ids in tokens if len(ids) == 1]
            if len(set(single)) == len(answers) and single not in single_tokens:
                single_tokens.append(single)
    return single_tokens
