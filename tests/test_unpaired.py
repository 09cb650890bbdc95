"""Single replies, each liked or not: as data, in KTO and BCO, and in a reward model."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

import prefzoo
from conftest import worded
from data_files import save
from prefzoo.data.formats import Row
from prefzoo.data.read_rows import read_rows
from prefzoo.data.rejects import Rejects
from prefzoo.data.row_views import views_of
from prefzoo.data.splits import sha256_of
from prefzoo.errors import DataError, RecipeError
from prefzoo.interface import Bench
from prefzoo.lab import MODEL_DIR
from prefzoo.recipe import check_recipe as recipes
from prefzoo.rewards.rating_losses import logistic
from prefzoo.rewards.reward_accuracy import reward_report
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.run.stages.data_stage import _check_kinds
from prefzoo.views import Views
from test_pairwise_losses import nls
from test_parity import OF_20_STEPS, assert_alike, raw_trl
from test_trainers import tuned_adapter

EVERY_STEP = {"logging_steps": 1}


def thumbs(*said: tuple[str, str, bool]) -> list[dict[str, Any]]:
    return [{"prompt": prompt, "completion": reply, "label": liked} for prompt, reply, liked in said]


def single(views: Views) -> list[tuple[str, str, bool]]:
    return [(r["prompt"][0]["content"], r["completion"][0]["content"], r["label"]) for r in views.unpaired]


def test_replies_without_one_of_the_other_label_are_data(tmp_path) -> None:
    """60 likes, none with a counterpart: 60 rows, of which none is a pair."""
    likes = thumbs(*[(f"q{i}", f"r{i}", True) for i in range(60)])
    found = read_rows("preferences", str(save(likes, tmp_path / "x.jsonl")))
    assert found.used == len(found.rows) == 60 and not found.dropped.counts()
    views = views_of(found.rows)
    assert views.preferences == [] and len(views.prompts) == 60 and views.ratings == []
    assert single(views) == [(f"q{i}", f"r{i}", True) for i in range(60)]
    assert [row["completion"][0]["content"] for row in views.chosen()] == [f"r{i}" for i in range(60)]
    turned = [Row(row.id, row.prompt, reply=row.reply, liked=False) for row in found.rows]
    assert sha256_of(turned) != sha256_of(found.rows) and views_of(turned).chosen() == []


def test_a_reply_of_several_pairs_counts_once_and_votes_as_often_as_they_are(tmp_path) -> None:
    said = [("q", "good", True), ("q", "fine", True), ("q", "bad", False), ("alone", "ok", False)]
    views = views_of(read_rows("preferences", str(save(thumbs(*said), tmp_path / "x.jsonl"))).rows)
    assert len(views.preferences) == 2
    assert single(views) == [said[0], said[2], said[1], said[3]]
    prompt = [{"role": "user", "content": "q"}]
    votes = [Row(f"vote {i}", prompt, chosen="a", rejected="b", vote=i or None) for i in (0, 2, 3)]
    assert single(views_of(votes)) == [("q", "a", True), ("q", "b", False)] * 3


def test_shuffled_labels_go_to_any_reply_and_stay_as_many() -> None:
    rows = [Row(f"{i}", [{"role": "user", "content": f"q{i}"}], reply=f"r{i}", liked=i < 20) for i in range(40)]
    views = views_of(rows)
    before, after = ([row["label"] for row in each.unpaired] for each in (views, views.with_shuffled_labels(0)))
    assert sum(before) == sum(after) == 20 and before != after
    sampled = views.with_sampled_pairs([([{"role": "user", "content": "q"}], "a", "b")])
    assert single(sampled) == [("q", "a", True), ("q", "b", False)], "no human labels beside a policy's own pairs"
    assert views.with_shuffled_labels(0) == views.with_shuffled_labels(0) != views.with_shuffled_labels(1)


@pytest.mark.parametrize(
    ("block", "lacks"),
    [
        ({"algorithms": {"dpo": {}}}, "pair of a better and a worse reply"),
        ({"algorithms": {"kto": {}}, "reward": {"type": "trained"}}, "pair of a better and a worse reply"),
        ({"algorithms": {"kto": {}, "bco": {}}, "reward": {"loss": "logistic"}}, None),
        ({"algorithms": {"sft": {}}, "reward": {"type": "random"}}, None),
    ],
)
def test_what_needs_pairs_says_what_learns_from_labels_before_a_model_is_loaded(tmp_path, block, lacks) -> None:
    rows = read_rows("preferences", str(save(thumbs(("q", "r", True)), tmp_path / "likes.jsonl"))).rows
    recipe = recipes.check({"data": {"preferences": "a/b"}, "start": "none", **block})
    if lacks is None:
        _check_kinds(recipe, rows, Rejects())
        return
    with pytest.raises(DataError, match=rf"not one {lacks}, .* kto, bco and `reward: {{loss: logistic}}` learn"):
        _check_kinds(recipe, rows, Rejects())


def labelled_bench(bench: Bench, good: int, bad: int) -> Bench:
    """A bench with single replies alone: of other prompts the liked ones and the others."""
    pairs = bench.data.preferences
    sides = [(pair, "chosen") for pair in pairs[:good]] + [(pair, "rejected") for pair in pairs[good : good + bad]]
    rows = [{"prompt": p["prompt"], "completion": p[side], "label": side == "chosen"} for p, side in sides]
    return bench.replace(data=Views([row["prompt"] for row in rows], [], [], labelled=rows))


SIDES = ((1, "chosen"), (-1, "rejected"))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def curve(bench: Bench) -> list[dict[str, Any]]:
    return [entry for entry in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in entry]


@pytest.mark.parametrize(
    ("settings", "good", "bad", "weights"),
    [
        ({}, 12, 4, (1.0, 3.0)),  # 12 likes weigh as much as 4 times 3
        ({}, 4, 12, (3.0, 1.0)),
        ({}, 16, 0, (1.0, 1.0)),
        ({"desirable_weight": 2}, 12, 4, (2.0, 1.0)),
        ({"undesirable_weight": 0.5}, 12, 4, (1.0, 0.5)),
    ],
)
def test_weights_make_up_for_imbalance_and_are_reported(settings, good, bad, weights, make_bench) -> None:
    from prefzoo.trainers.unpaired_trainer import single_replies

    bench = labelled_bench(make_bench(), good, bad)
    algorithm = prefzoo.get("kto", **settings)
    rows, used = single_replies(bench, (algorithm.desirable_weight, algorithm.undesirable_weight))
    assert tuple(used) == weights and len(rows) == good + bad
    assert bench.report["unpaired"] == {
        "liked": good,
        "not_liked": bad,
        "weight_of_liked": weights[0],
        "weight_of_not_liked": weights[1],
        "replies_a_step": 16,
    }
    again, _ = single_replies(bench, (None, None))
    other, _ = single_replies(bench.replace(seed=8), (None, None))
    assert again == rows != other and sorted(map(str, other)) == sorted(map(str, rows))


@pytest.mark.parametrize("adapter", ["lora", *(pytest.param(a, marks=pytest.mark.slow) for a in ("qlora", "full"))])
@pytest.mark.parametrize(("name", "first", "passes"), [("kto", 0.5, 3), ("bco", math.log(2), 1)])
def test_they_learn_from_likes_alone_or_with_others(name, first, passes, adapter, adapted) -> None:
    """At step 0 all log-ratios are 0, and 1 - sigmoid(0), -log sigmoid(0) times a mean weight of 1."""
    bench = labelled_bench(adapted(adapter), 12, 12)
    prefzoo.get(name, trainer=EVERY_STEP).train(bench)
    assert len(curve(bench)) == 2, "of 8 examples, which are 16 replies"
    assert curve(bench)[0]["loss"] == pytest.approx(first, abs=1e-4)
    assert curve(bench)[-1]["rewards/margins"] is not None and bench.report["model"]["differs"] == []
    assert bench.ledger.forward_tokens == passes * bench.ledger.trained_tokens > 0
    assert bench.ledger.prompts == 24
    assert [fact["training.batch_size"] for fact in bench.report["trainings"]] == [8], "as the recipe counts"
    if adapter == "lora":
        alone = labelled_bench(adapted(adapter, batch_size=4), 8, 0)
        policy = prefzoo.get(name, trainer={**EVERY_STEP, "max_steps": 1}).train(alone)
        assert math.isfinite(curve(alone)[0]["loss"]) and tuned_adapter(policy.model) > 0


def test_bco_is_the_formula_with_a_shift_over_all_replies_so_far(adapted, tmp_path) -> None:
    """Two batches, whose rewards are given: the logit of a reply is its reward less the shift."""
    from prefzoo.trainers.unpaired_trainer import bco_trainer

    trainer = object.__new__(bco_trainer(bench := adapted("lora")))
    gathered = type("Accelerator", (), {"gather": staticmethod(lambda tensor: tensor)})
    trainer.accelerator, trainer.model = gathered, type("Model", (), {"training": True})
    first = trainer._shift(torch.tensor([1.0, 2.0, -3.0]), torch.tensor([True, True, False]))
    assert first == pytest.approx((1.5 - 3.0) / 2)
    second = trainer._shift(torch.tensor([6.0, -1.0]), torch.tensor([True, False]))
    assert second == pytest.approx(((1 + 2 + 6) / 3 + (-3 - 1) / 2) / 2)
    assert bench.machinery.memory["bco_rewards"] == [[-4.0, 2.0], [9.0, 3.0]]
    trainer.model.training = False
    assert trainer._shift(torch.tensor([9.0]), torch.tensor([True])) == pytest.approx(second), "measuring adds nothing"


def test_bco_of_a_moved_policy_is_the_formula(adapted) -> None:
    """The second step's loss, from the log-ratios that the curves show, one liked reply and one other a step."""
    bench = labelled_bench(adapted("lora", batch_size=1, learning_rate=0.02), 1, 1)
    policy = prefzoo.get("bco", beta=0.5, desirable_weight=2, trainer={**EVERY_STEP, "num_train_epochs": 3}).train(
        bench
    )
    steps = curve(bench)
    good, bad = ([step[f"rewards/{side}"] for step in steps] for side in ("chosen", "rejected"))
    assert len(steps) == 3 and abs(good[2]) > 1e-3 and tuned_adapter(policy.model) > 0
    for k, step in enumerate(steps):
        shift = sum(good[: k + 1]) / (k + 1) / 2 + sum(bad[: k + 1]) / (k + 1) / 2
        assert step["shift"] == pytest.approx(shift, abs=1e-5)
        assert step["loss"] == pytest.approx((2 * nls(good[k] - shift) + nls(shift - bad[k])) / 2, abs=1e-4)


