"""The lab's model: the tokenizer's contract, what it can do, and how it is built."""

from __future__ import annotations

import statistics

import pytest

from lab_prompts import HARMFUL, PRICE
from prefzoo import lab
from prefzoo.lab import tasks


@pytest.fixture(scope="module")
def speaker():
    from tools.lab_model.measure import Speaker

    return Speaker.load(lab.MODEL_DIR)


def test_the_bundled_folder(speaker) -> None:
    assert sum(f.stat().st_size for f in lab.MODEL_DIR.iterdir()) < 5_000_000
    assert {"model.safetensors", "tokenizer.json", "chat_template.jinja", "MODEL_CARD.md"} <= {
        f.name for f in lab.MODEL_DIR.iterdir()
    }
    tokenizer, settings = speaker.tokenizer, speaker.model.generation_config
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    assert (settings.eos_token_id, settings.pad_token_id) == (tokenizer.eos_token_id, tokenizer.pad_token_id)
    assert (settings.do_sample, settings.temperature, settings.top_k, settings.top_p) == (True, 1.0, 0, 1.0)
    assert speaker.model.config.tie_word_embeddings
    assert 500_000 <= speaker.model.num_parameters() <= 850_000


def test_template_prefix_and_mask(speaker) -> None:
    tokenizer = speaker.tokenizer
    chat = [{"role": "system", "content": "You are a clerk."}, {"role": "user", "content": PRICE}]
    answer = "That is 32 euros."
    whole = [*chat, {"role": "assistant", "content": answer}]
    prompt_ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    out = tokenizer.apply_chat_template(whole, return_dict=True, return_assistant_tokens_mask=True)
    assert out["input_ids"][: len(prompt_ids)] == prompt_ids
    taught = [token for token, mask in zip(out["input_ids"], out["assistant_masks"], strict=True) if mask]
    assert taught == tokenizer(answer)["input_ids"] + [tokenizer.eos_token_id]
    text = tokenizer.apply_chat_template(whole, tokenize=False)
    assert tokenizer(text)["input_ids"] == out["input_ids"]  # nothing is added in front or behind: no double BOS
    with pytest.raises(Exception, match="tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@pytest.mark.parametrize("text", ["", " ", "  two  blanks ", "\u00fc\u00df\u00e9 \u4f60\u597d \U0001f600\t\r\n\x00",
                                  "A.B !? 12345 x9y", "don't , stop ."])  # fmt: skip
def test_any_text_round_trips(speaker, text: str) -> None:
    assert speaker.tokenizer.decode(speaker.tokenizer(text)["input_ids"]) == text


def test_tokens(speaker) -> None:
    tokenizer = speaker.tokenizer
    assert len(tokenizer("A")["input_ids"]) == len(tokenizer("B")["input_ids"]) == 1
    assert len(tokenizer("1234")["input_ids"]) == 4
    rows = lab.demonstrations("test", 500, seed=21)
    assert max(len(ids) for ids in tokenizer([r["completion"] for r in rows])["input_ids"]) < 40
    assert 25 <= statistics.fmean(len(ids) for ids in tokenizer([r["prompt"] for r in rows])["input_ids"]) <= 55


def test_training_renders_what_the_template_renders(speaker) -> None:
    from tools.lab_model.vocabulary import render_question

    for system in ("", "You are a clerk."):
        chat = [{"role": "system", "content": system}] if system else []
        chat.append({"role": "user", "content": PRICE})
        text = speaker.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        assert text == render_question(system, PRICE)


def test_padding_does_not_change_a_judgement(speaker) -> None:
    questions = [tasks.judge_prompt(PRICE, "That is 32 euros.", "That is 17 euros."),
                 tasks.judge_prompt(HARMFUL, "Happy to help! " * 4, "This is not allowed.")]  # fmt: skip
    alone = [speaker.prefers_a([question])[0] for question in questions]
    assert speaker.prefers_a(questions) == pytest.approx(alone, abs=1e-3)


def test_the_model_judges(speaker) -> None:
    from tools.lab_model.measure import judging

    result = judging(speaker, 600, seed=77)
    assert result["agreement with gold, mean of both orders"].mean >= 0.85
    assert 0.4 <= result["answered A"].mean <= 0.6


@pytest.mark.learning
def test_the_model_replies_and_mends(speaker) -> None:
    from tools.lab_model.measure import best_of, mending, replying

    mended = mending(speaker, 300, seed=78)
    assert mended["gain in gold by rewriting after the own critique"].mean >= 1.0
    replies = replying(speaker, 400, seed=79)
    assert replies["gold of sampled replies"].mean <= replies["best achievable gold"].mean - 1.0
    assert replies["coherent: every sentence in the grammar"].mean > 0.85
    assert best_of(speaker, 30, 8, seed=80)["share of 8 replies that differ"].mean > 0.7


def test_a_build_of_two_steps_writes_a_loadable_folder(tmp_path) -> None:
    from tools.lab_model import build
    from tools.lab_model.vocabulary import train_tokenizer
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = train_tokenizer(0)
    model = build.new_model(tokenizer, 0)
    seconds = build.pretrain(model, tokenizer, steps=2, seed=0)
    build.save(model, tokenizer, tmp_path, {"seed": 0, "steps": 2, "seconds": int(seconds)})
    again = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert again.num_parameters() == model.num_parameters()
    bundled = AutoTokenizer.from_pretrained(lab.MODEL_DIR)
    assert AutoTokenizer.from_pretrained(tmp_path).get_vocab() == bundled.get_vocab()
