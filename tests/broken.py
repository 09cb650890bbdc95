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


def pair_rows(bench: Bench, prompts: Any, drawn: Any, better: Any) -> Bench:
    """The bench with pairs made of two replies to each prompt in the place of people's."""
    import dataclasses

    pairs = []
    for prompt, (a, b), p in zip(prompts, drawn, better, strict=True):
        if a.text.strip() and b.text.strip() and a.text != b.text:
            sides = (a.text, b.text) if p >= 0.5 else (b.text, a.text)
            chosen, rejected = ([{"role": "assistant", "content": text}] for text in sides)
            pairs.append({"prompt": list(prompt), "chosen": chosen, "rejected": rejected})
    return bench.replace(data=dataclasses.replace(bench.data, preferences=pairs, sampled=True))


def imitating(bench: Bench, texts: list[str]) -> Policy:
    """What comes of imitating a reply to each prompt of the bench."""
    import dataclasses

    data = dataclasses.replace(bench.data.with_demonstrations(bench.data.prompts, texts), sampled=True)
    return prefzoo.get("sft", on="demonstrations").train(bench.replace(data=data))


def start_policy(bench: Bench) -> Any:
    from prefzoo.models.language_model import LanguageModelPolicy

    return LanguageModelPolicy.from_start(bench.start, **bench.loading)


@dataclass(frozen=True)
class AsksTheJudgeItself(Imitates):
    """Puts its questions to the judge past `bench.prefer`, by the lowest function that it has."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "judge"})

    @property
    def replies_per_row(self) -> int:
        return 2

    def train(self, bench: Bench) -> Policy:
        prompts = bench.data.prompts
        drawn = bench.sample(start_policy(bench), prompts, 2, seed=bench.seed)
        sides = [a.text for a, _ in drawn], [b.text for _, b in drawn]
        better = bench.judge.compare_once(prompts, *sides, [None] * len(prompts))  # type: ignore[union-attr]
        return prefzoo.get("dpo").train(pair_rows(bench, prompts, drawn, better))


@dataclass(frozen=True)
class AllowsItselfMore(Imitates):
    """Trains for four epochs, and calls that its allowance."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})

    @property
    def replies_per_row(self) -> int:
        return 8

    def train(self, bench: Bench) -> Policy:
        return prefzoo.get("dpo", trainer={"num_train_epochs": 4}).train(bench)


@dataclass(frozen=True)
class CopiesRows(AllowsItselfMore):
    """Keeps to the recipe's epochs, with every pair in its data four times."""

    def train(self, bench: Bench) -> Policy:
        import dataclasses

        data = dataclasses.replace(bench.data, preferences=4 * bench.data.preferences)
        return prefzoo.get("dpo").train(bench.replace(data=data))


