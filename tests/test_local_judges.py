"""Judges in this process: which tokens are read, padding and batches, grades by hand, the lab model's own words."""

from __future__ import annotations

import random
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from prefzoo import lab
from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import Response
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.local_judge import LocalChatClient, ProbabilityJudge, local_judge
from prefzoo.judges.prompt_templates import judge_templates
from prefzoo.judges.text_judge import TextJudge
from prefzoo.lab import MODEL_DIR, tasks
from prefzoo.ledger import Ledger
from prefzoo.models import next_token as next_tokens
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.next_token import next_token, spellings
from prefzoo.types import Completion

LOADING = {"dtype": "float32", "trust_remote_code": False, "quantization": None}
TEMPLATE = "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}{% if add_generation_prompt %}{{ 'assistant:' }}{% endif %}"  # noqa: E501
GENERATED = JudgeSettings(verdict="generated")


@pytest.fixture(scope="module")
def bundled() -> LanguageModelPolicy:
    return LanguageModelPolicy.from_start(str(MODEL_DIR))


@pytest.fixture(scope="module")
def pairs():
    rows = [row for row in lab.preferences("test", 80, 11)]
    kept = [
        ([{"role": "user", "content": row["prompt"]}], *((row["chosen"], row["rejected"])[:: 1 if i % 2 else -1]))
        for i, row in enumerate(rows)
        if lab.gold(row["prompt"], row["chosen"]) != lab.gold(row["prompt"], row["rejected"])
    ]
    prompts, first, second = zip(*kept, strict=True)
    return prompts, first, second, [lab.gold(p[0]["content"], a) > lab.gold(p[0]["content"], b) for p, a, b in kept]


