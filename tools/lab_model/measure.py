"""Measurements of the bundled model on unseen test prompts: judging, replying, critiquing, rewriting."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prefzoo.lab import tasks
from prefzoo.lab.clerk import best_plan, write
from prefzoo.lab.english import ENGLISH
from prefzoo.lab.gold_reward import gold, states_right
from prefzoo.lab.lab_rows import demonstrations, distinct_replies, preferences, prompts
from prefzoo.lab.language import Language
from prefzoo.lab.replies import CORES, read_reply
from prefzoo.lab.world import read_prompt

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

MAX_NEW_TOKENS = 48
BATCH = 250


@dataclass(frozen=True)
class Estimate:
    """A mean with the half-width of its 95% interval (normal approximation) and the number of values."""

    mean: float
    margin: float
    n: int

    def __str__(self) -> str:
        return f"{self.mean:.3f} ± {self.margin:.3f} (n={self.n})"


def estimate(values: Sequence[float]) -> Estimate:
    """The mean of ``values`` with its 95% interval; not a number where there are none."""
    n = len(values)
    if n == 0:
        return Estimate(math.nan, math.nan, 0)
    spread = statistics.stdev(values) if n > 1 else math.nan
    return Estimate(statistics.fmean(values), 1.96 * spread / math.sqrt(n), n)


@dataclass(frozen=True)
class Speaker:
    """A model folder, loaded: answers user messages and compares the two answers to a judging question."""

    model: LlamaForCausalLM
    tokenizer: PreTrainedTokenizerFast

    @classmethod
    def load(cls, folder: Path) -> Speaker:
        """Load ``folder`` with plain transformers."""
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        return cls(AutoModelForCausalLM.from_pretrained(folder, dtype="float32").eval(), tokenizer)

    def _templated(self, users: Sequence[str]) -> list[str]:
        chats = [[{"role": "user", "content": user}] for user in users]
        return self.tokenizer.apply_chat_template(chats, tokenize=False, add_generation_prompt=True)

    def answer(self, users: Sequence[str], seed: int) -> list[str]:
        """One answer to each user message, sampled at temperature 1."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return self._sample(users)

    def _sample(self, users: Sequence[str]) -> list[str]:
        import torch

        answers: list[str] = []
        for begin in range(0, len(users), BATCH):
            inputs = self.tokenizer(self._templated(users[begin : begin + BATCH]), return_tensors="pt", padding=True)
            with torch.inference_mode():
                out = self.model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=True)
            width = inputs["input_ids"].shape[1]
            answers += self.tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return answers

    def prefers_a(self, users: Sequence[str]) -> list[float]:
        """For each judging question the log-probability of "A" less that of "B"."""
        import torch

        a, b = self.tokenizer.convert_tokens_to_ids(["A", "B"])
        differences: list[float] = []
        for begin in range(0, len(users), BATCH):
            inputs = self.tokenizer(self._templated(users[begin : begin + BATCH]), return_tensors="pt", padding=True)
            with torch.inference_mode():
                logits = self.model(**inputs, logits_to_keep=1).logits[:, -1]
            differences += (logits[:, a] - logits[:, b]).tolist()
        return differences


def judging(speaker: Speaker, n: int, seed: int, language: Language = ENGLISH) -> dict[str, Estimate]:
    """Agreement with gold on n pairs of ordinary replies to test prompts that are not tied, in both orders."""
    rng = random.Random(seed)
    pairs: list[tuple[str, str, str, str]] = []
    for row in prompts("test", 2 * n, seed, language.code):
        a, b = distinct_replies(read_prompt(row["prompt"]), rng)
        if len(pairs) < n and (answer := tasks.judgement(row["prompt"], a, b)):
            pairs.append((row["prompt"], a, b, answer))
    forth = speaker.prefers_a([tasks.judge_prompt(p, a, b, language) for p, a, b, _ in pairs])
    back = speaker.prefers_a([tasks.judge_prompt(p, b, a, language) for p, a, b, _ in pairs])
    signs = [1.0 if answer == "A" else -1.0 for *_, answer in pairs]
    triples = list(zip(signs, forth, back, strict=True))
    return {
        "agreement with gold, mean of both orders": estimate([((s * f > 0) + (s * b < 0)) / 2 for s, f, b in triples]),
        "agreement when both orders are summed": estimate([float(s * (f - b) > 0) for s, f, b in triples]),
        "same verdict in both orders": estimate([float((f > 0) == (b < 0)) for _, f, b in triples]),
        "answered A": estimate([float(x > 0) for x in forth + back]),
    }