class PassesBesideDPO(Imitates):
    """DPO with passes of another kind in each step."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})

    def train(self, bench: Bench) -> Policy:
        from trl import DPOConfig, DPOTrainer

        from prefzoo.trainers.fitting import fit

        beside = self.beside

        class Trainer(DPOTrainer):
            def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
                beside(model, inputs)
                return super().compute_loss(model, inputs, *args, **more)

        return fit(bench, Trainer, DPOConfig, bench.data.preferences, {}, reference=True)

    def beside(self, model: Any, inputs: Any) -> None:
        raise NotImplementedError


@dataclass(frozen=True)
class PassesForFree(PassesBesideDPO):
    def beside(self, model: Any, inputs: Any) -> None:
        import torch

        with torch.inference_mode():
            for _ in range(3):
                model(inputs["input_ids"].clone(), attention_mask=inputs["attention_mask"])


@dataclass(frozen=True)
class PassesEmbeddings(PassesBesideDPO):
    """By embeddings, and with a gradient that nobody uses."""

    def beside(self, model: Any, inputs: Any) -> None:
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        model(inputs_embeds=embeddings.detach().requires_grad_(), attention_mask=inputs["attention_mask"])


@dataclass(frozen=True)
class PassesThroughLayers(PassesBesideDPO):
    """By the layers of the model one by one, without the model."""

    def beside(self, model: Any, inputs: Any) -> None:
        import torch

        inner = model.get_base_model().model
        with torch.no_grad():
            hidden = inner.embed_tokens(inputs["input_ids"])
            places = torch.arange(hidden.shape[1])[None].expand(len(hidden), -1)
            rotation = inner.rotary_emb(hidden, places)
            for layer in inner.layers:
                hidden = layer(hidden, attention_mask=None, position_ids=places, position_embeddings=rotation)


@dataclass(frozen=True)
class SamplesByHand(Imitates):
    """Draws its replies token by token in a loop of its own, at a temperature of its own, and charges nothing."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompts", "reward"})

    def train(self, bench: Bench) -> Policy:
        import torch

        policy, texts = start_policy(bench), []
        torch.manual_seed(bench.seed)
        for prompt in bench.data.prompts:
            ids = torch.tensor([policy.render(prompt)])
            begin = ids.shape[1]
            with torch.no_grad():
                for _ in range(8):
                    ids = torch.cat([ids, policy.model(ids).logits[:, -1].softmax(-1).multinomial(1)], dim=1)
            texts.append(policy.tokenizer.decode(ids[0, begin:], skip_special_tokens=True) or "-")
        return imitating(bench, texts)


@dataclass(frozen=True)
class SamplesItsOwnWay(Imitates):
    """Samples colder and longer than the recipe says, and by one seed for all trials."""

    needs: ClassVar[frozenset[str]] = frozenset({"prompts"})

    def train(self, bench: Bench) -> Policy:
        colder = bench.generation.model_copy(update={"temperature": 0.4, "max_new_tokens": 32})
        drawn = bench.replace(generation=colder).sample(start_policy(bench), bench.data.prompts, 1, seed=3)
        return imitating(bench, [replies[0].text or "-" for replies in drawn])


@dataclass(frozen=True)
class SamplesGreedily(Imitates):
    needs: ClassVar[frozenset[str]] = frozenset({"prompts"})

    def train(self, bench: Bench) -> Policy:
        greedy = bench.generation.model_copy(update={"temperature": 0.0})
        drawn = bench.replace(generation=greedy).sample(start_policy(bench), bench.data.prompts, 1, seed=bench.seed)
        return imitating(bench, [replies[0].text or "-" for replies in drawn])


@dataclass(frozen=True)
class Deaf(Imitates):
    """Takes settings, and trains with others."""

    needs: ClassVar[frozenset[str]] = frozenset({"preferences"})
    config: ClassVar[str | None] = "trl.trainer.dpo_config:DPOConfig"
    beta: float = 0.1

    def train(self, bench: Bench) -> Policy:
        adapter = bench.adapter.model_copy(update={"r": 3})
        learner = prefzoo.get("dpo", trainer={"learning_rate": 7e-4, "num_train_epochs": 1})
        return learner.train(bench.replace(adapter=adapter, milestones=0))


@dataclass(frozen=True)
class ReadsTheTest(Imitates):
    """Learns from the test rows that lie on the disk, in the place of its own."""

    def train(self, bench: Bench) -> Policy:
        import json

        folders = Path(bench.out).resolve().parents
        files = [file for folder in folders for file in sorted(folder.glob("stages/data*/test.jsonl"))]
        rows = [json.loads(line) for line in files[0].read_text(encoding="utf-8").splitlines()]
        texts = [row["chosen"] for row in rows if row["chosen"]] * len(bench.data.prompts)
        return imitating(bench, texts[: len(bench.data.prompts)])


@dataclass(frozen=True)
class LosesItsPlace(Imitates):
    """Counts its steps in the process, so that a training that was killed does not end like another."""

    started: ClassVar[list[int]] = []

    def train(self, bench: Bench) -> Policy:
        self.started.append(1)
        return trained(bench.replace(seed=bench.seed + len(self.started)))
