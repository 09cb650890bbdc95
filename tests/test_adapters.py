"""Every algorithm under every adapter: it begins as the start, trains, and comes back from disk in another process."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from typing import Any

import pytest
import torch

pytest.importorskip("bitsandbytes")

from conftest import ADAPTERS
from prefzoo import registry
from prefzoo.judges import constitution
from prefzoo.judges.build_judge import RandomJudge
from prefzoo.judges.local_judge import local_judge
from prefzoo.lab import MODEL_DIR
from prefzoo.models import shared_base
from prefzoo.models.adapters import of_adapter
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import device, load_model
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.shared_base import load_with_shared_weights
from prefzoo.rewards.reward_model import RewardModel
from prefzoo.rewards.train_reward import train_reward_model
from prefzoo.types import Completion

ALGORITHMS = ("sft", "dpo", "rejection_sampling", "ppo", "a2c", "reinforce", "grpo", "rloo")
CASES: list[Any] = [(name, adapter) for name in ALGORITHMS for adapter in ("full", "lora", "qlora")]
CASES += [(name, adapter) for name in ("dpo", "ppo") for adapter in ("dora", "qdora", "int8", "saved")]
OF_GRPO = ("bnpo", "cispo", "dapo", "dr_grpo", "gspo", "luspo", "sapo", "vespo")
OTHERS = (*OF_GRPO, "reinforce_plus_plus", "reinforce_plus_plus_baseline")
FEW = {"gspo": "qlora", "dapo": "full", "reinforce_plus_plus": "lora"}
CASES += [
    pytest.param(name, adapter, marks=() if FEW.get(name) == adapter else pytest.mark.slow)
    for name in OTHERS
    for adapter in ("full", "lora", "qlora")
]
TWO_STEPS = {"trainer": {"max_steps": 2, "logging_steps": 1}}
OVER_OTHERS: dict[str, dict[str, Any]] = {
    "distill": {"teacher": str(MODEL_DIR), **TWO_STEPS},
    "best_of_n_distillation": {"n": 2, "samples": 2, "generations": 2, **TWO_STEPS},
    "rlaif": {"learner_settings": TWO_STEPS},
    "constitutional_ai": {"revisions": 1, "learner_settings": TWO_STEPS},
    "iterated_rlhf": {"rounds": 2, "learner_settings": TWO_STEPS},
}
"""What has another algorithm learn, or learns from another model."""
FRESH = """
import json, sys
from prefzoo.interface import Completion
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.shared_base import load_with_shared_weights
for folder, (prompts, ids, found) in json.load(open(sys.argv[1])).items():
    replies = [Completion("", tuple(each), True) for each in ids]
    assert load_policy(folder).log_probabilities(prompts, replies) == found, folder
    print(folder)
