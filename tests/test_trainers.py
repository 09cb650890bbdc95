"""Our wrappers against values worked out by hand and against raw TRL; the traps of PITFALLS, one test each."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest
import torch

import prefzoo
from conftest import worded
from prefzoo.errors import PrefzooError
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device
from prefzoo.models.policy_with_modules import PolicyWithModules
from prefzoo.rewards.reward_model import RewardModel, pooled_scores
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.trainers.first_step import learn_from_first_step

EVERY_STEP = {"logging_steps": 1}


def curves(bench) -> list[dict]:
    return json.loads((bench.out / "curves.json").read_text())[-1]


def weights(policy: LanguageModelPolicy | PolicyWithModules) -> torch.Tensor:
    model = policy.policy.model if isinstance(policy, PolicyWithModules) else policy.model
    return torch.cat([w.flatten() for name, w in model.named_parameters() if "lora_" in name])


@pytest.mark.parametrize("adapter", ["lora", "full"])
@pytest.mark.parametrize(
    ("loss", "by_hand"),
    [
        # At step 0 every log-ratio is 0, so that
        ("sigmoid", math.log(2)),  # -log sigmoid(0)
        ("hinge", 1.0),  # max(0, 1 - 0)
        ("ipo", 25.0),  # (0 - 1 / (2 beta))^2 with beta 0.1
        ("sppo_hard", 50.0),  # (0 - 0.5 / beta)^2 + (0 + 0.5 / beta)^2
        ("apo_zero", 1.0),  # (1 - sigmoid(0)) + sigmoid(0)
    ],
)
def test_dpo_losses_at_step_0_are_those_worked_out_by_hand(make_bench, adapter, loss, by_hand) -> None:
    bench = make_bench(adapter)
    prefzoo.get("dpo", beta=0.1, loss_type=loss, trainer=EVERY_STEP).train(bench)
    assert curves(bench)[0]["loss"] == pytest.approx(by_hand, rel=1e-4)


def test_dpo_loss_of_a_moved_policy_is_the_formula(make_bench) -> None:
    """After some steps, recompute one pair's loss from our own log-probabilities and compare with TRL's."""
    from trl import DPOConfig, DPOTrainer

    from prefzoo.trainers.trainer_arguments import arguments

    bench = make_bench(epochs=2, learning_rate=5e-3)
    policy = prefzoo.get("dpo", beta=0.3).train(bench)
    start = LanguageModelPolicy.from_start(bench.start)
    pair = bench.data.preferences[0]

    def log_ratio(reply: str) -> float:
        whole = start.tokenizer.apply_chat_template([*pair["prompt"], *pair[reply]], return_dict=False)
        ids = whole[len(start.render(pair["prompt"])) :]
        completion = [prefzoo.Completion("", tuple(ids), True)]
        return sum(policy.log_probabilities([pair["prompt"]], completion)[0]) - sum(
            start.log_probabilities([pair["prompt"]], completion)[0]
        )

    by_hand = -math.log(1 / (1 + math.exp(-0.3 * (log_ratio("chosen") - log_ratio("rejected")))))
    from datasets import Dataset

    # The learned adapter becomes the model; with precomputed reference terms TRL takes the adapter-off model.
    model = policy.merged().model.requires_grad_(True)
    trainer = DPOTrainer(
        model=model,
        ref_model=start.model,
        args=arguments(bench, DPOConfig, {"beta": 0.3, "per_device_train_batch_size": 1, "learning_rate": 0.0}),
        train_dataset=Dataset.from_list([pair]),
        processing_class=start.tokenizer,
    )
    trainer.train()
    logged = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry] or [
        trainer.state.log_history[-1]["train_loss"]
    ]
    assert abs(by_hand - math.log(2)) > 0.02
    assert logged[0] == pytest.approx(by_hand, abs=2e-3)


def test_the_same_seed_trains_the_same_weights_and_another_does_not(make_bench) -> None:
    first = weights(prefzoo.get("dpo").train(make_bench(name="a")))
    again = weights(prefzoo.get("dpo").train(make_bench(name="b")))
    other = weights(prefzoo.get("dpo").train(make_bench(name="c").replace(seed=8)))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", ["dpo", "sft", "ilql"])
def test_one_step_of_8_is_two_accumulated_steps_of_4(make_bench, name) -> None:
    """By plain steps along the gradient: AdamW makes whole steps of gradients that are nothing but rounding."""
    learner = prefzoo.get(name, trainer={"optim": "sgd"})
    whole, halves, start = (
        weights(learner.train(make_bench(name=bench, learning_rate=rate, accumulation=passes)))
        for bench, rate, passes in (("whole", 0.1, 1), ("halves", 0.1, 2), ("start", 0.0, 1))
    )
    moved = (whole - start).abs().max()
    assert moved > 1e-4 and (whole - halves).abs().max() < 1e-4 * moved


@pytest.mark.parametrize("name", ["dpo", "sft", "ilql"])
def test_learning_rate_0_changes_nothing(make_bench, name) -> None:
    bench = make_bench(learning_rate=0.0)
    policy = prefzoo.get(name).train(bench)
    replies = [each[0] for each in policy.sample(bench.data.prompts, bench.generation, seed=0)]
    assert policy.kl_to_start(bench.data.prompts, replies) == pytest.approx([0.0] * len(replies), abs=1e-6)


def test_sft_trains_on_the_reply_and_its_end_and_not_on_the_prompt(make_bench, monkeypatch) -> None:
    from trl import SFTTrainer

    seen = {}
    original = SFTTrainer.train

    def train(self, *arguments, **more):
        seen["batch"] = next(iter(self.get_train_dataloader()))
        return original(self, *arguments, **more)

    monkeypatch.setattr(SFTTrainer, "train", train)
    bench = make_bench()
    tokenizer = prefzoo.get("sft").train(bench).tokenizer
    texts = {row["completion"][0]["content"] + tokenizer.eos_token for row in bench.data.chosen()}
    for labels in seen["batch"]["labels"]:
        trained = tokenizer.decode(labels[labels != -100])
        assert trained.rstrip("\n") in texts


def test_a_loss_that_is_not_a_number_fails_the_trial(make_bench) -> None:
    with pytest.raises(PrefzooError, match="diverged"):
        prefzoo.get("sft", trainer={"learning_rate": 1e30, "max_grad_norm": 1e30}).train(make_bench(epochs=4))


def test_a_trainer_of_less_steps_than_a_log_is_watched_too(make_bench) -> None:
    with pytest.raises(PrefzooError, match="diverged"):
        prefzoo.get("sft", trainer={"learning_rate": 1e30, "max_grad_norm": 1e30, "max_steps": 4}).train(
            make_bench(epochs=4)
        )


def test_dropout_is_alike_in_all_trainers(make_bench) -> None:
    from trl import DPOConfig, RewardConfig

    from prefzoo.trainers.trainer_arguments import arguments

    for config in (DPOConfig, RewardConfig):
        assert arguments(make_bench(), config, {}).disable_dropout is False


def test_every_loss_of_trl_trains(adapted) -> None:
    from typing import get_args

    from prefzoo.zoo.dpo import Loss

    for loss in get_args(Loss):
        settings = {"label_smoothing": 0.001} if loss == "exo_pair" else {}
        bench = adapted("lora", name=loss)
        prefzoo.get("dpo", loss_type=loss, trainer={"max_steps": 1}, **settings).train(bench)
        assert math.isfinite(curves(bench)[-1]["train_loss"])
    both = adapted("lora", name="both")
    prefzoo.get("dpo", loss_type=["sigmoid", "sft"], trainer={"loss_weights": [1.0, 0.5], **EVERY_STEP}).train(both)
    assert curves(both)[0]["loss"] > math.log(2)


class Longest:
    def __call__(self, prompts, completions):
        return [float(len(text)) for text in completions]


@pytest.mark.parametrize("keep", ["best", "top_k", "threshold", "random"])
def test_rejection_sampling_keeps_what_it_says(make_bench, keep) -> None:
    bench = make_bench().replace(reward=Longest())
    algorithm = prefzoo.get("rejection_sampling", n=4, k=2, keep=keep, threshold=40.0)
    start = LanguageModelPolicy.from_start(bench.start)
    prompts = bench.data.prompts
    kept_prompts, kept = algorithm.select(bench, start, prompts, 0)
    drawn = {repr(p): each for p, each in zip(prompts, start.sample(prompts, bench.generation, 7000, n=4), strict=True)}
    assert bench.ledger.reward_calls == 4 * len(prompts)
    by_prompt: dict[str, list[str]] = {}
    for prompt, reply in zip(kept_prompts, kept, strict=True):
        by_prompt.setdefault(repr(prompt), []).append(reply.text)
    for prompt, texts in by_prompt.items():
        lengths = sorted((len(c.text) for c in drawn[prompt] if c.finished), reverse=True)
        if keep == "best":
            assert [len(t) for t in texts] == lengths[:1]
        elif keep == "top_k":
            assert [len(t) for t in texts] == lengths[:2]
        elif keep == "threshold":
            assert sorted(map(len, texts), reverse=True) == [n for n in lengths if n >= 40]
        else:
            assert len(texts) == 1 and len(texts[0]) in lengths
    said = bench.report["rejection_sampling"][0]
    assert said["sampled"] == 4 * len(prompts) and said["kept"] == len(kept)
    assert said["prompts_kept"] == len(by_prompt)


def test_iterations_go_on_from_the_latest_policy_and_share_the_prompts(make_bench) -> None:
    bench = make_bench().replace(reward=Longest())
    policy = prefzoo.get("rejection_sampling", n=2, iterations=2, trainer=EVERY_STEP).train(bench)
    rounds = bench.report["rejection_sampling"]
    assert sum(r["prompts"] for r in rounds) == len(bench.data.prompts)
    assert len(json.loads((bench.out / "curves.json").read_text())) == 2
    replies = [each[0] for each in policy.sample(bench.data.prompts, bench.generation, seed=0)]
    assert sum(policy.kl_to_start(bench.data.prompts, replies)) > 0
    with pytest.raises(PrefzooError, match="none of"):
        prefzoo.get("rejection_sampling", n=2, keep="threshold", threshold=1e9).train(bench)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_reward_model_scores_alike_after_loading_and_in_any_batch(make_bench, adapter) -> None:
    bench = make_bench(adapter, learning_rate=5e-3)
    model = train_reward_model(bench, {})
    pairs = bench.data.preferences
    prompts, texts = [p["prompt"] for p in pairs], [p["chosen"][0]["content"] for p in pairs]
    together = model(prompts, texts)
    assert max(together) - min(together) > 1e-3
    assert RewardModel.load(str(model.folder))(prompts, texts) == pytest.approx(together, abs=1e-6)
    assert [model([p], [t])[0] for p, t in zip(prompts, texts, strict=True)] == pytest.approx(together, abs=1e-5)


def test_pooling_finds_the_end_even_where_the_pad_token_is_the_end_token(make_bench) -> None:
    model = train_reward_model(make_bench("full", learning_rate=5e-3), {})
    ids = torch.tensor(
        [
            model.tokenizer.apply_chat_template(
                [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}], return_dict=False
            )
        ],
        device=device(),
    )
    eos = model.tokenizer.eos_token_id
    padded = torch.cat([ids, torch.full((1, 5), eos, device=device())], 1)
    mask = torch.cat([torch.ones_like(ids), ids.new_zeros(1, 5)], 1)
    with torch.no_grad():
        alone = pooled_scores(model.model, ids, torch.ones_like(ids))
        assert torch.allclose(pooled_scores(model.model, padded, mask), alone, atol=1e-6)
        # and it is the model's own number where that is right
        assert torch.allclose(model.model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits[:, 0], alone)


def test_the_first_reward_loss_is_that_of_the_formula(make_bench) -> None:
    """Bradley-Terry: the mean over the first batch of -log sigmoid(chosen - rejected), head as initialised."""
    bench = make_bench(learning_rate=0.0)
    model = train_reward_model(bench, EVERY_STEP)
    logged = [entry["loss"] for entry in curves(bench) if "loss" in entry]
    pairs = bench.data.preferences
    prompts = [p["prompt"] for p in pairs]
    good = torch.tensor(model(prompts, [p["chosen"][0]["content"] for p in pairs]))
    bad = torch.tensor(model(prompts, [p["rejected"][0]["content"] for p in pairs]))
    by_hand = -torch.nn.functional.logsigmoid(good - bad).mean().item()
    assert sum(logged) / len(logged) == pytest.approx(by_hand, abs=1e-4)


def tuned_adapter(model) -> float:
    """The sum of |B| of a LoRA adapter, which begins at 0."""
    return sum(float(w.detach().abs().sum()) for name, w in model.named_parameters() if "lora_B" in name)


def of_8_rows(bench):
    data = dataclasses.replace(
        bench.data, prompts=bench.data.prompts[:8], preferences=bench.data.preferences[:8], demonstrations=[]
    )
    return bench.replace(data=data, reward=worded)


@pytest.mark.parametrize("name", ["sft", "dpo", "grpo", "rloo", "reinforce", "a2c", "ppo"])
def test_a_training_of_one_step_trains(make_bench, name) -> None:
    """8 rows at batch 8; TRL's warm-up rounds a tenth of a step up to one, at rate 0."""
    settings = {"ppo": {"epochs": 1}, "sft": {"on": "chosen"}}.get(name, {})
    assert tuned_adapter(prefzoo.get(name, **settings).train(of_8_rows(make_bench())).model) > 0


