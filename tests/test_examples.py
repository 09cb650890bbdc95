"""The examples for authors: each trains, is charged for what it does, resumes, works under QLoRA and twice at once."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from transformers import DataCollatorForLanguageModeling, LlamaModel, Trainer, TrainingArguments

import prefzoo
from prefzoo import registry
from prefzoo.errors import PrefzooError
from prefzoo.interface import Bench
from prefzoo.models import shared_beginnings
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import load_policy
from prefzoo.plugins import _run
from prefzoo.run.worker import clear
from prefzoo.settings import Generation
from prefzoo.trainers import checkpoints
from prefzoo.types import Completion
from test_distributed import trained
from test_resume import Killed, killed_at, length, made, same

FOLDER = Path(__file__).parents[1] / "docs" / "examples"
LINES = {"simpo_like": 25, "kto_like": 40, "rounds_of_dpo": 40}
"""Example -> how many lines it may have; each registers an algorithm named like its file."""
EVERY_STEP = {"logging_steps": 1}


@pytest.fixture(autouse=True)
def registered():
    before = registry.registered()
    for name in LINES:
        path = FOLDER / f"{name}.py"
        _run(path, path.read_text(encoding="utf-8"))
    yield
    registry.restore(before)


def curve(bench: Bench) -> list[dict[str, Any]]:
    return [entry for entry in json.loads((bench.out / "curves.json").read_text())[-1] if "loss" in entry]


@pytest.mark.parametrize(("name", "lines"), LINES.items())
def test_it_is_short(name, lines) -> None:
    assert len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()) <= lines


@pytest.mark.parametrize("name", LINES)
def test_it_trains_is_charged_and_comes_back_from_disk(name, make_bench, monkeypatch) -> None:
    """The tokens that pass through the model are counted at the model itself."""
    passed = {True: 0, False: 0}  # with a gradient, and without
    forward = LlamaModel.forward

    def counted(self, *args, **more):
        if more.get("past_key_values") is None:
            passed[torch.is_grad_enabled()] += int(more["attention_mask"].sum())
        return forward(self, *args, **more)

    bench = make_bench(epochs=2.0).replace(reward=length)
    with monkeypatch.context() as patch:
        patch.setattr(LlamaModel, "forward", counted)
        patch.setattr(shared_beginnings, "put_together", lambda ids, mask: None)  # charged are rows, as if each alone
        policy = prefzoo.get(name, trainer=EVERY_STEP).train(bench)
    ledger = bench.ledger
    assert ledger.trained_tokens == passed[True] > 0
    prompts = len(bench.data.prompts)
    if name == "rounds_of_dpo":
        assert ledger.prompts == prompts and ledger.reward_calls == 2 * prompts and ledger.generated_tokens > 0
    else:
        assert ledger.forward_tokens == passed[False] == {"simpo_like": 0, "kto_like": 3 * passed[True]}[name]
        assert ledger.prompts == 2 * prompts and len(curve(bench)) == 6, "3 steps an epoch, of 8 pairs or 16 replies"
    assert all(math.isfinite(entry["loss"]) for entry in curve(bench))
    assert {"rewards/chosen", "rewards/margins"} <= curve(bench)[0].keys()
    greedy = Generation(max_new_tokens=8, temperature=0)
    again = load_policy(bench.out / "policy").sample(bench.data.prompts[:4], greedy, seed=0)
    assert again == policy.sample(bench.data.prompts[:4], greedy, seed=0)
    assert any(weight.abs().max() > 0 for n, weight in policy.model.named_parameters() if "lora_B" in n)


@pytest.mark.faults
@pytest.mark.parametrize("name", LINES)
def test_killed_and_resumed_is_as_never_killed(name, make_bench, monkeypatch) -> None:
    algorithm = prefzoo.get(name, trainer=EVERY_STEP)

    def bench(folder: str) -> Bench:
        trial = make_bench(epochs=2.0, name=folder, accumulation=2)
        return trial.replace(reward=length, adapter=trial.adapter.model_copy(update={"dropout": 0.1}))

    algorithm.train(whole := bench("whole"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
        algorithm.train(bench("killed").replace(progress=killed_at(3)))
    clear((fresh := bench("killed")).out)
    algorithm.train(fresh)
    assert fresh.report["resumed_at_step"] == 2
    same(made(fresh, "policy"), made(whole, "policy"))


@pytest.mark.parametrize("name", LINES)
def test_it_trains_an_adapter_on_a_quantized_base(name, adapted) -> None:
    pytest.importorskip("bitsandbytes")
    bench = adapted("qlora")
    policy = prefzoo.get(name).train(bench)
    assert bench.report["model"]["differs"] == []
    weights = dict(policy.model.named_parameters())
    assert any(type(weight).__name__ == "Params4bit" for weight in weights.values())
    assert any(weight.abs().max() > 0 for n, weight in weights.items() if "lora_B" in n)


@pytest.mark.processes
def test_two_processes_end_in_the_same_weights_and_charges(tmp_path) -> None:
    first, second = trained(",".join(str(FOLDER / f"{name}.py") for name in LINES), 2, tmp_path / "two")
    assert first["world"] == second["world"] == 2
    assert first["ended"] == second["ended"] and len(first["ended"]) > len(LINES)
    assert first["ledger"] == second["ledger"]
    assert first["ledger"]["prompts"] == 16 * len(LINES) and first["ledger"]["reward_calls"] == 2 * 16


def test_simpo_like_by_hand() -> None:
    """Means -1 and -2, rewards -2 and -4, margin 2 - 1: ln(1 + 1/e)."""
    chosen = prefzoo.ReplyBatch(torch.tensor([-2.0]), None, torch.tensor([2]))
    rejected = prefzoo.ReplyBatch(torch.tensor([-8.0]), None, torch.tensor([4]))
    loss = prefzoo.get("simpo_like", beta=2.0, gamma=1.0).loss(chosen, rejected)
    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1))])


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_the_first_loss_of_simpo_like_is_that_of_the_start(adapter, make_bench) -> None:
    """What the loss is given are the log-probabilities of all tokens of the replies, end included, and their number."""
    bench = make_bench(adapter, batch_size=24)
    prefzoo.get("simpo_like", beta=2.5, gamma=0.5, trainer=EVERY_STEP).train(bench)
    start = LanguageModelPolicy.from_start(bench.start)
    means = []
    for side in ("chosen", "rejected"):
        replies = []
        for pair in bench.data.preferences:
            prompt, whole = start.render(pair["prompt"]), [*pair["prompt"], *pair[side]]
            ids = start.tokenizer.apply_chat_template(whole, return_dict=False)[len(prompt) :]
            replies.append(Completion("", tuple(ids), True))
        log_probabilities = start.log_probabilities([pair["prompt"] for pair in bench.data.preferences], replies)
        means.append([sum(tokens) / len(tokens) for tokens in log_probabilities])
    margins = [2.5 * (chosen - rejected) - 0.5 for chosen, rejected in zip(*means, strict=True)]
    expected = sum(math.log(1 + math.exp(-margin)) for margin in margins) / len(margins)
    assert curve(bench)[0]["loss"] == pytest.approx(expected, abs=1e-4)


@dataclasses.dataclass(frozen=True)
class OwnDPO(prefzoo.PairwiseLoss):
    beta: float = 0.1

    def loss(self, chosen, rejected):
        return -torch.nn.functional.logsigmoid(self.beta * (chosen.log_ratios - rejected.log_ratios))


@pytest.mark.parametrize(
    ("adapter", "trainer"), [("lora", {}), ("full", {}), ("lora", {"precompute_ref_log_probs": False})]
)
def test_dpo_as_a_loss_of_ones_own_is_dpo(adapter, trainer, make_bench) -> None:
    benches = [make_bench(adapter, epochs=2.0, name=name) for name in ("own", "trl")]
    for bench, algorithm in zip(benches, (OwnDPO, registry.load("dpo")), strict=True):
        algorithm(trainer={**EVERY_STEP, **trainer}).train(bench)
    own, trl = (curve(bench) for bench in benches)
    for name in ("loss", "rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies", "logps/chosen"):
        assert [entry[name] for entry in own] == pytest.approx([entry[name] for entry in trl], abs=1e-5), name
    charges = [{**dataclasses.asdict(bench.ledger), "seconds": 0, "peak_memory_bytes": 0} for bench in benches]
    assert charges[0] == charges[1]


def test_a_loss_of_the_wrong_shape_and_settings_of_trls_losses_are_refused(make_bench) -> None:
    @prefzoo.register("misshaped")
    @dataclasses.dataclass(frozen=True)
    class Misshaped(prefzoo.PairwiseLoss):
        def loss(self, chosen, rejected):
            return chosen.log_ratios[:, None] - rejected.log_ratios

    with pytest.raises(PrefzooError, match=r"Misshaped.loss returned \(8, 8\); .* one loss for each of the 8 pairs"):
        prefzoo.get("misshaped").train(make_bench())
    with pytest.raises(prefzoo.RecipeError, match=r"trainer.loss_type: cannot be set here .* the algorithm's own"):
        prefzoo.get("simpo_like", trainer={"loss_type": "hinge"})
    with pytest.raises(prefzoo.RecipeError, match=r"trainer.sync_ref_model: .* the loss has no reference"):
        prefzoo.get("simpo_like", trainer={"sync_ref_model": True})


def test_another_trainer_class_trains_with_dpos_settings(make_bench) -> None:
    from trl import DPOTrainer

    seen = []

    class Watched(DPOTrainer):
        def compute_loss(self, *args, **more):
            seen.append((self.beta, self.loss_types))
            return super().compute_loss(*args, **more)

    @dataclasses.dataclass(frozen=True)
    class WatchedDPO(registry.load("dpo")):
        def trainer_class(self):
            return Watched

    WatchedDPO(beta=0.3, loss_type="ipo", trainer={"max_steps": 1}).train(make_bench())
    assert seen == [(0.3, ["ipo"])]


def test_unpaired_rows_are_both_replies_of_each_pair_in_order(make_bench) -> None:
    data = make_bench().data
    expected = [(pair["prompt"], pair[s], s == "chosen") for pair in data.preferences for s in ("chosen", "rejected")]
    assert [(row["prompt"], row["completion"], row["label"]) for row in data.unpaired] == expected


@dataclasses.dataclass(frozen=True)
class PlainTrainer(prefzoo.Algorithm):
    """A trainer of transformers, which knows no `peft_config`, on texts of its own tokenizing."""

    needs: ClassVar[frozenset[str]] = frozenset({"demonstrations"})

    def train(self, bench: Bench) -> Any:
        tokenizer = prefzoo.current_policy(bench).tokenizer
        texts = [
            tokenizer.apply_chat_template([*row["prompt"], *row["completion"]], return_dict=False)
            for row in bench.data.demonstrations
        ]
        collator = DataCollatorForLanguageModeling(tokenizer, mlm=False)
        rows = [{"input_ids": ids} for ids in texts]
        return prefzoo.fit(bench, Trainer, TrainingArguments, rows, self.trainer, data_collator=collator)


@pytest.mark.parametrize("adapter", ["lora", "full"])
def test_a_plain_trainer_trains_the_adapter_and_resumes(adapter, make_bench, monkeypatch) -> None:
    algorithm = PlainTrainer(trainer=EVERY_STEP)
    policy = algorithm.train(whole := make_bench(adapter, epochs=2.0, name="whole"))
    assert policy.adapted == (adapter == "lora") and whole.report["model"]["differs"] == []
    losses = [entry["loss"] for entry in curve(whole)]
    assert sum(losses[3:]) < sum(losses[:3]), "of the second epoch and of the first"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0)
        algorithm.train(make_bench(adapter, epochs=2.0, name="killed").replace(progress=killed_at(4)))
    clear((fresh := make_bench(adapter, epochs=2.0, name="killed")).out)
    algorithm.train(fresh)
    assert fresh.report["resumed_at_step"] == 3
    same(made(fresh, "policy"), made(whole, "policy"))


def test_fit_online_refuses_trainers_that_it_cannot_drive(make_bench) -> None:
    from trl import DPOConfig, DPOTrainer, GRPOConfig, RLOOTrainer

    for trainer, config in ((DPOTrainer, DPOConfig), (RLOOTrainer, GRPOConfig)):
        with pytest.raises(PrefzooError, match=rf"not {trainer.__name__} with {config.__name__}.*rounds_of_dpo\.py"):
            prefzoo.fit_online(make_bench(), trainer, config, {}, generations=2, missing_eos_penalty=1.0)


def test_every_exported_name_is_there() -> None:
    assert all(getattr(prefzoo, name) is not None for name in prefzoo.__all__)
    assert set(prefzoo.LAZY) <= set(prefzoo.__all__)