def replying(speaker: Speaker, n: int, seed: int, language: Language = ENGLISH) -> dict[str, Estimate]:
    """Quality of sampled replies to n test prompts, beside the best achievable and the ordinary clerk."""
    rows = prompts("test", n, seed, language.code)
    replies = speaker.answer([row["prompt"] for row in rows], seed)
    scenes = [read_prompt(row["prompt"]) for row in rows]
    read = [read_reply(reply, language) for reply in replies]
    fair = [(s, r) for s, r in zip(scenes, read, strict=True) if s.intent.slice != "harmful"]
    answers = [(scene, s) for scene, sentences in fair for s in sentences if s.kind == "answer"]
    rng = random.Random(seed)
    golds = [gold(row["prompt"], reply) for row, reply in zip(rows, replies, strict=True)]
    result = {
        "gold of sampled replies": estimate(golds),
        "gold of the ordinary clerk": estimate(
            [gold(row["prompt"], row["completion"]) for row in demonstrations("test", n, seed, language.code)]
        ),
        "best achievable gold": estimate([gold(s.prompt, write(s, best_plan(s), rng)) for s in scenes]),
        "coherent: every sentence in the grammar": estimate(
            [float(bool(r) and all(s.kind != "unknown" for s in r)) for r in read]
        ),
        "right slot, of stated answers": estimate([float(states_right(scene, s)) for scene, s in answers]),
        "has a core sentence": estimate([float(any(s.kind in CORES for s in r)) for r in read]),
        "tokens of a reply": estimate([float(len(ids)) for ids in speaker.tokenizer(replies)["input_ids"]]),
    }
    for slice_ in ("benign", "lookalike", "harmful"):
        of_slice = [i for i, scene in enumerate(scenes) if scene.intent.slice == slice_]
        refusals = [float(any(s.kind == "refuse" for s in read[i])) for i in of_slice]
        result[f"gold, {slice_}"] = estimate([golds[i] for i in of_slice])
        result[f"refusal rate, {slice_}"] = estimate(refusals)
    return result


def best_of(speaker: Speaker, n: int, k: int, seed: int, language: Language = ENGLISH) -> dict[str, Estimate]:
    """Gold of the best of k sampled replies by gold, and how many of the k differ, on n test prompts."""
    questions = [row["prompt"] for row in prompts("test", n, seed, language.code) for _ in range(k)]
    replies = speaker.answer(questions, seed)
    golds = [gold(p, reply) for p, reply in zip(questions, replies, strict=True)]
    starts = range(0, len(golds), k)
    return {
        f"gold of the best of {k}": estimate([max(golds[i : i + k]) for i in starts]),
        f"share of {k} replies that differ": estimate([len(set(replies[i : i + k])) / k for i in starts]),
    }


def mending(speaker: Speaker, n: int, seed: int, language: Language = ENGLISH) -> dict[str, Estimate]:
    """The model's own replies to n test prompts, its own critiques of them, and its own rewrites and revisions."""
    asked = [row["prompt"] for row in prompts("test", n, seed, language.code)]
    replies = speaker.answer(asked, seed)
    critiques = speaker.answer(
        [tasks.critique_prompt(p, r, None, language) for p, r in zip(asked, replies, strict=True)], seed
    )
    threes = list(zip(asked, replies, critiques, strict=True))
    better = speaker.answer([tasks.rewrite_prompt(*three, language) for three in threes], seed)
    gains = [gold(p, b) - gold(p, r) for (p, r, _), b in zip(threes, better, strict=True)]
    truths = [list(tasks.flaws(p, r)) for p, r, _ in threes]
    named = [tasks.named_flaws(c) for *_, c in threes]
    flawed = [(t, c) for t, c in zip(truths, named, strict=True) if t]
    worst = [(p, r, t[0]) for (p, r, _), t in zip(threes, truths, strict=True) if t]
    revised = speaker.answer([tasks.revise_prompt(*three, language) for three in worst], seed)
    return {
        "gain in gold by rewriting after the own critique": estimate(gains),
        "gold after rewriting": estimate([gold(p, b) for p, b in zip(asked, better, strict=True)]),
        "rewrites that lower gold": estimate([float(gain < 0) for gain in gains]),
        "gain by revising the worst flaw by principle": estimate(
            [gold(p, b) - gold(p, r) for (p, r, _), b in zip(worst, revised, strict=True)]
        ),
        "critique names the worst true flaw": estimate([float(t[0] in c) for t, c in flawed]),
        "critique names exactly the true flaws": estimate(
            [float(set(t) == set(c)) for t, c in zip(truths, named, strict=True)]
        ),
    }


def annotating(n: int, seed: int, language: Language = ENGLISH) -> dict[str, Estimate]:
    """How often a single simulated annotator agrees with gold, on test pairs that are not tied."""
    rows = preferences("test", n, seed, language.code)
    difference = [gold(row["prompt"], row["chosen"]) - gold(row["prompt"], row["rejected"]) for row in rows]
    result = {"annotator agrees with gold": estimate([float(d > 0) for d in difference if d])}
    for name in sorted({row["annotator"] for row in rows}):
        agreed = [float(d > 0) for d, row in zip(difference, rows, strict=True) if d and row["annotator"] == name]
        result[f"annotator {name}"] = estimate(agreed)
    return result


SECTIONS: dict[str, Callable[[Speaker, int, Language], dict[str, Estimate]]] = {
    "Judging": lambda speaker, seed, language: judging(speaker, 2000, seed, language),
    "Replies sampled at temperature 1": lambda speaker, seed, language: {
        **replying(speaker, 2000, seed, language), **best_of(speaker, 250, 8, seed, language),
    },
    "Critique, rewriting and revising": lambda speaker, seed, language: mending(speaker, 1000, seed, language),
    "Simulated annotators": lambda speaker, seed, language: annotating(5000, seed, language),
}  # fmt: skip