def test_kto_of_a_moved_policy_is_the_formula(adapted) -> None:
    """Every step's loss, from the log-ratios and the KL that the curves show."""
    bench = labelled_bench(adapted("lora", batch_size=1, learning_rate=0.02), 1, 1)
    prefzoo.get("kto", beta=0.5, desirable_weight=2, trainer={**EVERY_STEP, "num_train_epochs": 4}).train(bench)
    steps = curve(bench)
    assert len(steps) == 4 and abs(steps[3]["rewards/chosen"]) > 1e-3 and any(step["kl"] > 1e-3 for step in steps)
    for step in steps:
        good, bad = (sigmoid(side * (step[f"rewards/{name}"] - 0.5 * step["kl"])) for side, name in SIDES)
        assert step["loss"] == pytest.approx((2 * (1 - good) + (1 - bad)) / 2, abs=1e-4)


@pytest.mark.slow
def test_20_steps_of_kto_are_those_of_trls_own_trainer(make_bench, tmp_path) -> None:
    import random

    from transformers import AutoModelForCausalLM, set_seed

    bench = make_bench(epochs=10.0, batch_size=4)
    ours = prefzoo.get("kto", trainer=OF_20_STEPS).train(bench)
    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(str(MODEL_DIR), dtype=torch.float32)
    rows = bench.data.unpaired
    random.Random(7).shuffle(rows)
    raw = raw_trl("KTO", model, rows, str(tmp_path / "raw"), task_type="CAUSAL_LM")
    assert_alike(ours.model, bench, raw)


