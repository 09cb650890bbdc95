"""Steps of sampling that are recorded and replayed give the replies of steps that are launched one by one.

Without a GPU a recorder takes the place of a CUDA graph: it refuses what waits for the GPU, and does again what was
recorded, with all that Python computed frozen.
"""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tests.recorded_steps import replay_here
from tests.test_decoding import SIZES, USUAL_SIZES
from transformers import AutoConfig, AutoModelForCausalLM

from prefzoo import get, lab
from prefzoo.lab import MODEL_DIR
from prefzoo.models import replayed_steps, shared_beginnings
from prefzoo.models.decoding import fast_generate
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device, load_model
from prefzoo.settings import Adapter, Generation
from prefzoo.trainers.config_audit import noting_sampling

PROMPTS = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("train", 12, 5)]
GENERATION = Generation(max_new_tokens=24, batch_size=12)


@pytest.fixture
def recorded(monkeypatch):
    return replay_here(monkeypatch)


def of_kind(kind: str, attention: str = "sdpa"):
    torch.manual_seed(0)
    common = {"vocab_size": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(kind, **common, **SIZES.get(kind, USUAL_SIZES))
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention).eval()
    for weight in model.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 0.3)
    return model.to(device())


def sampled(model, do_sample: bool = True, padded: bool = True) -> list[list[int]]:
    """Replies to four prompts of different lengths, padded on the left, or of one length; two of them the same."""
    torch.manual_seed(1)
    ids, mask = torch.randint(3, 64, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    for row, padding in enumerate((0, 3, 5) if padded else ()):
        ids[row, :padding], mask[row, :padding] = 0, 0
    several = torch.tensor([0, 0, 1, 2])
    how = {"max_new_tokens": 20, "do_sample": do_sample, "top_k": 0, "pad_token_id": 0, "eos_token_id": [2, 5, 6]}
    with fast_generate(model), torch.no_grad():
        rows = {"input_ids": ids[several].to(device()), "attention_mask": mask[several].to(device())}
        return model.generate(**rows, **how)[:, 7:].tolist()


def adapted_policy(quantization: dict | None = None, **more) -> LanguageModelPolicy:
    start = LanguageModelPolicy.from_start(str(MODEL_DIR), quantization=quantization)
    torch.manual_seed(0)
    config = LoraConfig(r=4, init_lora_weights=False, target_modules="all-linear", **more)
    return LanguageModelPolicy(get_peft_model(start.model, config).eval(), start.tokenizer, start.start)


@pytest.mark.parametrize("kind", sorted(shared_beginnings.FULL_ATTENTION))
def test_every_kind_of_model_with_full_attention_replies_the_same(kind, recorded, monkeypatch) -> None:
    model = of_kind(kind, "eager" if kind == "llama" else "sdpa")
    ways = [(False, True), (True, True), (True, False)]
    with replayed_steps.noting_steps() as noted:
        found = [sampled(model, *way) for way in ways]
    assert len(recorded) == (0 if kind == "phi3" else 3), "Phi-3 prepares its inputs by itself"
    assert noted == (["replayed"] if recorded else [])
    monkeypatch.setattr(replayed_steps, "DEVICES", ())
    assert found == [sampled(model, *way) for way in ways]


WAYS = {"merged": {}, "dora": {"use_dora": True}, "qlora": {"quantization": Adapter(type="qlora").quantization}}


@pytest.mark.parametrize("more", WAYS.values(), ids=WAYS)
def test_the_lab_model_replies_the_same_and_as_its_weights_are_now(more, recorded, monkeypatch) -> None:
    policy = adapted_policy(**more)
    weights = [weight for name, weight in policy.model.named_parameters() if "lora_B" in name]
    found: dict[tuple[str, ...], list] = {(device().type,): [], (): []}
    for factor in (1.0, 0.5):
        with torch.no_grad():
            for weight in weights:
                weight *= factor
        for devices, replies in found.items():
            monkeypatch.setattr(replayed_steps, "DEVICES", devices)
            replies.append(policy.sample(PROMPTS, GENERATION, seed=3))
    (first, second), launched = found.values()
    assert [first, second] == launched and first != second
    assert len(recorded) == 2


def test_rows_that_have_ended_are_dropped_and_the_steps_recorded_anew(recorded, monkeypatch) -> None:
    policy = adapted_policy()
    expected = policy.sample(PROMPTS, GENERATION, seed=3)
    assert len(recorded) == 1
    monkeypatch.setattr(replayed_steps, "MANY_ROWS", 2)
    monkeypatch.setattr(replayed_steps, "FEW_OPEN", 0.8)
    assert policy.sample(PROMPTS, GENERATION, seed=3) == expected
    assert len(recorded) > 2 and len(recorded[-1].__self__.tokens) < len(PROMPTS)


FAILURES = {
    "recording": "operation not permitted when stream is capturing",
    "the first replay": "a replayed step gives other scores than a plain one",
    "within the first replay": "CUDA error: out of kernels",
    "memory": "CUDA out of memory",
}


@pytest.mark.parametrize("failure", FAILURES)
def test_where_steps_cannot_be_replayed_they_are_launched_and_a_trial_says_so(failure, monkeypatch, caplog) -> None:
    policy = adapted_policy()
    with monkeypatch.context() as plain:
        plain.setattr(replayed_steps, "DEVICES", ())
        expected = policy.sample(PROMPTS, GENERATION, seed=3)
    tried = replay_here(monkeypatch)
    correct = replayed_steps.record

    def broken(step):
        """As torch does, which says first of all that a recording has been ended."""
        if failure in ("recording", "memory"):
            tried.append(step)
            kind = torch.OutOfMemoryError if failure == "memory" else RuntimeError
            try:
                step()  # takes the step, on a CPU; on a GPU nothing is taken
                raise kind(FAILURES[failure] + "\nlonger")
            finally:
                raise RuntimeError("operation failed due to a previous error during capture")
        replay = correct(step)

        def other():
            scores = replay().flip(-1)
            if failure == "within the first replay":
                raise RuntimeError(FAILURES[failure])
            return scores

        return other

    monkeypatch.setattr(replayed_steps, "record", broken)
    report: dict = {}
    with noting_sampling(report):
        for _ in range(2):
            assert policy.sample(PROMPTS, GENERATION, seed=3) == expected
    assert len(tried) == (2 if failure == "memory" else 1), "but for want of memory it is not tried again"
    (facts,) = report["sampling"]
    assert facts["steps"] == f"launched one by one: {FAILURES[failure]}"
    assert "slower" in caplog.text


def test_a_trial_says_that_its_steps_were_replayed_where_they_could_be(recorded) -> None:
    report: dict = {}
    with noting_sampling(report):
        adapted_policy().sample(PROMPTS, GENERATION, seed=3)
    assert [facts["steps"] for facts in report["sampling"]] == ["replayed"]


def test_models_whose_attention_or_positions_cannot_be_given_are_not_recorded(recorded) -> None:
    sliding = of_kind("qwen2")
    sliding.config.sliding_window = 8
    for model in (sliding, of_kind("bloom", "eager")):
        with replayed_steps.noting_steps() as noted:
            sampled(model)
        said = ["launched one by one: its attention is not known to see all tokens"]
        assert noted == (said if model is sliding else []), "positions cannot be given to Bloom"
    assert not recorded


def test_under_autocast_a_recorded_step_keeps_no_casts_of_weights(recorded) -> None:
    """A kept cast would be of the weights of this rollout in the next one."""
    model = load_model(str(MODEL_DIR)).eval()
    during = []
    model.register_forward_pre_hook(lambda *_: during.append(torch.is_autocast_cache_enabled()))
    with torch.autocast(device().type, dtype=torch.bfloat16):
        sampled(model)
    assert False in during and during[0] is True and torch.is_autocast_cache_enabled()


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_training_on_replayed_rollouts_is_the_same_training(name, make_bench, recorded, monkeypatch) -> None:
    """Each rollout is of the weights of its step, which graphs of earlier ones do not hold."""
    found = []
    for devices in ((device().type,), ()):
        monkeypatch.setattr(replayed_steps, "DEVICES", devices)
        bench = make_bench(name=f"trial-{len(devices)}").replace(
            reward=lambda prompts, completions: [len(set(text)) / 10 for text in completions]
        )
        policy = get(name, trainer={"max_steps": 3, "learning_rate": 1e-2}).train(bench)
        found.append({key: weight for key, weight in policy.model.named_parameters() if "lora_" in key})
    assert len(recorded) >= (1 if name == "ppo" else 3)
    replayed, launched = found
    assert any((weight != 0).any() for key, weight in launched.items() if "lora_B" in key)
    for key, weight in launched.items():
        torch.testing.assert_close(replayed[key], weight, atol=1e-4, rtol=1e-3)
