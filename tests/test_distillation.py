"""Distillation: the divergence and the reward's term by hand, TRL's numbers, teachers; best-of-n's distribution."""

from __future__ import annotations

import dataclasses
import json
from math import log
from typing import Any

import numpy as np
import pytest
import torch

import prefzoo
from conftest import worded
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.rewards.load_reward import RandomReward
from prefzoo.rewards.log_quantile_reward import LogQuantileReward
from prefzoo.settings import Shaping
from prefzoo.trainers import distillation
from prefzoo.types import Completion
from test_parity import OF_20_STEPS, learned, losses, raw_trl

TAUGHT = {"teacher": "rejection_sampling", "teacher_settings": {"n": 2, "trainer": {"learning_rate": 5e-3}}}
USER = [{"role": "user", "content": "?"}]


def test_the_reward_of_best_of_n_distillation_by_hand() -> None:
    scores = {"a": [3.0, 1.0, 2.0, 2.0]}
    reward = LogQuantileReward(lambda prompts, texts: [float(text) for text in texts], {"user:?": scores["a"]})
    found = reward([USER] * 5, ["0", "1", "2", "2.5", "9"])
    # of 4 replies are lower, ties by half: 0, 0.5, 2, 3, 4; half a reply more at either end
    assert found == pytest.approx([log(0.5 / 5), log(1 / 5), log(2.5 / 5), log(3.5 / 5), log(4.5 / 5)])


def test_the_policy_that_its_reward_and_kl_are_best_for_is_best_of_n() -> None:
    """50 replies, as likely to the start: p exp((n - 1) log F) against the exact distribution of best-of-n."""
    count, n = 50, 8
    ends = np.arange(count + 1) / count
    exact = ends[1:] ** n - ends[:-1] ** n
    drawn = np.repeat(np.arange(float(count)), 100).tolist()
    reward = LogQuantileReward(lambda prompts, texts: [float(text) for text in texts], {"user:?": drawn})
    optimum = np.exp((n - 1) * np.array(reward([USER] * count, [str(i) for i in range(count)])))
    assert optimum / optimum.sum() == pytest.approx(exact, abs=1e-3)


def test_best_of_n_distillation_learns_by_rloo_and_is_charged_for_the_draws(make_bench) -> None:
    bench = make_bench().replace(reward=worded)
    prefzoo.get("best_of_n_distillation", n=3, samples=4, generations=2, trainer={"max_steps": 1}).train(bench)
    prompts = len(bench.data.prompts)
    assert bench.ledger.reward_calls == 4 * prompts + 2 * 8 and bench.ledger.prompts == prompts + 8
    assert "0.5" in bench.report["loss"]["kl"]
    assert prefzoo.get("best_of_n_distillation", n=3, samples=4).tunable["n"].high == 4
    shaped = make_bench(name="shaped").replace(reward=worded)
    machinery = dataclasses.replace(shaped.machinery, shaping=Shaping(normalize=True, clip=0.1))
    learner = prefzoo.get("best_of_n_distillation", n=3, samples=4, generations=2, trainer={"max_steps": 1})
    learner.train(shaped.replace(machinery=machinery))
    curves = [json.loads((each.out / "curves.json").read_text())[0] for each in (bench, shaped)]
    assert curves[0][0]["reward"] == curves[1][0]["reward"], "log F was scaled, and 1 / (n - 1) is another n's"
    with pytest.raises(RecipeError, match="samples is 4: the best of n = 8"):
        prefzoo.get("best_of_n_distillation", samples=4)
    with pytest.raises(RecipeError, match="say `n`: it is 1 / \\(n - 1\\)"):
        prefzoo.get("best_of_n_distillation", trainer={"beta": 0.1})


@pytest.fixture
def teacher(make_bench) -> LanguageModelPolicy:
    """A policy that is not the start."""
    bench = make_bench(name="teacher", learning_rate=1e-2)
    prefzoo.get("sft", on="chosen").train(bench)
    return distillation.load_teacher(str(bench.out / "policy"), bench)


