"""Sampling without computing finished rows: the distribution, and the replies, of transformers' own loop."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, BloomConfig, GPT2Config, Qwen2Config

from prefzoo.lab import MODEL_DIR
from prefzoo.models import decoding, shared_beginnings
from prefzoo.models.decoding import fast_generate
from prefzoo.models.loading import device, load_model
from prefzoo.models.merged_layers import merged_layers, most_bytes
from prefzoo.models.score_head import backbone

TINY = {
    "gpt2": GPT2Config(vocab_size=64, n_positions=64, n_embd=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1),
    "bloom": BloomConfig(vocab_size=64, hidden_size=16, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=1),
    "qwen2-sliding": Qwen2Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        use_sliding_window=True,
        sliding_window=8,
        max_window_layers=1,
        eos_token_id=1,
        bos_token_id=1,
    ),
}
ENDS = [1, 2, 3, 4]


def made(name: str):
    torch.manual_seed(0)
    if name.startswith("lab"):
        model = load_model(str(MODEL_DIR))
        more = {"use_dora": True} if name == "lab-dora" else {}
        return get_peft_model(model, LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", **more))
    return AutoModelForCausalLM.from_config(TINY[name]).to(device())


@pytest.fixture(params=["lab", "lab-dora", "gpt2", "bloom", "qwen2-sliding"])
def model(request):
    return made(request.param).eval()


def padded_prompts() -> dict[str, torch.Tensor]:
    """Three prompts of different lengths, padded on the left, each in two rows."""
    ids, mask = torch.randint(5, 60, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    for row, padding in enumerate((0, 3, 5)):
        ids[row, :padding], mask[row, :padding] = 0, 0
    return {"input_ids": ids.repeat_interleave(2, 0), "attention_mask": mask.repeat_interleave(2, 0)}


def replies(model, seed: int = 3, fast: bool = True, **more) -> list[list[int]]:
    inputs = {name: value.to(device()) for name, value in padded_prompts().items()}
    torch.manual_seed(seed)
    settings = {"max_new_tokens": 20, "do_sample": True, "top_k": 0, "pad_token_id": 0, "eos_token_id": ENDS, **more}
    with fast_generate(model, noise=True) if fast else nullcontext(), torch.no_grad():
        return model.generate(**inputs, **settings)[:, 7:].tolist()


def refuses(*args, **more):
    raise AssertionError("transformers' own loop was taken")


@pytest.mark.parametrize("how", [{"do_sample": False}, {}, {"temperature": 0.5}, {"top_p": 0.8}])
def test_replies_are_those_of_transformers_token_for_token(model, how, monkeypatch) -> None:
    torch.manual_seed(1)
    prompts = padded_prompts()
    monkeypatch.setitem(globals(), "padded_prompts", lambda: prompts)
    expected = replies(model, fast=False, **how)
    lengths = {sum(token != 0 for token in reply) for reply in expected}
    assert len(lengths) > 1 or how.get("do_sample") is False, "all end together: nothing is dropped"
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    monkeypatch.setattr(type(inner), "_sample", refuses)
    assert replies(model, **how) == expected


def test_what_is_particular_goes_to_transformers_own_loop(monkeypatch) -> None:
    torch.manual_seed(1)
    model, prompts = made("lab").eval(), padded_prompts()
    monkeypatch.setitem(globals(), "padded_prompts", lambda: prompts)
    how = {"repetition_penalty": 1.5}
    assert replies(model, **how) == replies(model, fast=False, **how) != replies(model)
    assert "generate" not in vars(model.get_base_model())


def test_no_draw_depends_on_which_rows_are_finished(monkeypatch) -> None:
    torch.manual_seed(1)
    model = made("lab").eval()
    inputs = {name: value.to(device()) for name, value in padded_prompts().items()}
    found = []
    for share in (1e-9, 2.0):  # at once, never
        monkeypatch.setattr(decoding, "FINISHED_SHARE", share)
        torch.manual_seed(5)
        with fast_generate(model):
            found.append(model.generate(**inputs, max_new_tokens=20, do_sample=True, top_k=0, eos_token_id=ENDS))
    assert torch.equal(*found)


@pytest.mark.parametrize("settings", [{"temperature": 0.7}, {"temperature": 1.0, "top_p": 0.9}, {"top_k": 5}])
def test_tokens_are_drawn_with_their_probabilities(settings) -> None:
    """First tokens of 2,000 replies, and second tokens after the most frequent first one, beside a plain pass."""
    count, model = 2000, made("lab").eval()
    prompt = torch.tensor([[7, 300, 12, 45, 9]], device=device())
    torch.manual_seed(0)
    how = {"max_new_tokens": 2, "do_sample": True, "top_k": 0, "pad_token_id": 0, "eos_token_id": [1023]}
    with fast_generate(model):
        drawn = model.generate(
            prompt.expand(count, -1), attention_mask=torch.ones_like(prompt).expand(count, -1), **{**how, **settings}
        )[:, 5:]
    first = int(drawn[:, 0].mode().values)
    for given, tokens in ((prompt, drawn[:, 0]), (torch.cat([prompt, prompt.new_tensor([[first]])], 1), None)):
        tokens = drawn[drawn[:, 0] == first, 1] if tokens is None else tokens
        with torch.no_grad():
            logits = model(given).logits[0, -1].double() / settings.get("temperature", 1.0)
        p, order = logits.softmax(-1).sort(descending=True)
        kept = p.cumsum(0) - p < settings.get("top_p", 1.0)
        kept &= torch.arange(len(p), device=p.device) < settings.get("top_k", len(p))
        p = torch.where(kept, p, 0) / p[kept].sum()
        seen = tokens.bincount(minlength=len(p))[order]
        assert seen[~kept].sum() == 0
        often = p * len(tokens) >= 5
        observed = torch.cat([seen[often], seen[~often].sum()[None]]).double()
        expected = torch.cat([p[often], p[~often].sum()[None]]) * len(tokens)
        some = expected > 1e-6
        assert some.sum() > 3 and len(tokens) > 100
        assert chisquare(observed[some].cpu(), expected[some].cpu()).pvalue > 1e-3


@pytest.mark.parametrize("noise", [False, True])
def test_it_tells_the_log_probabilities_that_tokens_were_drawn_with(model, noise) -> None:
    """Those of a plain pass over prompt and reply, and 0 after the reply's end."""
    inputs, drawn = {key: value.to(device()) for key, value in padded_prompts().items()}, []
    how = {"max_new_tokens": 12, "do_sample": True, "top_k": 0, "pad_token_id": 0, "eos_token_id": ENDS}
    torch.manual_seed(3)
    with fast_generate(model, noise=noise, drawn=drawn), torch.no_grad():
        whole = model.generate(**inputs, **how, temperature=0.7)
    ((replies, logs),) = drawn
    assert torch.equal(replies, whole[:, 7:]) and logs.shape == replies.shape
    for row in range(len(whole)):
        ends = torch.isin(replies[row], torch.tensor(ENDS, device=device())).nonzero()
        length = int(ends[0]) + 1 if len(ends) else replies.shape[1]
        ids = torch.cat([inputs["input_ids"][row][inputs["attention_mask"][row].bool()], replies[row, :length]])
        with torch.no_grad():
            plain = (model(ids[None]).logits[0, -length - 1 : -1].float() / 0.7).log_softmax(-1)
        expected = plain.gather(1, replies[row, :length, None])[:, 0]
        torch.testing.assert_close(logs[row, :length], expected, atol=1e-4, rtol=0)
        assert not logs[row, length:].any()


