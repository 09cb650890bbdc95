"""Facts out of documents in the reward, in the lab, where the truth about every reply is known by rule.

A shop has one price list and one handbook (`documents`); the lab's customers ask it. Measured are
- the checkers: how often the bundled model as judge, and an entailment model that is trained here on other shops, agree
  with exact correctness, and their two kinds of error;
- the reward: GRPO on a trained reward model alone, and on its sum with the knowledge of the documents;
- the context: questions without a fact sheet, with passages put before the prompts and without.

    python benchmarks/replications/knowledge_reward.py --seeds 3
"""

from __future__ import annotations

import argparse
import json
import random
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import prefzoo
from prefzoo import lab
from prefzoo.data.agreement import clustered_wilson
from prefzoo.data.documents import load_documents, sentences
from prefzoo.judges.fact_checking import VERDICTS, FactChecker, Verdict
from prefzoo.lab.lab_rows import distinct_replies
from prefzoo.lab.simulated_annotators import POOL
from prefzoo.lab.world import Fact, random_value, read_prompt
from prefzoo.models.loading import load_tokenizer
from prefzoo.results.results_schema import Results
from prefzoo.rewards.knowledge_reward import build_fact_checker
from prefzoo.rewards.reward_text import classifier_tokens
from prefzoo.run.evaluation_records import read_records
from prefzoo.types import Prompt

SHEET = re.compile(r"Facts: (.+)\.\nQuestion: (.+)")
TITLES = {
    "price": "Prices: what things cost",
    "stock": "Stock: how many are left",
    "status": "Orders: where they are",
    "hours": "Opening hours: when we are open",
    "refund": "Refunds: how long things can be returned",
    "delivery": "Delivery and shipping: how fast it will arrive",
    "discount": "Discount that members get",
    "phone": "Hotline: the number to call or dial",
    "sale": "Sale: its last day",
    "shop_address": "Address of the shop",
    "own_address": "How customers who moved change their own address",
    "receipt_copy": "Copy of a receipt: which desk prints it",
    "cards": "Cards that we take to pay with",
    "password_reset": "Password and account: how to reset it",
    "lock": "Locks that keep things safe",
}
"""Headings of the handbook by kind of fact. Where customers live (`lives`) is in no handbook."""


def fragments(prompt: str) -> Iterator[tuple[Fact, str]]:
    """Each fact of a prompt's sheet, and how the sheet says it."""
    match = SHEET.fullmatch(prompt)
    assert match is not None, prompt
    return zip(read_prompt(prompt).facts, match[1].split("; "), strict=True)


def in_shop(prompt: str, seed: int) -> str:
    """A prompt of the lab whose sheet says what the shop of this seed says: each fact has one value for all prompts."""
    match = SHEET.fullmatch(prompt)
    assert match is not None, prompt
    said = []
    for fact, text in fragments(prompt):
        before, _, after = text.rpartition(fact.value)
        value = random_value(fact.kind, random.Random(f"shop {seed} {fact.kind} {fact.key}"))
        said.append(f"{before}{value}{after}")
    return f"Facts: {'; '.join(said)}.\nQuestion: {match[2]}"


