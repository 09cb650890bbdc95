"""Rewards made of rewards, what online algorithms make of scores, and the one base in memory."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import prefzoo
from conftest import SMALL
from prefzoo import get
from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.interface import Machinery
from prefzoo.models.loading import device
from prefzoo.models.score_head import load_score_model
from prefzoo.recipe import check_recipe as recipes
from prefzoo.rewards.load_reward import Ensemble, RandomReward, WeightedSum, load_reward
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.settings import Adapter, Shaping
from prefzoo.trainers.on_policy import ActorCriticTrainer
from prefzoo.trainers.online import shaped


class Fixed:
    """Scores that are written down."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.flops = list(scores), 5.0

    def __call__(self, prompts, completions):
        return self.scores


def test_a_sum_and_ensembles_by_hand() -> None:
    one, two, three = Fixed(1, 2), Fixed(3, 0), Fixed(5, 4)
    assert WeightedSum([one, two], [2, -0.5])([], []) == [0.5, 4.0]
    total, parts = WeightedSum([one, two], [2, -0.5], ["help", "length"]).by_part([], [])
    assert total == [0.5, 4.0] and parts == [{"help": 2, "length": -1.5}, {"help": 4, "length": 0}]
    members = [one, two, three]
    assert Ensemble(members, "mean")([], []) == [3.0, 2.0]
    assert Ensemble(members, "min")([], []) == [1, 0]
    # Both spreads are sqrt(8 / 3): the mean of squared distances 4, 0, 4.
    spread = math.sqrt(8 / 3)
    assert Ensemble(members, "mean_minus_std", 0.5)([], []) == pytest.approx([3 - spread / 2, 2 - spread / 2])
    assert WeightedSum([one, Ensemble(members, "min")], [1, 1]).flops == 20


def test_a_combination_comes_back_from_its_spec(tmp_path) -> None:
    made = WeightedSum([RandomReward(1), Ensemble([RandomReward(2), RandomReward(3)], "min")], [1.0, 2.0])
    prompts, texts = [[{"role": "user", "content": "a"}]] * 3, ["x", "y", "z"]
    again = load_reward(json.loads(json.dumps(made.spec(tmp_path))), tmp_path)
    assert again(prompts, texts) == made(prompts, texts)


def test_running_normalization_is_that_of_all_scores_so_far() -> None:
    rng = np.random.default_rng(0)
    batches = [list(rng.normal(5, 3, size)) for size in (4, 1, 7)]
    memory: dict = {}
    seen: list[float] = []
    for batch in batches:
        seen += batch
        expected = (np.array(batch) - np.mean(seen)) / np.std(seen)
        assert shaped(batch, Shaping(normalize=True), memory) == pytest.approx(list(expected))
    assert max(shaped([100.0], Shaping(normalize=True, clip=1.5), memory)) == 1.5
    assert shaped([-3.0, 0.2, 9.0], Shaping(clip=1.0), {}) == [-1.0, 0.2, 1.0]
    assert shaped([2.0, 2.0], Shaping(normalize=True), {}) == [0.0, 0.0]  # nothing to divide by


@pytest.fixture
def reward(make_bench):
    return train_reward_model(make_bench(name="reward"), {})


@pytest.mark.parametrize("adapter", ["lora", "qlora"])
def test_policy_reference_critic_and_rewards_hold_one_set_of_base_weights(adapter, make_bench, monkeypatch) -> None:
    kept = []
    monkeypatch.setattr(ActorCriticTrainer, "remove_critic", lambda self: kept.append(self))
    loading = {"quantization": Adapter(type=adapter).quantization}

    def bench(name: str, **more):
        trial = make_bench(name=name).replace(adapter=Adapter(type=adapter, r=4, alpha=8), loading=loading)
        return trial.replace(**more)

    members = [train_reward_model(bench(f"reward-{seed}", seed=seed), {}) for seed in (1, 2)]
    rows = [row["prompt"] for row in make_bench().data.preferences[:4]]
    before = [member(rows, ["One.", "Two.", "Three.", "Four."]) for member in members]
    get("ppo", trainer={"max_steps": 1}).train(bench("ppo", reward=Ensemble(members, "min")))
    assert [member(rows, ["One.", "Two.", "Three.", "Four."]) for member in members] == before  # the base is untouched
    models = [kept[0].model, *(member.model for member in members)]
    own = ("lora_", "score", "value_head")
    sets = [[p for n, p in model.named_parameters() if not any(w in n for w in own)] for model in models]
    pointers = [{p.untyped_storage().data_ptr() for p in weights} for weights in sets]
    assert pointers[1] == pointers[2] and pointers[1] <= pointers[0]
    assert len(pointers[0]) == len(sets[0])


