"""A batch that is learned from in parts: which rows are in each, and that nothing but memory is another."""

from __future__ import annotations

import json

import pytest
import torch

from conftest import worded
from prefzoo import get
from prefzoo.settings import Generation
from prefzoo.trainers import on_policy
from prefzoo.trainers.batch_parts import join_metrics, parts_of

REPLIES = [3, 1, 2, 4]
"""Tokens of each reply; each prompt has two, so that rows are of 5, 3, 4, 6."""


def batch() -> dict:
    mask = (torch.arange(4) < torch.tensor(REPLIES)[:, None]).long()
    prompts = torch.ones(4, 2, dtype=torch.long)
    rows = torch.arange(4)
    return {
        "prompt_ids": prompts,
        "prompt_mask": prompts,
        "completion_ids": mask,
        "completion_mask": mask,
        "advantages": rows.float(),
        "num_items_in_batch": torch.tensor(10),
        "names": list("abcd"),
        "temperature": 0.7,
        "nothing": None,
    }


@pytest.mark.parametrize(
    ("tokens", "rows"),
    [
        (1, ["d", "a", "c", "b"]),  # a row that is longer than allowed is a part of its own
        (11, ["d", "ac", "b"]),  # 2 x 6 is too much, 2 x 5 is not, nor would 3 x 5 be allowed
        (12, ["da", "cb"]),
        (23, ["dac", "b"]),
    ],
)
def test_rows_of_like_length_are_together(tokens, rows) -> None:
    parts = parts_of(batch(), tokens)
    assert ["".join(part["names"]) for part in parts] == rows
    for part in parts:
        assert part["advantages"].tolist() == ["abcd".index(name) for name in part["names"]]
        assert part["completion_mask"].sum(1).tolist() == [REPLIES["abcd".index(name)] for name in part["names"]]
        assert part["num_items_in_batch"] == 10 and part["temperature"] == 0.7 and part["nothing"] is None


def test_a_batch_that_is_small_enough_stays_as_it_is() -> None:
    whole = batch()
    (found,) = parts_of(whole, 24)
    assert found is whole


def test_metrics_of_parts_are_those_of_the_whole_by_hand() -> None:
    metrics = {
        "entropy": [9.0, 1.0, 4.0],
        "clip_ratio/low_min": [0.5, 0.2],
        "clip_ratio/high_max": [0.5, 0.2],
        "once": [7.0, 8.0],
        "reward": [5.0],
    }
    join_metrics(metrics, {"entropy": 1, "once": 1, "reward": 1}, [1, 2])
    assert metrics == {
        "entropy": [9.0, (1 * 1 + 2 * 4) / 3],
        "clip_ratio/low_min": [0.2],
        "clip_ratio/high_max": [0.5],
        "once": [7.0, 8.0],
        "reward": [5.0],
    }


@pytest.mark.parametrize(
    ("name", "settings"), [("reinforce", {}), ("ppo", {"epochs": 2}), ("ppo", {"value_model": "frozen"})]
)
def test_training_in_parts_is_training_on_the_whole(name, settings, adapted, monkeypatch) -> None:
    def trained(tokens: int) -> tuple[torch.Tensor, list[dict[str, float]], int]:
        made = []

        def parts(rollout):
            made.append(parts_of(rollout, tokens))
            return made[-1]

        monkeypatch.setattr(on_policy, "parts_of", parts)
        bench = adapted("lora", accumulation=2).replace(generation=Generation(max_new_tokens=24), reward=worded)
        # Adam divides by a gradient's size: with its own epsilon a tiny one's rounding would be a step.
        more = {"logging_steps": 1, "adam_epsilon": 1e-4}
        model = get(name, **settings, trainer=more).train(bench).model
        weights = torch.cat([w.detach().flatten() for key, w in model.named_parameters() if "lora_B" in key])
        curve = json.loads((bench.out / "curves.json").read_text())[-1]
        clocks = ("runtime", "second", "time", "flos")
        log = [{k: v for k, v in entry.items() if not any(c in k for c in clocks)} for entry in curve]
        return weights, log, max(map(len, made))

    (whole, curve, one), (divided, other, many) = trained(10**9), trained(120)
    assert one == 1 and many >= 2
    torch.testing.assert_close(divided, whole, atol=1e-5, rtol=1e-4)
    assert whole.abs().max() > 1e-3, "they begin at 0"
    for first, second in zip(curve, other, strict=True):
        assert second == pytest.approx(first, rel=1e-3, abs=1e-4)
    assert any("clip_ratio/high_max" in entry and "entropy" in entry for entry in curve)
