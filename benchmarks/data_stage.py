"""How long the data stage takes for many pairs, and how much memory: 200,000 pairs on two cores, or as many as is said.

    python benchmarks/data_stage.py [--pairs 200000] [--variants mixed long_prompts] [--models lab bpe32k]
        [--work runs/data_stage] [--seed 0] [--out benchmarks/results/data_stage.json]

The pairs are made of words drawn as often as words of a language are (Zipf's law). The stage runs in a process of its
own, with what a comparison imports, from its start to its end.

- `mixed`: prompts and replies of a few to some hundred words, a quarter of the prompts from 20 templates, a tenth
  nearly the same as one before, some the same, some replies that are too long.
- `shared_words`: all prompts have the same 120 words before their own.
- `long_prompts`: each prompt has more than `data.max_prompt_tokens` tokens.
- `conversations`: lists of messages, with a system's message in some, of up to seven turns.

`lab` is the bundled model, with 1,024 tokens; `bpe32k` a model with a byte-level BPE of 32,000, trained on such text.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, measured, write

CORES = 2
GOAL = {"seconds": 300, "peak_mib": 2048}
VARIANTS = ("mixed", "shared_words", "long_prompts", "conversations")
MODELS = ("lab", "bpe32k")
VOCABULARY, TOKENS = 20_000, 32_000
MAX_PROMPT_TOKENS = 128
"""Of `long_prompts`."""
TEMPLATE = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


class Writer:
    """Writes text of made-up words, the same for the same seed."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        onsets, vowels, codas = (
            ["b", "c", "d", "f", "g", "h", "l", "m", "n", "p", "r", "s", "t", "w", "st", "tr", "pl", "sh", "th", ""],
            "aeiou",
            ["", "n", "r", "s", "t", "l", "nd"],
        )
        syllables = [onset + vowel + coda for onset in onsets for vowel in vowels for coda in codas]
        words = [
            "".join(self.rng.choice(syllables, size=1 + (i > 100) + (i > 2000) * int(self.rng.integers(0, 2))))
            for i in range(VOCABULARY)
        ]
        self.words = np.array(words, dtype=object)
        shares = 1 / (np.arange(VOCABULARY) + 2.7)
        self.shares = np.cumsum(shares / shares.sum())

    def text(self, count: int) -> str:
        """So many words, in sentences."""
        drawn = self.words[np.searchsorted(self.shares, self.rng.random(count)).clip(max=VOCABULARY - 1)].tolist()
        for begin in range(0, count, 12):
            drawn[begin] = drawn[begin].capitalize()
            drawn[min(begin + 11, count - 1)] += "."
        return " ".join(drawn)

    def length(self, median: float) -> int:
        """A number of words, log-normal about this median."""
        return 1 + int(median * np.exp(0.8 * self.rng.normal()))


def records(variant: str, count: int, seed: int) -> Iterator[dict[str, Any]]:
    """The pairs of a variant."""
    writer = Writer(seed)
    rng = writer.rng
    templates = [writer.text(25) for _ in range(20)]
    shared = writer.text(120)
    recent = [writer.text(20)]
    for _ in range(count):
        kind = rng.random()
        if variant == "long_prompts":
            prompt = writer.text(150 + writer.length(40))
        elif variant == "shared_words":
            prompt = f"{shared} {writer.text(writer.length(20))}"
        elif kind < 0.25:
            prompt = f"{templates[int(rng.integers(20))]} {writer.text(writer.length(8))}"
        elif kind < 0.35:
            prompt = f"{recent[int(rng.integers(len(recent)))]} {writer.text(1)}"
        elif kind < 0.37:
            prompt = recent[int(rng.integers(len(recent)))]
        else:
            prompt = writer.text(writer.length(25))
        recent = [*recent[-99:], prompt]
        chosen, rejected = (writer.text(writer.length(35) * (20 if rng.random() < 0.002 else 1)) for _ in range(2))
        if variant != "conversations":
            yield {"prompt": prompt, "chosen": chosen, "rejected": rejected}
            continue
        turns = [{"role": "system", "content": templates[0]}] if rng.random() < 0.3 else []
        for _ in range(int(rng.integers(3))):
            turns.append({"role": "user", "content": writer.text(writer.length(12))})
            turns.append({"role": "assistant", "content": writer.text(writer.length(20))})
        turns.append({"role": "user", "content": prompt})
        sides = [[*turns, {"role": "assistant", "content": reply}] for reply in (chosen, rejected)]
        yield dict(zip(("chosen", "rejected"), sides, strict=True))


