"""Make the bundled models: vocabulary, pretraining, measurement, card.

``python -m tools.lab_model.build`` with its default arguments makes the lab's model from nothing, and ``--bilingual``
goes on from there to the one that also knows Chinese (to the rounding of the machine's floating-point arithmetic).
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from tools.lab_model.card import write_card
from tools.lab_model.curriculum import Example, example
from tools.lab_model.vocabulary import END, MAX_LENGTH, extend_tokenizer, render_question, train_tokenizer

from prefzoo.lab import BILINGUAL_MODEL_DIR, MODEL_DIR
from prefzoo.lab.language import Language
from prefzoo.lab.world import LANGUAGES

if TYPE_CHECKING:
    import torch
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

Row = tuple[list[int], list[float]]

COURSE_STEPS = (2000, 1600, 700)  # see curriculum.py
BILINGUAL_STEPS = (900, 300, 350)
BATCH = 64
THREADS = 2
LEARNING_RATES = (3e-3, 2e-3, 1.5e-3)  # the peak of each course
WARMUP = 100


def new_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """An untrained model of the bundled shape.

    Attention starts from like to like, and passes on what it sees as it is (Trockman and Kolter 2023, "Mimetic
    Initialization of Self-Attention Layers"): with tied embeddings that is nearly copying, the skill that is wanted.
    """
    import torch
    from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=MAX_LENGTH, tie_word_embeddings=True, initializer_range=0.04,
        bos_token_id=None, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for layer in model.model.layers:
            attention = layer.self_attn
            attention.k_proj.weight.copy_(attention.q_proj.weight)
            torch.nn.init.orthogonal_(attention.v_proj.weight, gain=0.7)
            attention.o_proj.weight.copy_(attention.v_proj.weight.T)
    model.generation_config = GenerationConfig(
        do_sample=True, temperature=1.0, top_k=0, top_p=1.0,
        eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id,
    )  # fmt: skip
    return model


def encode(tokenizer: PreTrainedTokenizerFast, item: Example) -> Row:
    """Token ids of a templated example and the weight of each token's loss."""
    texts, weights = [], []
    for i, turn in enumerate(item.turns):
        texts += [render_question(item.system if i == 0 else "", turn.user), turn.answer + END]
        weights += [item.question_weight, turn.weight]
    pieces = tokenizer(texts)["input_ids"]
    ids = [token for piece in pieces for token in piece]
    return ids, [weight for piece, weight in zip(pieces, weights, strict=True) for _ in piece]


def batches(
    tokenizer: PreTrainedTokenizerFast, seed: int, course: int, steps: int, languages: Sequence[Language]
) -> Iterator[list[Row]]:
    """Batches, the shortest example first, each made while the one before is in use; the order is fixed."""
    rng = random.Random(seed + course)

    def make(step: int) -> list[Row]:
        rows = [encode(tokenizer, example(rng, step / steps, course, languages)) for _ in range(BATCH)]
        return sorted(rows, key=lambda row: len(row[0]))

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(make, 0)
        for step in range(steps):
            ready = waiting.result()
            waiting = pool.submit(make, step + 1)
            yield ready


def weighted_loss(model: LlamaForCausalLM, rows: list[Row]) -> torch.Tensor:
    """The weighted sum of losses. Padding is to the right, so causal attention needs no mask; logits are computed
    where there is a weight, which is the smaller part of the tokens."""
    import torch

    width = max(len(ids) for ids, _ in rows)
    pad = model.config.pad_token_id or 0
    tokens = torch.tensor([ids + [pad] * (width - len(ids)) for ids, _ in rows])
    weights = torch.tensor([w + [0.0] * (width - len(w)) for _, w in rows])[:, 1:]
    hidden = model.model(input_ids=tokens, use_cache=False).last_hidden_state[:, :-1]
    taught = weights > 0
    losses = torch.nn.functional.cross_entropy(model.lm_head(hidden[taught]), tokens[:, 1:][taught], reduction="none")
    return (losses * weights[taught]).sum()


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up, then a cosine to zero."""
    if step < WARMUP:
        return peak * (step + 1) / WARMUP
    return peak * 0.5 * (1 + math.cos(math.pi * (step - WARMUP) / max(1, steps - WARMUP)))


def train_course(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    course: int,
    steps: int,
    seed: int,
    languages: Sequence[Language],
) -> None:
    """Train ``model`` in place on one course with a progress line every 50 steps."""
    import torch

    peak = LEARNING_RATES[course]
    optimizer = torch.optim.AdamW(model.parameters(), lr=peak, betas=(0.9, 0.98), weight_decay=0.05)
    begin, recent = time.time(), 0.0
    model.train()
    for step, rows in enumerate(batches(tokenizer, seed, course, steps, languages)):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, steps, peak)
        total = sum(sum(weights) for _, weights in rows)
        for half in (rows[: BATCH // 2], rows[BATCH // 2 :]):
            loss = weighted_loss(model, half) / total
            loss.backward()
            recent += loss.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % 50 == 0:
            left = (time.time() - begin) / (step + 1) * (steps - step - 1)
            print(
                f"course {course + 1}  step {step + 1}/{steps}  loss {recent / 50:.4f}  {left / 60:.1f} minutes left",
                flush=True,
            )
            recent = 0.0
    model.eval()


def pretrain(
    model: LlamaForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    steps: int,
    seed: int,
    shares: Sequence[int] = COURSE_STEPS,
    languages: Sequence[Language] = (LANGUAGES["en"],),
) -> float:
    """Train ``model`` in place on all courses, ``steps`` batches in all; the seconds that it took."""
    begin = time.time()
    for course, share in enumerate(shares):
        train_course(model, tokenizer, course, max(1, steps * share // sum(shares)), seed, languages)
    return time.time() - begin


def bilingual_model(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """The lab's model with untrained embeddings for the tokens that ``tokenizer`` has behind the lab's.

    To look a value up is learned already, and not bound to a language: Chinese takes half of the batches that English
    took.
    """
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(MODEL_DIR)
    known = model.config.vocab_size
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    torch.manual_seed(seed)
    with torch.no_grad():
        model.get_input_embeddings().weight[known:].normal_(std=model.config.initializer_range)
    return model


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, training: dict[str, int]) -> None:
    """Write the model folder; ``training`` (seed, steps, seconds) is kept beside it for the card."""
    out.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    (out / "model.safetensors").chmod(0o644)  # it is written for its owner alone
    (out / "training.json").write_text(json.dumps(training, indent=2) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Run the command line; see the module's text."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.lab_model.build", description="Make the lab's bundled model."
    )
    parser.add_argument("--bilingual", action="store_true", help="go on from the lab's model, in both languages")
    parser.add_argument("--out", type=Path, help="the model folder (default: the bundled one)")
    parser.add_argument("--steps", type=int, help=f"batches of {BATCH} to train on")
    parser.add_argument("--seed", type=int, default=0, help="seed of the vocabulary, the weights and the data")
    parser.add_argument("--measure-only", action="store_true", help="train nothing; measure and describe --out anew")
    options = parser.parse_args(arguments)
    shares = BILINGUAL_STEPS if options.bilingual else COURSE_STEPS
    languages = tuple(LANGUAGES.values()) if options.bilingual else (LANGUAGES["en"],)
    out = options.out or (BILINGUAL_MODEL_DIR if options.bilingual else MODEL_DIR)
    steps = sum(shares) if options.steps is None else options.steps
    if steps < len(shares):
        parser.error(f"--steps {steps} is too few; allowed: {len(shares)} or more")

    import torch
    from transformers import PreTrainedTokenizerFast

    torch.set_num_threads(THREADS)
    if not options.measure_only:
        if options.bilingual:
            tokenizer = extend_tokenizer(PreTrainedTokenizerFast.from_pretrained(MODEL_DIR), options.seed)
            model = bilingual_model(tokenizer, options.seed)
        else:
            tokenizer = train_tokenizer(options.seed)
            model = new_model(tokenizer, options.seed)
        seconds = pretrain(model, tokenizer, steps, options.seed, shares, languages)
        if options.bilingual:
            model = model.half()  # half the megabytes; it is loaded in float32 like any model
        save(model, tokenizer, out, {"seed": options.seed, "steps": steps, "seconds": round(seconds)})
    write_card(out, languages)


if __name__ == "__main__":
    main()
