"""Algorithms that each break a promise, and work otherwise."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import prefzoo
from prefzoo import Algorithm, Bench, Ledger, Policy


def trained(bench: Bench, **trainer: Any) -> Any:
    return prefzoo.get("sft", trainer=trainer).train(bench)


@dataclass(frozen=True)
class Imitates(Algorithm):
    """What the broken ones would do if they were sound."""

    needs: ClassVar[frozenset[str]] = frozenset({"demonstrations"})

    def train(self, bench: Bench) -> Policy:
        return trained(bench)


@dataclass(frozen=True)
class ThreeEpochs(Imitates):
    def train(self, bench: Bench) -> Policy:
        return trained(bench, num_train_epochs=3)


@dataclass(frozen=True)
class PromptsOfItsOwn(Imitates):
    def train(self, bench: Bench) -> Policy:
        from prefzoo import lab

        pairs = lab.preferences("test", 24, 0)
        prompts = [[{"role": "user", "content": pair["prompt"]}] for pair in pairs]
        data = bench.data.with_demonstrations(prompts, [pair["chosen"] for pair in pairs])
        return prefzoo.get("sft", on="demonstrations").train(bench.replace(data=data))


@dataclass(frozen=True)
class BesideTheLedger(Imitates):
    def train(self, bench: Bench) -> Policy:
        return trained(bench.replace(ledger=Ledger()))


@dataclass(frozen=True)
class SamplesForFree(Imitates):
    def train(self, bench: Bench) -> Policy:
        policy = trained(bench)
        policy.sample(bench.data.prompts, bench.generation, seed=0)
        return policy


@dataclass(frozen=True)
class BaseInMemory(Imitates):
    """Moves the weights under the adapter; only the adapter is saved."""

    def train(self, bench: Bench) -> Policy:
        import torch

        policy = trained(bench)
        with torch.no_grad():
            policy.model.get_output_embeddings().weight.mul_(1.5)
        return policy


@dataclass(frozen=True)
class BaseOnDisk(Imitates):
    def train(self, bench: Bench) -> Policy:
        with (Path(bench.start) / "generation_config.json").open("a") as file:
            file.write("\n")
        return trained(bench)


@dataclass(frozen=True)
class WholeModel(Imitates):
    def train(self, bench: Bench) -> Policy:
        return trained(bench.replace(adapter=bench.adapter.model_copy(update={"type": "full"})))


@dataclass(frozen=True)
class Start(Imitates):
    """Goes through the motions of training and returns the start."""

    def train(self, bench: Bench) -> Policy:
        return trained(bench, learning_rate=0.0)


@dataclass(frozen=True)
class NotRepeatable(Imitates):
    def train(self, bench: Bench) -> Policy:
        return trained(bench.replace(seed=int.from_bytes(os.urandom(3), "big")))


@dataclass(frozen=True)
class OneSeedOnly(Imitates):
    def train(self, bench: Bench) -> Policy:
        return trained(bench.replace(seed=0))


@dataclass(frozen=True)
class SavesTooEarly(Imitates):
    """What is saved is not what is returned."""

    def train(self, bench: Bench) -> Policy:
        from safetensors.torch import load_file, save_file

        policy = trained(bench)
        file = bench.out / "policy" / "adapter_model.safetensors"
        save_file({name: 0.5 * weight for name, weight in load_file(file).items()}, file)
        return policy


@dataclass(frozen=True)
class SavesHalf(Imitates):
    def train(self, bench: Bench) -> Policy:
        policy = trained(bench)
        (bench.out / "policy" / "adapter_config.json").unlink()
        return policy


@dataclass(frozen=True)
class SavesNothing(Imitates):
    def train(self, bench: Bench) -> Policy:
        policy = trained(bench)
        (bench.out / "policy").rename(bench.out / "elsewhere")
        return policy


@dataclass(frozen=True)
class ReturnsNothing(Imitates):
    def train(self, bench: Bench) -> Policy:
        trained(bench)
        return None  # type: ignore[return-value]


@dataclass(frozen=True)
class Raises(Imitates):
    def train(self, bench: Bench) -> Policy:
        raise ValueError("broken on purpose")


@dataclass(frozen=True)
class DeniesTraining(Imitates):
    trains: ClassVar[bool] = False


@dataclass(frozen=True)
class WrongWay(Imitates):
    """Learns from the rejected replies: sound in every way but that it makes the policy worse."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})

    def train(self, bench: Bench) -> Policy:
        pairs = bench.data.preferences
        texts = [pair["rejected"][0]["content"] for pair in pairs]
        data = bench.data.with_demonstrations([pair["prompt"] for pair in pairs], texts)
        return prefzoo.get("sft", on="demonstrations").train(bench.replace(data=data))


@dataclass(frozen=True)
class KnowsTheTruth(Imitates):
    """Learns from the lab's gold reward instead of the labels that it is given."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})

    def train(self, bench: Bench) -> Policy:
        import dataclasses

        from prefzoo import lab

        def gold(pair: dict[str, Any], reply: str) -> float:
            return lab.gold(pair["prompt"][-1]["content"], pair[reply][0]["content"])

        def ordered(pair: dict[str, Any]) -> dict[str, Any]:
            if gold(pair, "chosen") >= gold(pair, "rejected"):
                return pair
            return {**pair, "chosen": pair["rejected"], "rejected": pair["chosen"]}

        data = dataclasses.replace(bench.data, preferences=[ordered(pair) for pair in bench.data.preferences])
        return prefzoo.get("dpo").train(bench.replace(data=data))
