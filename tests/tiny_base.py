"""A base model of one's own: it knows a little English about things people like or do not, has its own tokenizer and
no chat template."""

from __future__ import annotations

import random
from pathlib import Path

THINGS = (
    "film",
    "soup",
    "hotel",
    "song",
    "game",
    "garden",
    "book",
    "train",
    "lamp",
    "museum",
    "teacher",
    "party",
    "beach",
    "phone",
    "cake",
)
GOOD = ("great", "lovely", "wonderful", "nice", "excellent", "good", "amazing", "beautiful")
BAD = ("terrible", "awful", "horrible", "bad", "ugly", "boring", "poor", "nasty")
QUESTIONS = (
    "How was the {}?",
    "What do you think of the {}?",
    "Tell me about the {}.",
    "And the {}?",
    "Was the {} as you expected?",
)


def prompts() -> list[str]:
    """Every question about every thing, some with a day."""
    days = ("", " on Monday", " on Sunday", " in May", " last year")
    return [q.format(thing + day) for q in QUESTIONS for thing in THINGS for day in days]


def remark(thing: str, rng: random.Random) -> str:
    """A sentence of mixed quality."""
    word = rng.choice(rng.choice((GOOD, BAD)))
    very = rng.choice(("", "very ", "quite ", "rather "))
    return rng.choice(
        (f"The {thing} was {very}{word}.", f"It was {very}{word}.", f"I saw the {thing} and it was {word}.")
    )


def make_base(folder: Path, steps: int) -> Path:
    """Train it from nothing on dialogues and single remarks, each ended by the end-of-sequence token."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    rng = random.Random(0)

    def document() -> str:
        thing = rng.choice(THINGS)
        question = rng.choice(prompts()) if rng.random() < 0.5 else rng.choice(QUESTIONS).format(thing)
        return f"User:\n{question}\n\nAssistant:\n{remark(thing, rng)}" if rng.random() < 0.7 else remark(thing, rng)

    texts = [document() for _ in range(4000)]
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    raw.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=420, special_tokens=["<eos>", "<pad>"], initial_alphabet=alphabet))  # fmt: skip  # noqa: E501
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        tie_word_embeddings=True,
    )
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(steps):
        batch = tokenizer([text + "<eos>" for text in rng.sample(texts, 32)], padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        loss = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=labels).loss
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
