"""Prompts of different lengths in one batch: whatever the padding, a reply's log-probabilities and values are those of
the reply alone, in models with absolute positions too."""

from __future__ import annotations

import json

import pytest
import torch
from accelerate.utils import send_to_device
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Trainer,
)
from trl import GRPOTrainer, RLOOTrainer

from prefzoo import get
from prefzoo.interface import Machinery
from prefzoo.lab import MODEL_DIR
from prefzoo.models.loading import device, load_tokenizer
from prefzoo.trainers.rollouts import prompts_and_replies

ONLINE = ("ppo", "a2c", "reinforce", "grpo", "rloo")


class Built(Exception):
    """Raised in the place of training; holds the trainer."""


@pytest.fixture(scope="module")
def family(tmp_path_factory):
    """Folders of models that were drawn, and not trained, with the lab's tokenizer. Positions matter to them as much
    as words do."""
    tokenizer = load_tokenizer(str(MODEL_DIR))
    common = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id,
        "initializer_range": 0.3,
    }
    llama = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
    made = {
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=256, **common)),
        "llama": lambda: LlamaForCausalLM(LlamaConfig(max_position_embeddings=256, **llama, **common)),
        "bloom": lambda: BloomForCausalLM(BloomConfig(hidden_size=32, n_layer=2, n_head=4, **common)),
    }
    folders = {}
    for name, make in made.items():
        torch.manual_seed(5)
        folders[name] = str(tmp_path_factory.mktemp(name))
        make().save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    return folders


@pytest.fixture
def build(make_bench, family, monkeypatch):
    """The trainer that an algorithm builds, as it is when training begins."""

    def make(name: str, model: str, adapter: str = "lora", dtype: str = "float32", **settings):
        def train(self, **more):
            raise Built(self)

        monkeypatch.setattr(Trainer, "train", train)
        bench = make_bench(adapter=adapter).replace(start=family[model], reward=lambda p, c: [len(t) for t in c])
        bench = bench.replace(machinery=Machinery(loading={"dtype": dtype}))
        with pytest.raises(Built) as caught:
            get(name, **settings).train(bench)
        return caught.value.args[0]

    return make


def padded() -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Three prompts and replies of different lengths in one batch, and each of them alone."""
    torch.manual_seed(1)
    rows = []
    for prompt, reply in ((9, 2), (4, 5), (1, 3)):
        ids, answer = torch.randint(5, 600, (1, prompt)), torch.randint(5, 600, (1, reply))
        rows.append({"prompt_ids": ids, "completion_ids": answer})
        rows[-1] |= {"prompt_mask": torch.ones_like(ids), "completion_mask": torch.ones_like(answer)}
    batch = {}
    for key in rows[0]:
        width = max(row[key].shape[1] for row in rows)
        side = [(width - row[key].shape[1], 0) for row in rows]
        sides = side if key.startswith("prompt") else [each[::-1] for each in side]
        batch[key] = torch.cat([torch.nn.functional.pad(row[key], s) for row, s in zip(rows, sides, strict=True)])
    return send_to_device((batch, rows), device())


@pytest.mark.parametrize("model", ["gpt2", "llama", "bloom"])
@pytest.mark.parametrize("name", ONLINE)
def test_log_probabilities_of_a_padded_batch_are_those_of_its_rows(name, model, build) -> None:
    trainer = build(name, model)
    batch, rows = padded()

    def found(batch) -> torch.Tensor:
        width = batch["completion_ids"].shape[1]
        with torch.no_grad():
            return trainer._get_per_token_logps_and_entropies(trainer.model, *prompts_and_replies(batch), width)[0]

    together = found(batch)
    for row, alone in enumerate(rows):
        count = alone["completion_ids"].shape[1]
        torch.testing.assert_close(together[row, :count], found(alone)[0], atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("model", "adapter", "value_model"),
    [("gpt2", "lora", "shared"), ("gpt2", "lora", "separate"), ("gpt2", "full", "shared"), ("llama", "lora", "shared")],
)
def test_values_of_a_padded_batch_are_those_of_its_rows(model, adapter, value_model, build) -> None:
    trainer = build("ppo", model, adapter, value_model=value_model)
    batch, rows = padded()
    with torch.no_grad(), trainer._critic_on():
        together = trainer.values(batch)
        for row, alone in enumerate(rows):
            count = alone["completion_ids"].shape[1]
            torch.testing.assert_close(together[row, :count], trainer.values(alone)[0], atol=1e-4, rtol=0)


def test_a_critic_that_is_trained_whole_is_kept_in_float32(build) -> None:
    """In bfloat16 most of its steps would be rounded away."""
    trainer = build("ppo", "llama", dtype="bfloat16", value_model="separate")
    trained = {n: w.dtype for n, w in trainer.model.named_parameters() if n.startswith("value_")}
    assert set(trained.values()) == {torch.float32} and len(trained) > 10
    assert trainer.model.dtype == torch.bfloat16
    with torch.no_grad(), trainer._critic_on():
        assert trainer.values(padded()[0]).isfinite().all()


@pytest.mark.parametrize(("name", "adapter"), [("ppo", "lora"), ("grpo", "lora"), ("rloo", "full"), ("ppo", "full")])
def test_what_is_learned_from_is_what_was_sampled(name, adapter, make_bench, family, monkeypatch) -> None:
    """Before the first step, policy and reference are the start: its log-probabilities of each reply, alone."""
    rollouts = []
    for trainer in (GRPOTrainer, RLOOTrainer):
        sample = trainer._generate_and_score_completions

        def keep(self, inputs, sample=sample):
            rollouts.append(sample(self, inputs))
            return rollouts[-1]

        monkeypatch.setattr(trainer, "_generate_and_score_completions", keep)
    bench = make_bench(adapter=adapter).replace(start=family["gpt2"], reward=lambda p, c: [len(t) for t in c])
    get(name, epochs=2, trainer={"max_steps": 1, "logging_steps": 1}).train(bench)
    batch = rollouts[0]
    assert (batch["prompt_mask"][:, 0] == 0).any(), "without padding this shows nothing"
    start = AutoModelForCausalLM.from_pretrained(family["gpt2"]).to(device())
    for row in range(8):
        prompt = batch["prompt_ids"][row][batch["prompt_mask"][row].bool()]
        reply = batch["completion_ids"][row][batch["completion_mask"][row].bool()]
        with torch.no_grad():
            logs = start(torch.cat([prompt, reply])[None]).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        logs = logs.gather(1, reply[:, None])[:, 0]
        if name == "rloo":  # keeps sums alone, and of the reference its divergence
            torch.testing.assert_close(batch["old_logps"][row], logs.sum(), atol=1e-3, rtol=0)
        else:
            for kind in ("old_per_token_logps", "ref_per_token_logps"):
                torch.testing.assert_close(batch[kind][row, : len(reply)], logs, atol=1e-4, rtol=0)
    first = json.loads((bench.out / "curves.json").read_text())[0][0]
    assert first["rollout/kl" if name == "ppo" else "kl"] == pytest.approx(0, abs=1e-4)