def step(bench: Any, teacher: LanguageModelPolicy, rows: list[dict[str, Any]], divergence: float, **more: Any) -> Any:
    """The first loss of a training of one step without a learning rate."""
    still = {"beta": divergence, "learning_rate": 0.0, "max_steps": 1, "logging_steps": 1, "seed": 7}
    distillation.distill(bench, teacher, rows, still, **more)
    return losses(json.loads((bench.out / "curves.json").read_text())[-1])[0]


def tables(policy: LanguageModelPolicy, rows: list[dict[str, Any]], temperature: float = 1.0) -> list[np.ndarray]:
    """Probabilities of each token of the vocabulary, at each token of each row's reply."""
    replies = policy.tokenizer.parts([[*row["prompt"], *row["completion"]] for row in rows])
    completions = [Completion("", tuple(ids), True) for _, ids in replies]
    found = dict(policy.token_log_probabilities([row["prompt"] for row in rows], completions, temperature))
    return [found[i].double().exp().numpy() for i in range(len(rows))]


@pytest.mark.parametrize("divergence", [0.0, 0.3, 1.0])
def test_the_divergence_is_the_mean_over_tokens(make_bench, teacher, divergence) -> None:
    bench = make_bench(batch_size=4)
    rows = bench.data.chosen()[:4]
    found = step(bench, teacher, rows, divergence)
    q, p = (np.concatenate(tables(each, rows)) for each in (LanguageModelPolicy.start_of(bench), teacher))

    def kl(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return (a * np.log(a / b)).sum(-1)

    middle = (1 - divergence) * q + divergence * p  # Agarwal et al. 2024, equation 1
    jensen_shannon = divergence * kl(p, middle) + (1 - divergence) * kl(q, middle)
    expected = {0.0: kl(p, q), 1.0: kl(q, p)}.get(divergence, jensen_shannon)
    assert found == pytest.approx(expected.mean(), rel=1e-3) and expected.mean() > 1e-2


def test_the_term_of_the_reward_by_hand(make_bench, teacher, monkeypatch) -> None:
    bench = make_bench(batch_size=4).replace(reward=worded)
    rows = bench.data.chosen()[:4]
    start = LanguageModelPolicy.start_of(bench)
    ids = [list(reply) for _, reply in start.tokenizer.parts([[*row["prompt"], *row["completion"]] for row in rows])]
    place = {json.dumps(row["prompt"]): i for i, row in enumerate(rows)}
    seen: list[list[int]] = []

    def given(self: Any, prompt_ids: Any, *args: Any, **more: Any) -> list[list[int]]:
        order = [place[json.dumps(row["prompt"])] for row in self.train_dataset]
        by_ids = {tuple(start.render(rows[i]["prompt"])): i for i in order}
        seen[:] = [[by_ids[tuple(each)] for each in prompt_ids]]
        return [ids[i] for i in seen[0]]

    monkeypatch.setattr(distillation.StudentTrainer, "_generate_single_turn", given)
    prompts = [{"prompt": row["prompt"]} for row in rows]
    without = step(bench, teacher, prompts, 1.0)
    found = step(make_bench(batch_size=4, name="two").replace(reward=worded), teacher, prompts, 1.0, reward_weight=0.5)
    texts = [start.reply_text(row["prompt"], ids[i]) for i, row in enumerate(rows)]
    scores = np.array(worded([row["prompt"] for row in rows], texts))
    advantages = [score - (scores.sum() - score) / 3 for score in scores]
    chosen = [np.log(table[range(len(reply)), reply]) for table, reply in zip(tables(start, rows), ids, strict=True)]
    gained = sum(a * logs.sum() for a, logs in zip(advantages, chosen, strict=True)) / sum(map(len, ids))
    assert abs(gained) > 1e-2 and found - without == pytest.approx(-0.5 * gained, rel=1e-3)


def test_parity_with_raw_trl(make_bench, tmp_path, teacher) -> None:
    from transformers import AutoModelForCausalLM, set_seed

    bench = make_bench()
    rows = [{"prompt": list(prompt)} for prompt in bench.data.prompts]
    ours = distillation.distill(bench, teacher, rows, {"beta": 0.5, **OF_20_STEPS})
    set_seed(7)
    model = AutoModelForCausalLM.from_pretrained(str(MODEL_DIR), dtype=torch.float32)
    config = {**OF_20_STEPS, "beta": 0.5, "max_completion_length": bench.generation.max_new_tokens}

    class Taught(__import__("trl").DistillationTrainer):
        def __init__(self, **more: Any) -> None:
            super().__init__(teacher_model=teacher.model, **more)

    raw = raw_trl("Distillation", model, rows, str(tmp_path / "raw"), config, trainer_class=Taught)
    curve = losses(json.loads((bench.out / "curves.json").read_text())[-1])
    assert curve == pytest.approx(losses(raw.state.log_history), abs=1e-5) and len(curve) == 20
    assert max(curve) - min(curve) > 1e-3
    assert torch.allclose(learned(ours.model), learned(raw.model), atol=1e-5)


def test_a_teacher_that_is_trained_first_is_charged_and_kept(make_bench) -> None:
    bench = make_bench().replace(reward=worded)
    policy = prefzoo.get("distill", **TAUGHT, trainer={"max_steps": 1}).train(bench)
    assert (bench.out / "teacher" / "policy" / "policy.json").is_file()
    prompts = len(bench.data.prompts)
    assert bench.ledger.reward_calls == 2 * prompts and bench.ledger.prompts == prompts + 8
    assert policy.log_ratios(bench.data.prompts[:1], [Completion("a", (5, 6), True)]) != [0.0]


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"teacher": "pp"}, "unknown algorithm 'pp'.*ppo.*nor is it a folder or a hub id"),
        ({"teacher": "ppo", "teacher_settings": {"n": 3}}, "n: unknown key 'n'"),
        ({"teacher": "a/b", "teacher_settings": {"n": 3}}, "'a/b' is no algorithm"),
        ({"on": "chosen", "reward_weight": 0.1}, "on: chosen. samples none"),
        ({"trainer": {"beta": 0.1}}, "divergence"),
        ({"teacher": "best_of_n"}, "'best_of_n' is no distribution"),
        ({"teacher": "ilql"}, "'ilql' is no distribution"),
        ({"teacher": "rlaif", "teacher_settings": {"learner": "ilql"}}, "'rlaif' is no distribution"),
    ],
)
def test_what_cannot_be_distilled_is_refused(settings, says) -> None:
    with pytest.raises(RecipeError, match=says):
        prefzoo.get("distill", **settings)


