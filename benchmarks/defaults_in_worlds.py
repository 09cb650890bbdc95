"""Do defaults that were looked at in one world hold in others? DPO's beta, PPO's KL coefficient and the learning rate.

- `lab`: the help desk as it is (from the search for the first recipe's settings, benchmarks/tune_quickstart.py).
- `annotators`: its prompts and replies, labelled by the one annotator that cares least for correctness, in haste.
- `continuation`: a small model that was trained here to write reviews goes on from their first words, without a chat
  template; a function that counts kind and unkind words is the truth and the reward.

In each the settings of `dpo` and `ppo` are searched from the defaults, scored on validation prompts.

    python benchmarks/defaults_in_worlds.py --work /tmp/worlds      # a quarter of an hour a world; docs/tuning.md too
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
FOUND = HERE / "results" / "defaults_in_worlds.json"
LAB = HERE / "results" / "tuned_quickstart.json"
PAGE = HERE.parent / "docs" / "tuning.md"
BEGIN, END = "<!-- worlds -->", "<!-- end of worlds -->"
TUNED: dict[str, Any] = {
    "algorithms": {"dpo": {}, "ppo": {}},
    "budget": {"prompts": 600},
    "tuning": {"trials": 8, "seeds": 2},
}
GOLD = """
from prefzoo.lab.gold_reward import breakdown

def gold(prompts, completions):
    return [sum(breakdown(p[-1]["content"], c).values()) for p, c in zip(prompts, completions)]
"""
KIND = ("great", "lovely", "superb", "warm", "clever", "funny")
UNKIND = ("dull", "awful", "weak", "cold", "slow", "sad")
SCORE = f"""
def kind(prompts, completions):
    words = [text.replace(".", " ").split() for text in completions]
    return [sum((w in {KIND}) - (w in {UNKIND}) for w in each) / max(4, len(each)) for each in words]
"""


def annotators(work: Path) -> dict[str, Any]:
    """The recipe of the lab's pairs as another annotator labels them."""
    from prefzoo.lab.lab_source import labelled_rows
    from prefzoo.lab.simulated_annotators import POOL

    hurried, rng = next(each for each in POOL if each.name == "hurried"), random.Random(0)
    pairs = []
    for row in labelled_rows("train", 1200, seed=2):
        prompt, one, other = row.prompt[-1]["content"], str(row.chosen), str(row.rejected)
        if not hurried.prefers_first(prompt, one, other, rng):
            one, other = other, one
        pairs.append({"prompt": prompt, "chosen": one, "rejected": other})
    (work / "pairs.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs), encoding="utf-8")
    (work / "gold.py").write_text(GOLD, encoding="utf-8")
    data = {"source": None, "preferences": str(work / "pairs.jsonl")}
    return {"data": data, "gold": {"path": f"{work / 'gold.py'}:gold"}, "generation": {"max_new_tokens": 40}}


def review(rng: random.Random) -> tuple[str, str]:
    """The first words of a review, and how it goes on."""
    things, parts = ("film", "play", "book", "song", "show"), ("end", "middle", "cast", "plot", "sound")
    number = rng.randrange(10_000)
    sentences = [f" the {rng.choice(parts)} was {rng.choice(KIND + UNKIND)}." for _ in range(rng.randint(1, 4))]
    return f"My review of {rng.choice(things)} {number}: I thought", "".join(sentences)


def continuation(work: Path) -> dict[str, Any]:
    """The recipe of a model without a template, trained here on reviews."""
    rng = random.Random(0)
    make_model(work / "model", [review(rng) for _ in range(12_000)])
    prompts = {review(rng)[0] for _ in range(1000)}
    (work / "prompts.txt").write_text("\n".join(sorted(prompts)) + "\n", encoding="utf-8")
    (work / "score.py").write_text(SCORE, encoding="utf-8")
    truth = f"{work / 'score.py'}:kind"
    return {
        "model": {"path": str(work / "model"), "chat_template": "none"},
        "data": {"source": None, "prompts": str(work / "prompts.txt"), "label_with": "gold"},
        "gold": {"path": truth},
        "reward": {"type": "function", "path": truth},
        "generation": {"max_new_tokens": 32, "unfinished": "keep"},
    }


def make_model(folder: Path, reviews: list[tuple[str, str]]) -> None:
    """Train a Llama of 0.8M parameters on these texts, and write it with its tokenizer."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer, raw.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    texts = ["".join(each) for each in reviews]
    special = ["<s>", "</s>", "<pad>"]
    raw.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=512, special_tokens=special, initial_alphabet=alphabet)
    )
    raw.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4}
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=128, **sizes, **ids))
    steps = 1200
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, steps)
    for step in range(steps):
        some = [f"{text}</s>" for text in texts[step * 10 % len(texts) :][:32]]
        batch = tokenizer(some, padding=True, return_tensors="pt", return_token_type_ids=False)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def lines(world: str, record: dict[str, Any]) -> list[str]:
    """The table's lines of one world."""
    made = []
    for label in TUNED["algorithms"]:
        found = record["labels"][label]
        shown = []
        for trial in (found["trials"][0], found["trials"][found["best"]]):
            settings = ", ".join(f"{key.rpartition('.')[2]} {value:.3g}" for key, value in trial["settings"].items())
            shown.append(f"{settings} | {trial['score']:.2f} | {trial['kl']:.1f}")
        scale = record["labels"][label]["trials"][0]["standard_error"]
        made.append(
            f"| {world} | {label} | {record['start']['score']:.2f} | " + " | ".join(shown) + f" | {scale:.2f} |"
        )
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("runs/worlds"), help="folder of models, data and searches")
    given = parser.parse_args()
    import prefzoo

    records = {"lab": json.loads(LAB.read_text(encoding="utf-8"))["search"]}
    for world in (annotators, continuation):
        work = given.work.resolve() / world.__name__
        work.mkdir(parents=True, exist_ok=True)
        records[world.__name__] = prefzoo.tune({"extends": "base", **TUNED, **world(work)}, out=work / "run").record
    FOUND.write_text(json.dumps({k: v for k, v in records.items() if k != "lab"}, indent=1) + "\n", encoding="utf-8")
    head = "| world | | start | as written | score | KL | best found | score | KL | standard error |"
    table = [head, "| --- | --- | ---: " + "| --- | ---: | ---: " * 2 + "| ---: |"]
    table += [line for world, record in records.items() for line in lines(world, record)]
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    PAGE.write_text(before + "\n".join([BEGIN, *table, END]) + after, encoding="utf-8")


if __name__ == "__main__":
    main()