def test_it_tells_no_log_probabilities_of_another_distribution(model) -> None:
    inputs, drawn = {key: value.to(device()) for key, value in padded_prompts().items()}, []
    with fast_generate(model, drawn=drawn):
        for more in (
            {"do_sample": False},
            {"do_sample": True, "top_k": 0, "top_p": 0.9},
            {"do_sample": True, "top_k": 5},
        ):
            model.generate(**inputs, max_new_tokens=3, pad_token_id=0, eos_token_id=ENDS, **more)
    assert drawn == []


def test_a_token_of_no_probability_is_never_drawn() -> None:
    probabilities = torch.tensor([[0.0, 0.5, 0.0, 0.5]]).expand(4, 4)
    uniform = torch.tensor([0.0, 0.4999, 0.5, 1 - 2**-53], dtype=torch.float64)
    assert decoding._drawn(probabilities, uniform).tolist() == [1, 1, 3, 3]


def test_scores_that_are_no_numbers_are_an_error() -> None:
    model = made("gpt2").eval()
    with torch.no_grad():
        model.transformer.ln_f.weight.fill_(float("nan"))
    with pytest.raises(RuntimeError, match=decoding.NO_PROBABILITIES):
        replies(model)


@pytest.mark.parametrize("state", ["on", "off", "two"])
def test_merged_layers_compute_what_the_adapter_does_and_leave_no_trace(state) -> None:
    model = made("lab").eval()
    ids = torch.randint(5, 1000, (2, 9), device=device())
    if state == "two":
        model.add_adapter("other", LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "up_proj"]))
        model.base_model.set_adapter(["default", "other"])
    before = {name: (id(module), module.training) for name, module in model.named_modules()}
    weights = {name: weight.clone() for name, weight in model.named_parameters()}
    with torch.no_grad(), model.disable_adapter() if state == "off" else nullcontext():
        expected = model(ids).logits
        with merged_layers(model):
            assert not any("lora" in name for name, _ in model.named_modules())
            torch.testing.assert_close(model(ids).logits, expected, atol=2e-4, rtol=1e-5)
    assert {name: (id(module), module.training) for name, module in model.named_modules()} == before
    assert all(torch.equal(weight, weights[name]) for name, weight in model.named_parameters())