@pytest.mark.parametrize("loss", ["bradley_terry", "regression"])
def test_a_reward_model_of_one_step_trains(make_bench, loss) -> None:
    bench = of_8_rows(make_bench())
    ratings = [
        {"prompt": pair["prompt"], "completion": pair["chosen"][0]["content"], "rating": float(i)}
        for i, pair in enumerate(bench.data.preferences)
    ]
    bench = bench.replace(data=dataclasses.replace(bench.data, ratings=ratings))
    assert tuned_adapter(train_reward_model(bench, {}, loss).model) > 0


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_no_round_loses_its_first_step(make_bench, adapter, monkeypatch) -> None:
    further = []

    def noted(trainer, goes_on):
        further.append(goes_on)
        learn_from_first_step(trainer, goes_on)

    monkeypatch.setattr("prefzoo.trainers.fitting.learn_from_first_step", noted)
    bench = make_bench(adapter).replace(reward=Longest())
    prefzoo.get("rejection_sampling", n=4, iterations=3, trainer=EVERY_STEP).train(bench)
    rounds = json.loads((bench.out / "curves.json").read_text())
    assert [entries[0]["learning_rate"] for entries in rounds] == [1e-3] * 3  # a round is one step
    assert further == [False, True, True]


@pytest.mark.parametrize(
    ("steps", "share", "goes_on", "max_steps", "rates"),
    [
        (1, 0.1, False, -1, [1]),
        (1, 0.1, False, 1, [1]),
        (3, 0.1, False, -1, [1, 2 / 3, 1 / 3]),
        (3, 0.1, False, 3, [0, 1, 1 / 2]),  # the recipe counts steps: TRL's schedule
        (3, 0.0, False, -1, [1, 2 / 3, 1 / 3]),
        (4, 0.5, False, -1, [0, 1 / 2, 1, 1 / 2]),  # TRL's
        (4, 0.5, True, -1, [1 / 2, 1, 2 / 3, 1 / 3]),
    ],
)
def test_the_rates_of_short_trainings(steps, share, goes_on, max_steps, rates) -> None:
    from transformers import Trainer, TrainingArguments

    args = TrainingArguments("unused", warmup_steps=share, learning_rate=1.0, max_steps=max_steps, use_cpu=True)

    def scheduled():
        trainer = Trainer(torch.nn.Linear(1, 1), args)
        learn_from_first_step(trainer, goes_on)
        trainer.create_optimizer_and_scheduler(steps)
        return trainer

    trainer, found = scheduled(), []
    for done in range(steps):
        found += trainer.lr_scheduler.get_last_lr()[:1]
        trainer.optimizer.step()
        trainer.lr_scheduler.step()
        if done == 0:  # as a checkpoint does
            state, trainer = trainer.lr_scheduler.state_dict(), scheduled()
            trainer.lr_scheduler.load_state_dict(state)
    assert found == pytest.approx(rates)