def spelling_tokenizer(*merged: str) -> PreTrainedTokenizerFast:
    """Bytes, and these words as tokens; a space before a word is part of its token."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = [(word[0], word[1]) for word in (each.replace(" ", "\u0120") for each in merged)]
    vocabulary = {token: i for i, token in enumerate(["<eos>", "<pad>", *alphabet, *(a + b for a, b in merges)])}
    raw = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


class Cache:
    """What went through before, one row each."""

    def __init__(self, rows) -> None:
        self.rows = rows

    def reorder_cache(self, order) -> None:
        self.rows = self.rows[order]


class Scripted:
    """A policy whose next token has the probabilities that `script` gives by the text so far, {text: probability}.

    Attributes:
        passes: the shape of each batch of tokens that went through.
    """

    start, parameters, attention_only = "scripted", 7, True

    def __init__(self, tokenizer, script, reads: int = 100_000) -> None:
        self.tokenizer, self.script, self.passes = tokenizer, script, []
        self.model = self
        self.config, self.device = SimpleNamespace(max_position_embeddings=reads), torch.device("cpu")

    def __call__(self, input_ids, logits_to_keep, use_cache, attention_mask=None, past_key_values=None):
        self.passes.append(tuple(input_ids.shape))
        before = past_key_values.rows.shape[1] if past_key_values else 0
        rows = torch.cat([past_key_values.rows, input_ids], 1) if past_key_values else input_ids
        if attention_mask is None:
            return SimpleNamespace(past_key_values=Cache(rows))
        assert attention_mask.shape == rows.shape and attention_mask[:, :before].all()
        logits = torch.full((len(rows), len(logits_to_keep), self.tokenizer.vocab_size), -50.0)
        for row, (ids, mask) in enumerate(zip(rows, attention_mask, strict=True)):
            for place, end in enumerate(logits_to_keep.tolist()):
                if before + end != mask.sum() - 1:
                    continue  # somewhere in the middle, or in the padding
                for text, p in self.script(self.tokenizer.decode(ids[: before + end + 1])).items():
                    (token,) = self.tokenizer(text, add_special_tokens=False)["input_ids"]
                    logits[row, place, token] = torch.tensor(p).log()
        return SimpleNamespace(logits=logits)

    def render(self, prompt):
        return self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)

    def sample(self, prompts, generation, seed, ledger):
        assert generation.temperature == 0
        ledger.flops += 5.0 * len(prompts)
        said = [max(found, key=found.get) for found in (self.script(self.tokenizer.decode(self.render(p))) for p in prompts)]  # fmt: skip  # noqa: E501
        return [[Completion(text, (1,), True)] for text in said]


def by_gold(text: str) -> dict[str, float]:
    prompt, a, b = re.search(r"<\|user\|>(.*)\nA: (.*)\nB: (.*)\nBetter\?", text, re.DOTALL).groups()
    return {"A": 0.9, "B": 0.1} if lab.gold(prompt, a) > lab.gold(prompt, b) else {"A": 0.2, "B": 0.8}


WORDS = judge_templates(JudgeSettings(), lab=True)


def judges(policy: Scripted):
    return [ProbabilityJudge(policy, WORDS, "the judge"), TextJudge(LocalChatClient(policy), WORDS)]


@pytest.mark.parametrize("path", [0, 1])
def test_an_oracle_model_agrees_with_gold_in_both_orders(pairs, bundled, path) -> None:
    prompts, first, second, better = pairs
    judge = judges(Scripted(bundled.tokenizer, by_gold))[path]
    assert [p > 0.5 for p in judge(prompts, first, second)] == better
    assert [p < 0.5 for p in judge(prompts, second, first)] == better
    report = judge.report()
    assert report["failures"] == report["ties"] == report["inconsistent"] == 0
    assert report["first_preferred"] * 2 == report["questions"]
    expected = {0: {0.85, 0.15}, 1: {1.0, 0.0}}[path]
    assert {round(p, 6) for p in judge(prompts, first, second)} == expected


@pytest.mark.parametrize("path", [0, 1])
def test_a_model_that_always_says_a_gives_only_ties(pairs, bundled, path) -> None:
    prompts, first, second, _ = pairs
    judge = judges(Scripted(bundled.tokenizer, lambda text: {"A": 0.7, "B": 0.2, "?": 0.1}))[path]
    assert set(judge(prompts, first, second)) == {0.5}
    report = judge.report()
    assert report["first_preferred"] == report["questions"] and report["inconsistent"] == report["pairs"]
    if path == 0:
        assert report["verdict_probability"] == pytest.approx(0.9)


def test_every_spelling_of_a_letter_counts() -> None:
    """P(A) = 0.1 + 0.5 and P(B) = 0.1 + 0.1, whether a space comes first or not: 0.6 / 0.8."""
    tokenizer = spelling_tokenizer(" A", " B")
    assert len(spellings(tokenizer, ("A", "B"))) == 2
    script = {"A": 0.1, " A": 0.5, "B": 0.1, " B": 0.1, "x": 0.2}
    judge = ProbabilityJudge(Scripted(tokenizer, lambda text: script), judge_templates(JudgeSettings()), "the judge")
    assert judge.compare_once([[]], ["x"], ["y"], [None]) == [pytest.approx(0.75)]
    assert judge.report()["verdict_probability"] == pytest.approx(0.8)


def test_a_spelling_that_only_one_letter_has_counts_for_neither() -> None:
    assert len(spellings(spelling_tokenizer(" A"), ("A", "B"))) == 1


def test_a_vocabulary_without_verdicts_is_refused_and_told_what_does_without() -> None:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({"?": 0, "<eos>": 1}, unk_token="?"))
    )
    tokenizer.chat_template = TEMPLATE
    with pytest.raises(PrefzooError, match=r"no single tokens for the verdicts A and B; judge\.verdict: generated"):
        ProbabilityJudge(Scripted(tokenizer, lambda text: {}), judge_templates(JudgeSettings()), "the judge")


def test_grades_by_hand_where_ten_is_two_tokens() -> None:
    """P(1) = 0.5, after which 0 has 0.4: so 1 has 0.3 and 10 has 0.2; 7 has 0.25. (0.3 + 1.75 + 2) / 0.75 = 5.4."""

    def script(text: str) -> dict[str, float]:
        return {"0": 0.4, "5": 0.6} if text.endswith("assistant:1") else {"1": 0.5, "7": 0.25, "x": 0.25}

    judge = ProbabilityJudge(Scripted(spelling_tokenizer(), script), judge_templates(JudgeSettings()), "the judge")
    assert judge.grade([[]] * 2, ["x", "yy"]) == [pytest.approx(5.4)] * 2
    assert judge.report()["grades"] == judge.report()["questions"] == 2


def test_grades_by_hand_where_ten_is_one_token() -> None:
    """(0.5 x 1 + 0.25 x 10) / 0.75 = 4: after 1 nothing is asked for."""
    policy = Scripted(spelling_tokenizer("10"), lambda text: {"1": 0.5, "10": 0.25, "x": 0.25})
    judge = ProbabilityJudge(policy, judge_templates(JudgeSettings()), "the judge")
    assert judge.grade([[]], ["x"]) == [pytest.approx(4.0)] and sum(n for n, _ in policy.passes) == 3, "one pass"


def test_what_is_longer_than_the_model_reads_is_a_failure_of_its_own(pairs, bundled) -> None:
    prompts, first, _, _ = pairs
    long = first[0] * 100
    for judge in judges(Scripted(bundled.tokenizer, lambda text: {"A": 1.0, "B": 1e-6}, reads=200)):
        assert judge(prompts[:2], first[:2], [first[0], long]) == [0.5, 0.5]
        report = judge.report()
        assert report["failures"] == report["unanswered"] == 2
        assert (
            report["failure_examples"] == [{"failure": "the question is longer than the model reads", "answer": ""}] * 2
        )


def test_neither_padding_nor_batches_change_a_verdict(pairs, bundled) -> None:
    prompts, first, second, _ = pairs
    asked = [
        [{"role": "user", "content": tasks.judge_prompt(p[0]["content"], a * (1 + i % 3), b)}]
        for i, (p, a, b) in enumerate(zip(prompts, first, second, strict=True))
    ]
    a, b = bundled.tokenizer.convert_tokens_to_ids(["A", "B"])
    alone = next_token(bundled, asked, [a, b], batch_tokens=1)
    for size in (600, 4096, 1_000_000):
        together = next_token(bundled, asked, [a, b], batch_tokens=size)
        torch.testing.assert_close(together.probabilities, alone.probabilities, rtol=1e-4, atol=1e-6)
        assert together.tokens == alone.tokens
    order = random.Random(0).sample(range(len(asked)), len(asked))
    moved = next_token(bundled, [asked[i] for i in order], [a, b])
    torch.testing.assert_close(moved.probabilities, alone.probabilities[order], rtol=1e-4, atol=1e-6)
    tables = dict(bundled.token_log_probabilities(asked, [Completion("A", (a,), True)] * len(asked)))
    full = torch.stack([tables[i][0, [a, b]] for i in range(len(asked))])
    torch.testing.assert_close(alone.probabilities.log().float(), full, rtol=1e-4, atol=1e-4)


@pytest.fixture
def threads():
    """Sets how many threads torch has, until the test ends."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("small", [True, False])