@pytest.mark.parametrize(
    ("rewards", "policys", "dtype"),
    [
        ({"quant_type": "fp4"}, {}, "float32"),
        ({}, {"quant_type": "fp4"}, "float32"),
        ({"double_quant": False}, {}, "float32"),
        ({}, {}, "bfloat16"),
        ({"quant_type": "int8"}, {"quant_type": "int8"}, "bfloat16"),
    ],
)
def test_a_reward_that_is_quantized_otherwise_keeps_its_scores(rewards, policys, dtype, make_bench) -> None:
    from prefzoo.models.language_model import LanguageModelPolicy

    own, others = (Adapter(type="qlora", r=4, alpha=8, **block) for block in (rewards, policys))
    trial = make_bench(name="reward").replace(adapter=own, loading={"quantization": own.quantization})
    reward = train_reward_model(trial, {"max_steps": 1})
    rows, texts = [row["prompt"] for row in trial.data.preferences[:4]], ["One.", "Two.", "Three.", "Four."]
    before = reward(rows, texts)
    policy = LanguageModelPolicy.from_start(trial.start, dtype=dtype, quantization=others.quantization)
    reward.share_base(policy.model, trial.start)
    assert reward(rows, texts) == before


def test_the_head_learns_in_float32_on_a_base_in_bfloat16(make_bench) -> None:
    """At this rate a step moves a weight by 1e-5 (Adam), which bfloat16 rounds away on all above 0.004."""
    bench = make_bench(name="reward", learning_rate=1e-5, warmup_ratio=0.0)
    bench = bench.replace(machinery=Machinery(loading={"dtype": "bfloat16"}))
    torch.manual_seed(bench.seed)
    drawn = load_score_model(bench.start, dtype="bfloat16")
    assert drawn.dtype == torch.bfloat16 and drawn.score.weight.dtype == torch.float32
    drawn = drawn.score.weight.detach().clone()
    reward = train_reward_model(bench, {"max_steps": 2})
    saved = load_file(bench.out / "reward" / "adapter_model.safetensors")
    (name,) = [name for name in saved if "score" in name]
    assert saved[name].dtype == torch.float32
    moved = (saved[name] - drawn).abs()
    assert (moved > 0).float().mean() > 0.99 and moved.max() < 1e-4
    (head,) = [w for n, w in reward.model.named_parameters() if ".score.modules_to_save." in n]
    assert torch.equal(head, saved[name])


def test_a_reward_on_other_weights_is_left_alone(make_bench, reward, tmp_path) -> None:
    from prefzoo.models.language_model import LanguageModelPolicy

    policy = LanguageModelPolicy.from_start(make_bench().start)
    before = [p.data_ptr() for p in reward.model.parameters()]
    reward.share_base(policy.model, str(tmp_path))
    assert [p.data_ptr() for p in reward.model.parameters()] == before


def test_a_reward_model_that_diverged_says_so_instead_of_teaching(reward) -> None:
    with torch.no_grad():
        for name, parameter in reward.model.named_parameters():
            if "score" in name:
                parameter.fill_(float("nan"))
    with pytest.raises(PrefzooError, match=r"gives nan to 1 of 1 replies, first to 'Yes\.': its training diverged"):
        reward([[{"role": "user", "content": "Is it open?"}]], ["Yes."])


