"""Facts out of documents in the reward, in the lab, where the truth about every reply is known by rule.

A shop has one price list and one handbook (`documents`); the lab's customers ask it. Measured are
- the checkers: how often the bundled model as judge, and an entailment model that is trained here on other shops, agree
  with exact correctness, and their two kinds of error;
- the reward: an algorithm that learns from a trained reward model alone, and from its sum with the knowledge;
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

import numpy as np

import prefzoo
from prefzoo import lab
from prefzoo.data.agreement import clustered_wilson
from prefzoo.data.documents import load_documents, sentences
from prefzoo.judges.fact_checking import VERDICTS, FactChecker, Verdict
from prefzoo.lab.lab_rows import distinct_replies
from prefzoo.lab.simulated_annotators import POOL
from prefzoo.lab.world import Fact, random_value, read_prompt
from prefzoo.models.loading import load_tokenizer
from prefzoo.results import statistics
from prefzoo.results.results_schema import Results
from prefzoo.rewards.knowledge_reward import build_fact_checker
from prefzoo.rewards.reward_text import classifier_tokens
from prefzoo.run.evaluation_records import read_records
from prefzoo.types import Prompt

SHEET = re.compile(r"Facts: (.+)\.\nQuestion: (.+)")
KEPT = 0.08
"""Of the pairs of which neither text says anything of the other, which are by far the most."""
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
                    if label != 2 or rng.random() < KEPT:
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
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=steps)
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


def write_rows(file: Path, rows: Sequence[dict[str, Any]]) -> str:
    """Write rows as JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def gold(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
    """The lab's gold reward, for a recipe whose data are a file."""
    return [float(lab.gold(p[-1]["content"], text)) for p, text in zip(prompts, completions, strict=True)]


def measured(results: Results, out: Path, label: str, whole: dict[str, str]) -> dict[str, np.ndarray]:
    """Of a label's replies to fair questions, (seeds x prompts): exact correctness, whether they are right, whether
    they are wrong, their length in tokens, and gold.

    Args:
        whole: a prompt's last line -> the prompt with the shop's facts, by which it is judged.
    """
    columns: dict[str, list[list[float]]] = {}
    for trial in results.algorithms[label].seeds.values():
        of_seed: dict[str, list[float]] = {}
        for record in read_records((out / trial.replies).parent):
            prompt = whole[record["prompt"][-1]["content"].splitlines()[-1]]
            if read_prompt(prompt).intent.slice == "harmful":
                continue
            parts = lab.breakdown(prompt, record["reply"])
            values = {
                "correctness": parts["correctness"],
                "right": float(parts["correctness"] > 0),
                "wrong": float(parts["correctness"] < 0),
                "length": record["length"],
                "gold": sum(parts.values()),
            }
            for name, value in values.items():
                of_seed.setdefault(name, []).append(value)
        for name, column in of_seed.items():
            columns.setdefault(name, []).append(column)
    return {name: np.array(table) for name, table in columns.items()}


def differences(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, Any]:
    """The means of both, and one less the other, paired by seed and prompt, with its 95% interval."""
    found = {}
    for name in one:
        each = statistics.paired_difference(one[name], other[name])
        means = [float(table[name].mean()) for table in (one, other)]
        found[name] = {"means": means, "difference": each.mean, "ci95": [each.low, each.high]}
    return found


def main() -> None:
    """Measure the checkers, the reward and the context; write `knowledge_reward.json`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the shop")
    parser.add_argument("--prompts", type=int, default=600, help="to train on")
    parser.add_argument("--test", type=int, default=256, help="to measure on")
    parser.add_argument("--entailment", type=Path, help="a trained entailment model; trained anew by default")
    parser.add_argument("--algorithm", default="rejection_sampling")
    parser.add_argument("--weight", type=float, default=2.0, help="of knowledge beside the trained reward")
    parser.add_argument("--parts", nargs="+", default=["checkers", "reward", "context"])
    parser.add_argument("--out", type=Path, default=Path("runs/knowledge_reward"))
    options = parser.parse_args()
    out: Path = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    train, test = (
        shop_rows(split, getattr(options, n), options.seed) for split, n in (("train", "prompts"), ("test", "test"))
    )
    documents = out / "handbook.jsonl"
    write_documents(documents, [row["prompt"] for row in [*train, *test]])
    entailment: Path = options.entailment or out / "entailment"
    if not entailment.is_dir():
        train_entailment(entailment, 6000, 3, options.seed)
    found: dict[str, Any] = {"documents": len(load_documents(str(documents)).passages)}
    if "checkers" in options.parts:
        found["checkers"] = checkers(str(documents), entailment, test)
        print(json.dumps(found["checkers"], indent=1), flush=True)
    settings = {"rejection_sampling": {"n": 4, "trainer": {"learning_rate": 0.0023}}}.get(options.algorithm, {})
    recipe: dict[str, Any] = {
        "extends": "base",
        "budget": {"prompts": None},
        "data": {"splits": {"train": 0.7, "validation": 0.0, "test": 0.3}, "preferences": ""},
        "judge": {"audit_pairs": 0},
        "evaluation": {"prompts": options.test},
        "algorithms": {options.algorithm: settings},
        "seeds": options.seeds,
        "tracking": {"wandb": {"mode": "disabled"}},
    }
    rows = [*train, *test]
    whole = {row["prompt"].splitlines()[-1]: row["prompt"] for row in rows}
    if "reward" in options.parts:
        part = {"type": "knowledge", "documents": str(documents), "path": str(entailment), "weight": options.weight}
        recipe["data"]["preferences"] = write_rows(out / "rows.jsonl", rows)
        recipe |= {"gold": {"path": f"{Path(__file__).resolve()}:gold"}}
        arms = {"without": {"type": "trained"}, "with": {"type": "sum", "of": [{"type": "trained"}, part]}}
        tables = {}
        for name, reward in arms.items():
            results = prefzoo.compare({**recipe, "reward": reward}, out=out / name)
            tables[name] = measured(results, out / name, options.algorithm, whole)
            tables["start"] = measured(results, out / name, "start", whole)
        found["reward"] = {
            "with - without": differences(tables["with"], tables["without"]),
            **{f"{name} - start": differences(tables[name], tables["start"]) for name in arms},
        }
        print(json.dumps(found["reward"], indent=1), flush=True)
    if "context" in options.parts:
        bare = [{**row, "prompt": row["prompt"].splitlines()[-1]} for row in rows]
        (out / "sheet.jinja").write_text(
            'Facts: {{ passages | map(attribute="text") | join("; ") }}.\n{{ prompt }}', encoding="utf-8"
        )
        context = {"documents": str(documents), "k": 2, "template": str(out / "sheet.jinja")}
        recipe["data"]["preferences"] = write_rows(out / "bare.jsonl", bare)
        recipe |= {"gold": "none", "reward": {"type": "random"}, "evaluation": {"prompts": options.test}}
        tables = {}
        for name, put in {"without": None, "with": context}.items():
            results = prefzoo.compare(
                {**recipe, "context": put, "algorithms": {"dpo": {}}}, out=out / f"context-{name}"
            )
            for label in ("start", "dpo"):
                tables[name, label] = measured(results, out / f"context-{name}", label, whole)
        found["context"] = {
            f"{label}, with - without": differences(tables["with", label], tables["without", label])
            for label in ("start", "dpo")
        }
        print(json.dumps(found["context"], indent=1), flush=True)
    (out / "knowledge_reward.json").write_text(json.dumps(found, indent=1), encoding="utf-8")


def checkers(documents: str, entailment: Path, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The agreement of each checker with exact correctness, on both replies of each test pair."""
    judge = {"settings": {"type": "local"}, "model": "lab", "loading": {}, "gold": "lab", "seed": 0, "cache": ""}
    kinds: dict[str, dict[str, Any]] = {
        "judge": {"judge": judge},
        "entailment": {"path": str(entailment)},
        "truth": {"judge": {**judge, "settings": {"type": "gold"}}},
    }
    replies = [(row["prompt"], row[key]) for row in rows for key in ("chosen", "rejected")]
    return {name: agreement(build_fact_checker(documents, 4, by), replies) for name, by in kinds.items()}


if __name__ == "__main__":
    main()