def test_a_teacher_of_other_tokens_and_one_without_probabilities_are_refused(make_bench, base, tmp_path) -> None:
    bench = make_bench().replace(reward=RandomReward(0))
    prefzoo.get("best_of_n", n=2).train(bench)
    with pytest.raises(PrefzooError, match="BestOfNPolicy, which gives no probabilities"):
        prefzoo.get("distill", teacher=str(bench.out / "policy")).train(make_bench(name="other"))
    from transformers import AutoTokenizer

    other = tmp_path / "other_tokens"
    LanguageModelPolicy.from_start(str(MODEL_DIR)).export(other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["<one more>"])
    tokenizer.save_pretrained(other)
    with pytest.raises(PrefzooError, match="both must have the same tokenizer"):
        prefzoo.get("distill", teacher=str(other)).train(make_bench(name="third"))


def test_another_teacher_in_the_same_folder_is_another_trial(tmp_path) -> None:
    from prefzoo.recipe.check_recipe import load
    from prefzoo.run.stage_graph import make_plan

    def trained() -> list[str]:
        recipe = load({"extends": "quickstart", "algorithms": {"distill": {"teacher": str(folder)}}}, [], ["distill"])
        return [s.folder.name for s in make_plan(recipe, tmp_path, {}).stages.values() if s.kind == "train"]

    folder = tmp_path / "teacher"
    LanguageModelPolicy.from_start(str(MODEL_DIR)).export(folder)
    before = trained()
    assert trained() == before
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert set(trained()).isdisjoint(before) and before