def test_batches_of_a_small_model_go_through_side_by_side(bundled, threads, monkeypatch, small) -> None:
    """Three batches of one thread each, which wait for each other; one of a larger model has all threads."""
    asked = [[{"role": "user", "content": text}] for text in ("one", "and two", "at last, three") * 2]
    threads(1)
    alone = next_token(bundled, asked, [5, 6], batch_tokens=1)
    threads(3)
    original, seen, meeting = next_tokens._last_logits, [], threading.Barrier(3)

    def noted(*batch):
        seen.append((torch.get_num_threads(), threading.current_thread() is threading.main_thread()))
        if not small:
            return torch.zeros(2, len(bundled.tokenizer))
        meeting.wait(60)
        return original(*batch)

    monkeypatch.setattr(next_tokens, "_last_logits", noted)
    monkeypatch.setattr(LanguageModelPolicy, "parameters", next_tokens.SMALL - small)
    found = next_token(bundled, asked, [5, 6], batch_tokens=1)
    assert seen == [(1, False) if small else (3, True)] * 3
    if small:
        torch.testing.assert_close(found.probabilities, alone.probabilities, rtol=1e-5, atol=0)
    assert torch.get_num_threads() == 3
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(torch.get_num_threads).result() == 3, "threads to come have as many as before, too"


def test_a_large_vocabulary_makes_small_batches(monkeypatch) -> None:
    """Every row may have a length of its own, so a batch of n has logits at n places of n rows: n x n x V <= 2**26."""
    policy = Scripted(spelling_tokenizer(), lambda text: {"A": 0.5, "B": 0.5})
    monkeypatch.setattr(PreTrainedTokenizerFast, "__len__", lambda self: 2**20)
    next_token(policy, [[{"role": "user", "content": f"{n:02}"}] for n in range(20)], [1])
    assert [rows for rows, _ in policy.passes] == [4, 8, 4, 8, 2, 4]