def make_model(folder: Path, seed: int) -> None:
    """A small Llama with random weights and a byte-level BPE of `TOKENS` tokens."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    writer = Writer(seed)
    special = ["<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    trained = ByteLevelBPETokenizer()
    texts = (writer.text(200) for _ in range(5_000))
    trained.train_from_iterator(texts, vocab_size=TOKENS, special_tokens=special, show_progress=False)
    trained._tokenizer.save(str(folder.with_suffix(".json")))
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(folder.with_suffix(".json")), pad_token="<|pad|>", eos_token="<|end|>"
    )
    tokenizer.chat_template = TEMPLATE
    config = LlamaConfig(
        vocab_size=TOKENS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=4096,
        eos_token_id=1,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def recipe(variant: str, model: str, pairs: Path) -> dict[str, Any]:
    """Of which the data stage alone is run."""
    data: dict[str, Any] = {"source": None, "preferences": str(pairs.resolve())}
    if variant == "long_prompts":
        data["max_prompt_tokens"] = MAX_PROMPT_TOKENS
    return {
        "extends": "base",
        "model": {"path": model},
        "data": data,
        "gold": "none",
        "budget": {"prompts": None},
        "algorithms": {"dpo": {}},
    }


def run_stage(recipe_file: Path, folder: Path) -> None:
    """Run the data stage in this process, as one of a comparison does."""
    from prefzoo.recipe.check_recipe import load
    from prefzoo.run.stage_graph import make_plan
    from prefzoo.run.worker import PRELOAD

    importlib.import_module(PRELOAD)
    from prefzoo.run.stages.data_stage import prepare

    plan = make_plan(load(json.loads(recipe_file.read_text(encoding="utf-8"))), folder / "run")
    sealed = folder / "sealed"
    sealed.mkdir(parents=True)
    prepare(plan, plan.stages["data"], sealed, lambda what, done, total: print(f"{what} {done}/{total}", flush=True))


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200_000)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=VARIANTS)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("runs/data_stage"))
    parser.add_argument("--out", type=Path, default=Path("data_stage.json"))
    parser.add_argument("--stage", type=Path, nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.stage:
        run_stage(*args.stage)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    paths = {"lab": "lab"}
    if "bpe32k" in args.models:
        folder = args.work / "bpe32k"
        paths["bpe32k"] = str(folder.resolve())
        if not folder.is_dir():
            make_model(folder, args.seed)
    os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[:CORES]))
    runs = []
    for variant in args.variants:
        pairs = args.work / f"{variant}-{args.pairs}-{args.seed}.jsonl"
        if not pairs.is_file():
            with pairs.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(record) + "\n" for record in records(variant, args.pairs, args.seed))
        for model in args.models:
            recipe_file = args.work / f"{variant}-{model}.json"
            write(recipe_file, recipe(variant, paths[model], pairs))
            folder = args.work / f"{variant}-{model}-{len(list(args.work.iterdir()))}"
            used = measured([sys.executable, __file__, "--stage", str(recipe_file), str(folder)], folder)
            found = json.loads((folder / "sealed" / "preflight.json").read_text(encoding="utf-8"))
            run = {
                "variant": variant,
                "model": model,
                "seconds": round(used["seconds"], 1),
                "processor_seconds": round(used["cpu_seconds"], 1),
                "peak_mib": round(used["peak_bytes"] / 2**20),
                "kept": found["kept"],
                "shortened": found["shortened_prompt_count"],
                "dropped": found["dropped"],
                "load": round(os.getloadavg()[0], 1),
            }
            runs.append(run)
            print(run, flush=True)
    write(args.out, {"machine": machine(), "cores": CORES, "goal": GOAL, "pairs": args.pairs, "runs": runs})


if __name__ == "__main__":
    main()