"""


def storages(model: torch.nn.Module) -> set[int]:
    """Where the weights of the base under an adapter lie."""
    return {w.untyped_storage().data_ptr() for name, w in model.named_parameters() if not of_adapter(name)}


@pytest.fixture(scope="module")
def kept() -> dict[str, Any]:
    """What the trained policies said of some replies: folder -> prompts, token ids, log-probabilities."""
    return {}


@pytest.mark.parametrize(("name", "adapter"), CASES)
def test_each_begins_as_the_start_and_trains(name: str, adapter: str, adapted, kept) -> None:
    trial = adapted(adapter)
    kind = trial.adapter.type
    settings: dict[str, Any] = {"n": 2, "keep": "random"} if name == "rejection_sampling" else {}
    settings |= {"kl_coefficient": 0.05, "minibatches": 1} if name in OF_GRPO else {}
    policy = registry.get(name, trainer={"max_steps": 2, "logging_steps": 1}, **settings).train(trial)
    curve = json.loads((trial.out / "curves.json").read_text())[0]
    if name == "dpo":
        assert curve[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    elif name != "sft" and name != "rejection_sampling":
        assert curve[0]["kl" if name in ("grpo", "rloo", *OF_GRPO) else "rollout/kl"] == pytest.approx(0, abs=1e-5)
    prompts = trial.data.prompts[:4]
    replies = [each[0] for each in policy.sample(prompts, trial.generation, seed=0)]
    found = policy.log_probabilities(prompts, replies)
    with policy.as_start() as start:
        own = LanguageModelPolicy.from_start(trial.start, **trial.loading)
        assert start.log_probabilities(prompts, replies) == own.log_probabilities(prompts, replies) != found
    assert policy.adapted == (kind != "full")
    model = trial.report["model"]
    assert model["differs"] == []
    assert model["used"]["adapter"]["type"] == kind
    kept[str(trial.out / "policy")] = [[list(p) for p in prompts], [r.token_ids for r in replies], found]


@pytest.mark.parametrize(
    ("name", "adapter"),
    [
        pytest.param(name, adapter, marks=() if adapter == "qlora" else pytest.mark.slow)
        for name in OVER_OTHERS
        for adapter in ("full", "lora", "qlora")
    ],
)
def test_what_has_another_learn_trains_what_the_recipe_says(name: str, adapter: str, adapted) -> None:
    trial = adapted(adapter).replace(judge=RandomJudge(0), constitution=constitution.load("lab"))
    trial = trial.replace(assistant=lambda requests, seed, ledger=None: [f"{len(r)} letters" for r in requests])
    policy = registry.get(name, **OVER_OTHERS[name]).train(trial)
    assert trial.report["model"]["differs"] == [] and trial.report["model"]["used"]["adapter"]["type"] == adapter
    prompts = trial.data.prompts[:2]
    replies = [each[0] for each in policy.sample(prompts, trial.generation, seed=0)]
    own = LanguageModelPolicy.from_start(trial.start, **trial.loading)
    assert policy.log_probabilities(prompts, replies) != own.log_probabilities(prompts, replies)
    with policy.as_start() as start:
        assert start.log_probabilities(prompts, replies) == own.log_probabilities(prompts, replies)


def test_a_fresh_process_loads_them_and_finds_the_same(kept, tmp_path) -> None:
    """After the test above, whose policies it takes."""
    if not kept:
        pytest.skip("nothing was trained")
    (tmp_path / "kept.json").write_text(json.dumps(kept))
    said = subprocess.run(
        [sys.executable, "-c", FRESH, str(tmp_path / "kept.json")],
        env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert said.returncode == 0, said.stderr[-2000:]
    assert said.stdout.split() == list(kept)


def test_on_one_base_they_find_the_same_whatever_was_on_it_before(kept, base) -> None:
    """After the first test, whose policies it takes."""
    if not kept:
        pytest.skip("nothing was trained")

    def found(folder: str) -> Any:
        prompts, ids, _ = kept[folder]
        policy = load_policy(folder)
        return policy, policy.log_probabilities(prompts, [Completion("", tuple(each), True) for each in ids])

    with shared_base.shared():
        policies = {}
        for folder in (*kept, *reversed(kept)):
            policies[folder], again = found(folder)
            assert again == kept[folder][2], folder
        adapted = [policy for policy in policies.values() if policy.adapted]
        ways = {json.dumps(policy.loading): policy.loading for policy in adapted}
        held = [storages(local_judge(base, False, loading).model.model) for loading in ways.values()]
    assert {len(each) for each in held} == {12}, "7 layers, 3 norms, embeddings and head"
    assert set.union(*(storages(policy.model) for policy in adapted)) == set.union(*held)


def test_a_base_is_read_once_for_each_way_and_again_when_its_files_changed(base, tmp_path) -> None:
    folder = str(shutil.copytree(base, tmp_path / "base"))
    with shared_base.shared():
        first, again, other = (
            load_with_shared_weights(folder),
            load_with_shared_weights(folder, dtype="float32"),
            load_with_shared_weights(folder, dtype="float16"),
        )
        assert storages(first) == storages(again) and storages(first).isdisjoint(storages(other))
        first.get_input_embeddings().weight.data = torch.zeros(1)  # puts another in its place, which is its own affair
        assert storages(load_with_shared_weights(folder)) == storages(again)
        changed = load_model(base)
        torch.nn.init.zeros_(changed.model.norm.weight)
        changed.save_pretrained(folder)
        assert not load_with_shared_weights(folder).model.norm.weight.any() and again.model.norm.weight.all()
    assert storages(load_with_shared_weights(folder)).isdisjoint(storages(load_with_shared_weights(folder))), (
        "outside, everybody's own"
    )


@pytest.mark.parametrize("adapter", [a for a in ADAPTERS if a != "saved"])
def test_a_step_of_size_0_leaves_the_start_and_the_reward_model_comes_back(adapter: str, adapted) -> None:
    trial = adapted(adapter, learning_rate=0.0)
    policy = registry.get("sft", trainer={"max_steps": 1}).train(trial)
    prompts = trial.data.prompts[:4]
    replies = [each[0] for each in policy.sample(prompts, trial.generation, seed=0)]
    assert policy.kl_to_start(prompts, replies) == [0.0] * 4
    rewards = adapted(adapter)
    scored = train_reward_model(rewards, {"max_steps": 2})
    texts = [reply.text for reply in replies]
    scores = scored(prompts, texts)
    # A score does not depend on what else is in its batch; int8 rounds what has been added up in another order.
    assert scored(prompts[2:3], texts[2:3]) == pytest.approx(scores[2:3], abs=1e-2 if adapter == "int8" else 1e-5)
    assert RewardModel.load(str(rewards.out / "reward"))(prompts, texts) == scores
    with shared_base.shared():
        lent = RewardModel.load(str(rewards.out / "reward"))
        beside = LanguageModelPolicy.from_start(trial.start, **trial.loading)
        assert lent(prompts, texts) == scores and lent.parameters == scored.parameters
    own = storages(lent.model) - storages(beside.model)
    assert len(own) == (1 if adapter != "full" else len(storages(lent.model))), "the head alone, under an adapter"
    assert rewards.report["model"]["used"]["adapter"].get("modules_to_save", ["score"])[-1] == "score"


def test_going_on_with_an_adapter_keeps_its_weights_and_the_start_as_reference(adapted) -> None:
    """TRL would round the weights on a quantized base, and take the adapter as it is for the reference."""
    trial = adapted("qdora")
    registry.get("sft", trainer={"max_steps": 2}).train(trial)
    policy = load_policy(trial.out / "policy")
    assert isinstance(policy, LanguageModelPolicy)
    before = {n: w.clone() for n, w in policy.model.named_parameters() if "lora_" in n or "modules_to_save" in n}
    again = adapted("qdora", learning_rate=0.0).replace(latest=policy)
    kept = registry.get("dpo", trainer={"max_steps": 1, "logging_steps": 1}).train(again)
    after = dict(kept.model.named_parameters())
    assert before and all(torch.equal(after[name], weight) for name, weight in before.items())
    curve = json.loads((again.out / "curves.json").read_text())[-1]
    assert abs(curve[0]["loss"] - math.log(2)) > 1e-4  # of another policy than the reference


@pytest.mark.parametrize("adapter", ["dora", "saved"])
def test_what_is_exported_is_the_policy(adapter: str, adapted, tmp_path) -> None:
    trial = adapted(adapter)
    policy = registry.get("sft", trainer={"max_steps": 2}).train(trial)
    ids = torch.arange(5, 25, device=device())[None]
    with torch.no_grad():
        logits = policy.model(ids).logits
        policy.export(tmp_path / "exported")
        exported = LanguageModelPolicy.from_start(str(tmp_path / "exported")).model(ids).logits
    torch.testing.assert_close(exported, logits, atol=1e-5, rtol=1e-5)