def test_what_two_questions_begin_with_is_computed_once() -> None:
    """In bytes there are 6 before the text and 11 after it. Two begin alike for 6 + 14 = 20, a multiple of 4: so
    20 + 2 x 12 pass, where apart they were 2 x 32. The third, of 18, goes with itself: 16 + 2 x 2."""
    policy = Scripted(spelling_tokenizer(), lambda text: {"A": 0.9 if "xA" in text else 0.2, "B": 0.1})
    asked = [[{"role": "user", "content": text}] for text in ("same so far, xA", "Q", "same so far, xB")]
    assert [len(policy.render(each)) for each in asked] == [32, 18, 32]
    found = next_token(policy, asked, policy.tokenizer("AB")["input_ids"])
    shares = found.probabilities[:, 0] / found.probabilities.sum(1)
    assert [round(p, 3) for p in shares.tolist()] == [0.9, 0.667, 0.667]
    assert policy.passes == [(1, 20), (2, 12), (1, 16), (2, 2)] and found.tokens == 20 + 24 + 16 + 4


def test_nothing_to_judge(bundled) -> None:
    for judge in judges(bundled):
        assert judge([], [], []) == [] and judge.report()["pairs"] == 0


def test_operations_are_counted(pairs, bundled) -> None:
    prompts, first, second, _ = pairs
    judge, ledger = local_judge(str(MODEL_DIR), True, LOADING), Ledger()
    ledger.judged(judge, lambda: judge(prompts[:3], first[:3], second[:3]))
    asked = [
        [{"role": "user", "content": tasks.judge_prompt(p[0]["content"], *sides)}]
        for p, x, y in zip(prompts[:3], first, second, strict=False)
        for sides in ((x, y), (y, x))
    ]
    passed = next_token(bundled, asked, [0]).tokens
    assert 0.6 < passed / sum(len(bundled.render(each)) for each in asked) < 0.9, "less than all of it"
    assert ledger.judge_calls == 6 and ledger.flops == 2.0 * bundled.parameters * passed
    judge, worded = local_judge(str(MODEL_DIR), True, LOADING, GENERATED), Ledger()
    worded.judged(judge, lambda: judge(prompts[:3], first[:3], second[:3]))
    assert worded.judge_calls == 6 and worded.flops > ledger.flops


def test_the_lab_model_says_in_words_what_its_probabilities_say(pairs) -> None:
    prompts, first, second, better = pairs
    soft = local_judge(str(MODEL_DIR), True, LOADING)
    hard = local_judge(str(MODEL_DIR), True, LOADING, GENERATED)
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    said = hard(prompts, first, second)
    assert torch.equal(torch.rand(1), expected), "asking draws from no one else's random numbers"
    assert set(said) <= {0.0, 0.5, 1.0} and hard.report()["failures"] == 0
    sure = [(p > 0.5, q > 0.5) for p, q in zip(soft(prompts, first, second), said, strict=True) if q != 0.5]
    assert len(sure) > 0.8 * len(said) and all(p == q for p, q in sure)
    assert sum(q == truly for (_, q), truly in zip(sure, [b for b, q in zip(better, said, strict=True) if q != 0.5], strict=True)) > 0.85 * len(sure)  # fmt: skip  # noqa: E501
    assert soft.report()["verdict_probability"] > 0.95
    assert soft.report()["wording"] == {"comparing": str(WORDS.comparing)}


def test_the_lab_model_does_not_grade() -> None:
    for settings in (JudgeSettings(), GENERATED):
        with pytest.raises(PrefzooError, match=r"the judge 'lab' compares replies, but does not grade .* judge\.path"):
            local_judge(str(MODEL_DIR), True, LOADING, settings).grade([[]], ["x"])


def test_another_model_is_asked_to_think_aloud_in_other_words(monkeypatch) -> None:
    asked = []

    def answer(self, conversations, max_new_tokens):
        asked.extend((each[-1]["content"], max_new_tokens) for each in conversations)
        return [Response("Hm.\n[[B]]" if "Reply A: x" in each[-1]["content"] else "[[A]]") for each in conversations]

    monkeypatch.setattr(LocalChatClient, "__call__", answer)
    settings = JudgeSettings(verdict="generated", reasoning=True, max_new_tokens=64)
    judge = local_judge(str(MODEL_DIR), False, LOADING, settings)
    assert judge([[]], ["x"], ["y"]) == [0.0] and judge.report()["wording"]["comparing"].startswith(
        "pairwise-reasoning"
    )
    assert all("[[C]] if neither" in text and length == 64 for text, length in asked) and len(asked) == 2