def test_what_is_longer_than_the_reward_models_positions_is_not_scored(reward, monkeypatch) -> None:
    prompt = [{"role": "user", "content": "Is it open?"}]
    monkeypatch.setattr(reward.model.config, "max_position_embeddings", 12)
    assert len(reward([prompt], ["Yes."])) == 1
    with pytest.raises(PrefzooError, match=r"has 12 positions, and a prompt with its reply takes \d+ of its tokens"):
        reward([prompt] * 2, ["Yes.", "Yes, from nine to five, and on Sunday as well."])


def test_a_critic_that_begins_as_the_reward_model_trains(make_bench, reward, monkeypatch) -> None:
    kept = []
    monkeypatch.setattr(ActorCriticTrainer, "remove_critic", lambda self: kept.append(self))
    get("ppo", value_model="reward", trainer={"learning_rate": 0.0}).train(make_bench().replace(reward=reward))
    backbone, head = reward.critic(reward.tokenizer)
    assert torch.equal(kept[0].model.value_head.weight, head)
    theirs = dict(backbone.named_parameters())
    assert all(torch.equal(p, theirs[n]) for n, p in kept[0].model.value_backbone.named_parameters())


def with_two_tokens_swapped(folder):
    """A reward model that was not trained, with the lab's tokenizer, in which two tokens have each other's number."""
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from prefzoo.lab import MODEL_DIR

    config = AutoConfig.from_pretrained(MODEL_DIR, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text((MODEL_DIR / "tokenizer_config.json").read_text())
    content = json.loads((MODEL_DIR / "tokenizer.json").read_text())
    numbers = content["model"]["vocab"]
    numbers["e"], numbers["t"] = numbers["t"], numbers["e"]
    (folder / "tokenizer.json").write_text(json.dumps(content))
    return folder


def test_a_critic_that_would_misread_the_policys_tokens_is_refused(make_bench, reward, tmp_path) -> None:
    from prefzoo.lab import MODEL_DIR
    from prefzoo.models.loading import load_tokenizer

    own = len(reward.tokenizer)
    reward.tokenizer = load_tokenizer(str(with_two_tokens_swapped(tmp_path / "other")))
    with pytest.raises(
        PrefzooError, match=f"value_model: 'reward' .* 2 of {own} tokens .* Allowed here: shared"
    ) as told:
        get("ppo", value_model="reward").train(make_bench().replace(reward=reward))
    assert str(MODEL_DIR) in str(told.value) and str(reward.folder) in str(told.value)


def test_validate_compares_the_tokens_of_a_critics_model(tmp_path, reward) -> None:
    def recipe(path, value_model="reward"):
        algorithms = {"mine": {"algorithm": "a2c", "value_model": value_model}, "ppo": {}}
        return {"algorithms": algorithms, "reward": {"type": "path", "path": str(path)}}

    other = with_two_tokens_swapped(tmp_path / "other")
    with pytest.raises(RecipeError) as caught:
        recipes.check(recipe(other))
    (problem,) = caught.value.problems
    assert problem.startswith("algorithms.mine.value_model: 'reward' begins as the reward model, which would misread")
    assert "2 of 1024 tokens" in problem and f"model.path is 'lab', reward.path {str(other)!r}." in problem
    recipes.check(recipe(other, "separate"))
    recipes.check(recipe(reward.folder))  # an adapter on the lab model, whose tokenizer it has
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    numbers = tokenizer["model"]["vocab"]
    numbers["e"], numbers["t"], numbers["more"] = numbers["t"], numbers["e"], 1024
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    recipes.check(recipe(other))  # all of the policy's tokens, and one more


def test_a_critic_from_a_reward_that_is_no_model_is_refused(make_bench) -> None:
    with pytest.raises(PrefzooError, match="value_model"):
        get("ppo", value_model="reward").train(make_bench().replace(reward=RandomReward(0)))


def test_the_value_of_the_last_token_is_the_reward_models_score(make_bench, reward) -> None:
    """Before it learns, the critic sees in a whole reply what the reward model sees."""
    backbone, head = reward.critic(reward.tokenizer)
    prompt, text = make_bench().data.preferences[0]["prompt"], "It is open from nine to five."
    ids = reward.tokenizer.apply_chat_template(
        [*prompt, {"role": "assistant", "content": text}], return_dict=False, tokenize=True
    )
    with torch.no_grad():
        hidden = backbone(input_ids=torch.tensor([ids], device=device())).last_hidden_state[0, -1]
    assert float(hidden @ head[0]) == pytest.approx(reward([prompt], [text])[0], abs=1e-4)


def test_a_comparison_learns_from_a_sum_with_an_ensemble(tmp_path) -> None:
    (tmp_path / "short.py").write_text(
        "def brevity(prompts, completions):\n    return [-len(c) for c in completions]\n"
    )
    sets = [
        *SMALL,
        "reward={type: sum, normalize: true, clip: 3, of: [{type: trained, members: 2, combine: min},"
        f" {{type: function, path: '{tmp_path / 'short.py'}:brevity', weight: 0.1}}]}}",
        "algorithms={reinforce: {}, best_of_n: {}}",
    ]
    found = prefzoo.compare("quickstart", seeds=1, sets=sets, out=tmp_path / "run")
    assert [each.status for each in found.algorithms.values()] == ["ok"] * 3
    assert found.reward["type"] == "sum" and len(found.reward["parts"]) == 2
    # The proxy is the sum itself, without what online algorithms make of it: characters are in it.
    assert found.algorithms["start"].summary["proxy"].mean < -1


MISTAKES = [
    ({"type": "sum"}, "of: "),
    ({"of": [{"type": "random"}]}, "of: "),
    ({"type": "random", "members": 3}, "members: 3 has no meaning with reward.type 'random'"),
    ({"combine": "min"}, "members must be above 1"),
    ({"members": 2, "std_weight": 2.0}, "std_weight: 2.0 has no meaning with combine 'mean'"),
    ({"members": 2, "combine": "minimum"}, "min"),
    ({"weight": 2.0}, "weight: 2.0 has no meaning outside a sum"),
    ({"clip": 0}, "clip"),
    ({"type": "sum", "of": [{"type": "functon", "path": "a.py:b"}]}, "function"),
    ({"type": "sum", "of": [{"type": "function", "path": "nowhere.py:b"}]}, "nowhere.py"),
    ({"type": "sum", "of": [{"type": "path", "path": "nowhere"}]}, "reward.of.0.path"),
    ({"type": "sum", "of": [{"type": "trained", "trainer": {"learning_rte": 1}}]}, "learning_rate"),
    ({"type": "sum", "of": [{"loss": "regression"}]}, "learns from ratings"),
]


@pytest.mark.parametrize(("block", "says"), MISTAKES, ids=lambda value: json.dumps(value)[:60])
def test_mistakes_in_the_block_are_told(block, says) -> None:
    with pytest.raises(RecipeError) as error:
        recipes.check({"algorithms": {"ppo": {}}, "reward": block})
    assert says in str(error.value) and "reward" in str(error.value)


def test_shaping_trains_no_reward_again_and_only_those_that_learn_from_it(tmp_path) -> None:
    from prefzoo.run.stage_graph import make_plan

    def folders(**reward):
        recipe = recipes.check({"algorithms": {"ppo": {}, "dpo": {}}, "reward": reward})
        return {name: stage.folder for name, stage in make_plan(recipe, tmp_path).stages.items()}

    plain, clipped, lossy = folders(), folders(clip=1.0), folders(members=2)
    assert plain["reward"] == clipped["reward"] != lossy["reward"]
    assert plain["train ppo seed 0"] != clipped["train ppo seed 0"]
    assert plain["train dpo seed 0"] == clipped["train dpo seed 0"] == lossy["train dpo seed 0"]