def test_settings_that_are_not_theirs_are_refused() -> None:
    for settings, says in (
        ({"trainer": {"beta": 0.2}}, "say `beta`"),
        ({"trainer": {"train_sampling_strategy": "random"}}, "neighbours stay together"),
        ({"desirable_weight": 0}, "desirable_weight: must be above 0"),
        ({"undesirable_weigth": 2}, "Did you mean 'undesirable_weight'"),
    ):
        with pytest.raises(RecipeError, match=says):
            prefzoo.get("kto", **settings)


def test_a_reward_model_learns_from_labels(make_bench) -> None:
    by_hand = (math.log(2) + math.log(1 + math.exp(2))) / 2  # a like at score 0, another at 2 that is none
    assert logistic(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0])).item() == pytest.approx(by_hand)
    bench = labelled_bench(make_bench(learning_rate=0.0), 12, 12)
    model = train_reward_model(bench, EVERY_STEP, "logistic")
    rows = bench.data.unpaired
    scores = model([row["prompt"] for row in rows], [row["completion"][0]["content"] for row in rows])
    expected = [nls(score if row["label"] else -score) for score, row in zip(scores, rows, strict=True)]
    logged = [entry["loss"] for entry in curve(bench)]
    assert len(logged) == 2, "16 replies a step, and the 8 that are left"
    assert (2 * logged[0] + logged[1]) / 3 == pytest.approx(sum(expected) / 24, abs=1e-4)
    assert tuned_adapter(train_reward_model(labelled_bench(make_bench(name="other"), 12, 12), {}, "logistic").model) > 0


def test_a_reward_is_measured_on_labelled_replies() -> None:
    prompt = [{"role": "user", "content": "q"}]
    said = [("eeee", True), ("ee", False), ("e", True), ("", False)]
    rows = [Row(f"{i}", prompt, reply=f"{text}.", liked=liked) for i, (text, liked) in enumerate(said)]
    report = reward_report(worded, rows, None)
    assert report["label_auc"] == 3 / 4 and report["labelled_replies"] == 4, "of 2 x 2 pairs, 'e' is behind 'ee'"
    assert "label_auc" not in reward_report(worded, rows[::2], None)