@pytest.mark.parametrize("kind", ["half", "dora", "large"])
def test_layers_that_would_not_be_the_same_are_not_merged(kind, monkeypatch) -> None:
    model = made("lab-dora" if kind == "dora" else "lab").eval()
    if kind == "half":
        model.to(torch.bfloat16)
    if kind == "large":
        monkeypatch.setattr("prefzoo.models.merged_layers.most_bytes", lambda device: 1000)
    with merged_layers(model):
        assert sum(name.endswith("lora_A.default") for name, _ in model.named_modules()) == 28


def test_on_a_gpu_a_quarter_of_what_is_free_may_be_merged(monkeypatch) -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda", 0)
    for free, most in ((40 * 2**30, 10 * 2**30), (2**30, 2**30)):
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device, free=free: (free, 80 * 2**30))
        assert (most_bytes(gpu), most_bytes(cpu)) == (most, 2**30)


@pytest.mark.skipif(device().type != "cpu", reason="rows are put together on a CPU alone")
def test_rows_that_begin_alike_have_their_own_states_and_gradients(monkeypatch) -> None:
    torch.manual_seed(2)
    model = made("lab")
    shared, other = torch.randint(5, 1000, (12,)).tolist(), torch.randint(5, 1000, (11,)).tolist()
    rows = [[*shared, 8, 9], [*other, 7], [*shared, 8, 10, 11], shared, [*other, 5, 6, 7, 8]]
    ids = torch.tensor([row + [0] * (16 - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (16 - len(row)) for row in rows])
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    upstream = torch.randn(5, 16, 128) * mask[..., None]
    sizes = []
    plain = shared_beginnings.put_together

    def noted(*inputs):
        sizes.append(plain(*inputs))
        return sizes[-1]

    def computed():
        hidden = backbone(model)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
        return hidden * mask[..., None], torch.autograd.grad((hidden * upstream).sum(), weights)

    expected, gradients = computed()
    monkeypatch.setattr(shared_beginnings, "put_together", noted)
    with shared_beginnings.shared_beginnings(model):
        found, mine = computed()
    assert sizes[0].ids.shape == (2, 17)  # 12 + 2 + 3 + 0, and 11 + 1 + 4
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    for own, theirs in zip(mine, gradients, strict=True):
        torch.testing.assert_close(own, theirs, atol=1e-3, rtol=1e-3)
    assert "forward" not in vars(backbone(model))


USUAL_SIZES = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64,
}  # fmt: skip
SIZES = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neo": {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
                "window_size": 4, "max_position_embeddings": 64},
    "llama4_text": USUAL_SIZES | {"attention_chunk_size": 6, "num_local_experts": 2, "intermediate_size_mlp": 64},
    "mistral": USUAL_SIZES | {"sliding_window": None},
    "opt": {"hidden_size": 32, "word_embed_proj_dim": 16, "ffn_dim": 64, "num_hidden_layers": 2,
            "num_attention_heads": 4, "max_position_embeddings": 64},
}  # fmt: skip


@pytest.mark.skipif(device().type != "cpu", reason="rows are put together on a CPU alone")
@pytest.mark.parametrize("kind", [*sorted(shared_beginnings.FULL_ATTENTION), "gpt_neo", "llama4_text"])
def test_every_kind_of_model_has_the_states_of_each_row_alone(kind, monkeypatch) -> None:
    """GPT-Neo and Llama 4 count neighbours within their layers, so that their rows are left alone."""
    torch.manual_seed(0)
    common = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, **common, **SIZES.get(kind, USUAL_SIZES))
    model = AutoModel.from_config(config).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 0.3)
    shared = torch.randint(3, 64, (14,)).tolist()
    rows = [[*shared, 5, 6, 7, 8], [*shared, 9, 10], [*shared[:9], 11, 12]]
    ids = torch.tensor([row + [0] * (18 - len(row)) for row in rows])
    mask = (ids > 0).long()
    together, plain = [], shared_beginnings.put_together
    monkeypatch.setattr(shared_beginnings, "put_together", lambda *rows: together.append(plain(*rows)) or together[-1])

    def states() -> torch.Tensor:
        return model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state * mask[..., None]

    with torch.no_grad():
        expected = states()
        with shared_beginnings.shared_beginnings(model):
            found = states()
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert bool(together) == (kind in shared_beginnings.FULL_ATTENTION)


def test_rows_are_put_together_only_where_that_is_sound_and_saves_something() -> None:
    together = shared_beginnings.put_together
    rows = torch.tensor([[5, 6, 7, 8, 9, 1], [5, 6, 7, 8, 9, 2]])
    everywhere = torch.ones_like(rows)
    assert together(rows, everywhere) is not None
    padded_left = everywhere.clone()
    padded_left[0, 0] = 0
    assert together(rows, padded_left) is None
    assert together(torch.arange(12).reshape(2, 6), everywhere) is None
    assert together(rows[:1], everywhere[:1]) is None