def shop_rows(split: str, count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs as `lab.preferences` has them, in the shop."""
    rows = []
    for row in lab.prompts(split, count, seed):
        prompt = in_shop(row["prompt"], seed)
        rng = random.Random(f"{seed} {row['id']}")
        first, second = distinct_replies(read_prompt(prompt), rng)
        if not rng.choice(POOL).prefers_first(prompt, first, second, rng):
            first, second = second, first
        rows.append({"prompt": prompt, "chosen": first, "rejected": second})
    return rows


def write_documents(file: Path, prompts: Sequence[str]) -> None:
    """The handbook: every fact of these prompts' sheets but where customers live, each once."""
    facts = {text: fact.kind for prompt in prompts for fact, text in fragments(prompt) if fact.kind in TITLES}
    with file.open("w", encoding="utf-8") as out:
        for text, kind in sorted(facts.items(), key=lambda each: (each[1], each[0])):
            out.write(json.dumps({"id": kind, "title": TITLES[kind], "text": text}) + "\n")


def truth_of(prompt: str, reply: str) -> Verdict:
    """What exact correctness says of a reply."""
    value = lab.breakdown(prompt, reply)["correctness"]
    return "supported" if value > 0 else "contradicted" if value < 0 else "not_found"


def agreement(facts: FactChecker, rows: Sequence[tuple[str, str]]) -> dict[str, Any]:
    """How often a checker agrees with the truth; of what is not supported (contradicted) how often it says that it is;
    each with Wilson's 95% interval."""
    prompts: list[Prompt] = [[{"role": "user", "content": prompt}] for prompt, _ in rows]
    said = [each.verdict for each in facts(prompts, [reply for _, reply in rows])]
    true = [truth_of(*row) for row in rows]

    def share(wins: list[tuple[bool, str]]) -> dict[str, Any]:
        values = [float(won) for won, _ in wins]
        low, high = clustered_wilson(values, [prompt for _, prompt in wins])
        return {"share": sum(values) / max(1, len(values)), "ci95": [low, high], "replies": len(values)}

    pairs = list(zip(said, true, strict=True))
    triples = [(s, t, prompt) for (s, t), (prompt, _) in zip(pairs, rows, strict=True)]
    return {
        "agreement": share([(s == t, p) for s, t, p in triples]),
        "false support": share([(s == "supported", p) for s, t, p in triples if t != "supported"]),
        "false contradiction": share([(s == "contradicted", p) for s, t, p in triples if t != "contradicted"]),
        "of supported": share([(s == "supported", p) for s, t, p in triples if t == "supported"]),
        "of contradicted": share([(s == "contradicted", p) for s, t, p in triples if t == "contradicted"]),
        "confusion": {t: {s: sum(p == (s, t) for p in pairs) for s in VERDICTS} for t in VERDICTS},
        "counts": facts.report(),
    }


def entailment_pairs(prompts: int, seed: int) -> list[tuple[str, str, int]]:
    """Premise, hypothesis and the number of the verdict, from other shops: every fact of a training prompt's own sheet
    with every sentence of two ordinary replies to it."""
    rng, pairs = random.Random(f"entailment {seed}"), []
    for row in lab.prompts("train", prompts, 1000 + seed):
        scene, question = read_prompt(row["prompt"]), row["prompt"].splitlines()[-1]
        for reply in distinct_replies(scene, rng):
            for text in sentences(reply):
                verdict = truth_of(row["prompt"], text) if scene.intent.slice != "harmful" else "not_found"
                for fact, said in fragments(row["prompt"]):
                    about = fact.kind == scene.intent.fact and fact.key in ("", scene.key)
                    label = VERDICTS.index(verdict if about else "not_found")
                    if label != 2 or rng.random() < 0.25:
                        pairs.append((f"{TITLES.get(fact.kind, '')}: {said}", f"{question} {text}", label))
    rng.shuffle(pairs)
    return pairs


def train_entailment(out: Path, prompts: int, epochs: int, seed: int) -> None:
    """An entailment model: the bundled model with a head for three labels, trained whole on `entailment_pairs`."""
    import torch
    from transformers import AutoModelForSequenceClassification

    torch.manual_seed(seed)
    tokenizer = load_tokenizer(str(lab.MODEL_DIR))
    names = dict(enumerate(VERDICTS))
    model = AutoModelForSequenceClassification.from_pretrained(
        lab.MODEL_DIR, num_labels=len(names), id2label=names, label2id={name: i for i, name in names.items()}
    )
    model.config.pad_token_id = tokenizer.pad_token_id
    pairs = entailment_pairs(prompts, seed)
    rows = [classifier_tokens(tokenizer, [{"role": "user", "content": p}], h)["input_ids"] for p, h, _ in pairs]
    steps = epochs * (len(rows) // 64)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps)
    rng, order, total = random.Random(seed), list(range(len(rows))), 0.0
    for step in range(steps):
        if step % (len(rows) // 64) == 0:
            rng.shuffle(order)
        begin = 64 * (step % (len(rows) // 64))
        batch = order[begin : begin + 64]
        padded = tokenizer.pad([{"input_ids": rows[i]} for i in batch], padding_side="right", return_tensors="pt")
        labels = torch.tensor([pairs[i][2] for i in batch])
        loss = torch.nn.functional.cross_entropy(model(**padded).logits, labels)
        loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        total = loss.item() if step == 0 else 0.98 * total + 0.02 * loss.item()
        if step % 100 == 0:
            print(f"entailment: step {step} of {steps}, loss {total:.3f}", flush=True)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
