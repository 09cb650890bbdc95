"""Models with recurrent layers: whatever is beside a sequence, it is answered and read as if it were alone."""

from __future__ import annotations

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, Trainer

from prefzoo import get
from prefzoo.errors import PrefzooError
from prefzoo.lab import MODEL_DIR
from prefzoo.models import batch_invariance
from prefzoo.models.adapters import adapter_config, check_modules
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import load_tokenizer
from prefzoo.models.next_token import next_token
from prefzoo.settings import Adapter, Generation

COMMON = {
    "vocab_size": 1024,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 512,
    "bos_token_id": None,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
BLOCK = {"mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_heads": 8, "mamba_n_groups": 1, "mamba_chunk_size": 8}
LINEAR = {
    "head_dim": 8,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"] * 2,
}
OWN = {
    "llama": {},
    "mistral": {"sliding_window": 16},
    "gemma3_text": {"sliding_window": 16, "head_dim": 8},
    "mamba": {"state_size": 8},
    "mamba2": {"head_dim": 8, "num_heads": 8, "state_size": 8, "n_groups": 1, "chunk_size": 8},
    "bamba": {**BLOCK, "attn_layer_indices": [1]},
    "jamba": {
        "mamba_d_state": 8,
        "mamba_dt_rank": 4,
        "attn_layer_period": 2,
        "attn_layer_offset": 1,
        "num_experts": 2,
        "num_experts_per_tok": 1,
        "use_mamba_kernels": False,
    },
    "falcon_h1": {**BLOCK, "mamba_d_ssm": 64, "head_dim": 8},
    "lfm2": {"layer_types": ["conv", "full_attention"] * 2},
    "qwen3_next": {**LINEAR, "num_experts": 2, "num_experts_per_tok": 1, "moe_intermediate_size": 16},
    "recurrent_gemma": {"lru_width": 32, "attention_window_size": 16, "head_dim": 8},
    "rwkv": {"context_length": 512, "attention_hidden_size": 32},
    "minimax": {
        "head_dim": 8,
        "block_size": 8,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
    },
}
ATTENTION = ("llama", "mistral", "gemma3_text")
UNPADDED = {"rwkv": "single", "minimax": "equal", "recurrent_gemma": "equal"}
"""Which prompts they may be given side by side; all others take padding."""


@pytest.fixture(scope="module")
def drawn():
    """Models that were drawn, and not trained, and whose states and positions matter as much as words."""

    def draw(kind: str):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **COMMON | OWN[kind])).float().eval()
        for name, weight in model.named_parameters():
            if weight.dim() > 1:
                torch.nn.init.normal_(weight, std=0.3 if "embed" in name else 0.15)
        return model

    return draw


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizer(str(MODEL_DIR))


def asked(*texts: str):
    return [[{"role": "user", "content": text}] for text in texts]


@pytest.mark.parametrize("kind", OWN)
def test_each_sequence_is_read_and_answered_as_if_alone(kind, drawn, tokenizer) -> None:
    model = drawn(kind)
    policy = LanguageModelPolicy(model, tokenizer, kind)
    assert policy.attention_only == (kind in ATTENTION)
    question = "Which of the two replies about the red lamp in the shop window is the better one, please: "
    prompts = asked(*(question + end for end in ("A", "B, I think", "A then B and so on")), "lamp?", "the red lamp")
    wanted = [5, 70, 300, 900]
    found = next_token(policy, prompts, wanted)
    with torch.inference_mode():
        alone = [model(input_ids=torch.tensor([policy.render(p)])).logits[0, -1].double().softmax(-1) for p in prompts]
    torch.testing.assert_close(found.probabilities, torch.stack(alone)[:, wanted], rtol=1e-4, atol=1e-9)
    assert (found.tokens < sum(len(policy.render(p)) for p in prompts)) == (kind in ATTENTION)  # beginnings are shared
    greedy = Generation(max_new_tokens=6, temperature=0, batch_size=4)
    together = [replies[0] for replies in policy.sample(prompts, greedy, seed=0)]
    with torch.inference_mode():
        for prompt, reply in zip(prompts, together, strict=True):
            ids = policy.render(prompt)
            logits = model(input_ids=torch.tensor([[*ids, *reply.token_ids]])).logits[0, len(ids) - 1 : -1]
            assert logits.argmax(-1).tolist() == list(reply.token_ids)
            own = logits.log_softmax(-1).gather(1, torch.tensor(reply.token_ids)[:, None])[:, 0]
            (scored,) = policy.log_probabilities([prompt], [reply])
            torch.testing.assert_close(torch.tensor(scored), own, atol=1e-4, rtol=0)


@pytest.mark.parametrize("kind", [kind for kind in OWN if kind not in ATTENTION])
def test_what_padding_changes_is_found_by_trying(kind, drawn) -> None:
    model = drawn(kind)
    assert batch_invariance.sampling_batches(model) == UNPADDED.get(kind, "padded")
    assert batch_invariance.sampling_batches(model.to(torch.bfloat16)) == UNPADDED.get(kind, "padded")


@pytest.mark.parametrize("kind", ["llama", "mamba"])
def test_trying_draws_nothing_and_leaves_the_model_as_it_was(kind, drawn) -> None:
    model = drawn(kind)
    config = adapter_config(Adapter(r=2, dropout=0.5), "CAUSAL_LM", model=model)
    adapted = get_peft_model(model, config).train()
    model.get_input_embeddings().eval()
    before, modes = torch.get_rng_state(), [module.training for module in adapted.modules()]
    batch_invariance.check_left_padding(adapted)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in adapted.modules()] == modes and len(set(modes)) == 2


def test_trainers_that_sample_refuse_a_model_that_padding_changes(drawn, make_bench, tmp_path, monkeypatch) -> None:
    drawn("minimax").save_pretrained(tmp_path / "start")
    AutoTokenizer.from_pretrained(MODEL_DIR).save_pretrained(tmp_path / "start")
    monkeypatch.setattr(Trainer, "train", lambda self, **more: pytest.fail("it was trained"))
    bench = make_bench().replace(start=str(tmp_path / "start"), reward=lambda prompts, texts: [0.0] * len(texts))
    with pytest.raises(PrefzooError, match=r"'minimax' cannot be trained on its own samples: its replies depend on"):
        get("grpo").train(bench)


@pytest.mark.parametrize("kind", ["mamba", "jamba", "falcon_h1"])
def test_all_linear_leaves_out_what_an_adapter_cannot_train(kind, drawn) -> None:
    """peft refuses out_proj; Jamba's dt_proj, too, is read past any adapter on it, which then has no gradient."""
    model = drawn(kind)
    adapted = get_peft_model(model, adapter_config(Adapter(r=2), "CAUSAL_LM", model=model))
    trained = [(name, weight) for name, weight in adapted.named_parameters() if weight.requires_grad]
    assert any("in_proj" in name for name, _ in trained)
    assert not any("out_proj" in name or "dt_proj" in name for name, _ in trained)
    for name, weight in trained:
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    ids = torch.arange(5, 25)[None]
    adapted(input_ids=ids, labels=ids).loss.backward()
    assert all(weight.grad is not None and weight.grad.any() for _, weight in trained)


def test_an_adapter_on_such_a_layer_by_name_is_refused(drawn) -> None:
    with pytest.raises(PrefzooError, match=r"adapter\.target_modules: 'out_proj' .* would not be trained"):
        check_modules(drawn("mamba"), Adapter(target_modules=["out_proj"]))
