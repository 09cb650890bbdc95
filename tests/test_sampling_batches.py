"""Replies do not depend on how many rows pass through the model at a time, which on a GPU is as many as fit."""

from __future__ import annotations

import pytest
import torch
from tests.test_replayed_steps import adapted_policy
from transformers import GenerationMixin

from prefzoo import lab
from prefzoo.models import sampling_batches
from prefzoo.models.sampling_batches import SampledModel
from prefzoo.settings import Generation

PROMPTS = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("train", 20, 5)]
GENERATION = Generation(max_new_tokens=20, batch_size=8)


@pytest.fixture
def policy():
    return adapted_policy()


@pytest.fixture
def sizes(monkeypatch) -> list[int]:
    """How many rows each call of `generate` is given; more than `sizes.most` do not fit."""

    class Sizes(list):
        most = 1000

    noted, plain = Sizes(), GenerationMixin.generate

    def generate(self, *args, **kwargs):
        noted.append(len(kwargs["input_ids"]))
        if noted[-1] > noted.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return plain(self, *args, **kwargs)

    monkeypatch.setattr(GenerationMixin, "generate", generate)
    monkeypatch.setattr(sampling_batches, "JOINING", ())
    return noted


def on_a_gpu(monkeypatch) -> None:
    monkeypatch.setattr(sampling_batches, "JOINING", ("cpu", "cuda"))


@pytest.mark.parametrize("temperature", [1.0, 0.0])
def test_batches_are_joined_on_a_gpu_and_the_replies_are_the_same(policy, sizes, temperature, monkeypatch) -> None:
    generation = GENERATION.model_copy(update={"temperature": temperature})
    expected = policy.sample(PROMPTS, generation, seed=3, n=2)
    assert sizes == [8] * 5
    on_a_gpu(monkeypatch)
    sizes.clear()
    told = []
    found = policy.sample(PROMPTS, generation, seed=3, n=2, progress=lambda *step: told.append(step))
    assert found == expected and sizes == [8, 32]
    assert told == [("sampling", 8, 40), ("sampling", 40, 40)]
    assert temperature == 0 or any(first != second for first, second in found)


@pytest.mark.parametrize(("most", "calls"), [(20, [8, 32, 16, 16]), (5, [8, 4, *[4] * 9])])
def test_what_does_not_fit_is_halved_and_the_replies_are_the_same(policy, sizes, most, calls, monkeypatch) -> None:
    expected = policy.sample(PROMPTS, GENERATION, seed=3, n=2)
    on_a_gpu(monkeypatch)
    sizes.clear()
    sizes.most = most
    assert policy.sample(PROMPTS, GENERATION, seed=3, n=2) == expected
    assert sizes == calls


def test_where_not_one_row_fits_memory_has_run_out(policy, sizes) -> None:
    sizes.most = 0
    with pytest.raises(torch.OutOfMemoryError):
        policy.sample(PROMPTS, GENERATION, seed=3)
    assert sizes == [8, 4, 2, 1]


def test_what_transformers_own_loop_draws_is_not_joined(policy, sizes, monkeypatch) -> None:
    policy.model.generation_config.repetition_penalty = 1.3
    expected = policy.sample(PROMPTS, GENERATION, seed=3)
    on_a_gpu(monkeypatch)
    assert policy.sample(PROMPTS, GENERATION, seed=3) == expected
    assert sizes == [8, 8, 4] * 2


@pytest.mark.parametrize(("batching", "calls"), [("equal", [1, 4, 1, 2]), ("single", [1] * 8), ("padded", [4, 4])])
def test_recurrent_models_get_prompts_of_one_length_side_by_side_or_one_at_a_time(batching, calls, sizes) -> None:
    policy = adapted_policy()
    model = SampledModel(policy.model, policy.tokenizer, policy.eos_ids, batching)
    prompts = [[5 + i] * length for i, length in enumerate([9, 6, 6, 6, 6, 6, 4, 4])]
    rows = [
        row for batch in model.replies(prompts, Generation(max_new_tokens=6, batch_size=4), seed=0) for row in batch
    ]
    assert sizes == calls and len(rows) == 8
