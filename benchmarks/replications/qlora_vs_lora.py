"""QLoRA beside LoRA in the lab: how much gold reward a base in 4 bits costs (Dettmers et al. 2023,
https://arxiv.org/abs/2305.14314, found none lost on benchmarks of large models).

One comparison: the same start, rows, reward model and seeds; each algorithm trains a LoRA adapter once on the start as
it is and once on the start in NF4. `start-qlora` is the start in NF4 with nothing trained on it (a learning rate of 0),
which tells what quantization alone costs.

    python benchmarks/replications/qlora_vs_lora.py      # some 20 minutes on 4 busy cores
"""

# The annotations below are no texts: a class of a script travels to the trials' processes by value, without what only
# a text names.
import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any, ClassVar, Literal

import prefzoo
from prefzoo import Algorithm, Bench, Policy, lab
from prefzoo.models.policy_kinds import POLICY_FILE
from prefzoo.results.results_schema import Results
from prefzoo.run.evaluation_records import read_records
from prefzoo.settings import Adapter, Generation

ALGORITHMS: dict[str, dict[str, Any]] = {"dpo": {"beta": 0.5}, "grpo": {}}
"""Their settings; `beta` is quickstart's: with the default, DPO goes so far from the start that seeds disagree."""
LOSS = 0.2
"""Gold reward that QLoRA may lose."""


@prefzoo.register("with_adapter")
@dataclass(frozen=True)
class WithAdapter(Algorithm):
    """An algorithm with an adapter of its own type, where a recipe has one for all.

    Attributes:
        learner: the algorithm.
        type: `lora`, or `qlora` in NF4; all else of the adapter is the recipe's.
        settings: the algorithm's own.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"preferences", "prompts", "reward"})

    learner: str = "dpo"
    type: Literal["lora", "qlora"] = "lora"
    settings: dict[str, Any] = field(default_factory=dict)

    def train(self, bench: Bench) -> Policy:
        adapter = Adapter(**{**bench.adapter.model_dump(exclude_unset=True), "type": self.type})
        loading = {**bench.loading, "quantization": adapter.quantization}
        return prefzoo.get(self.learner, **self.settings).train(bench.replace(adapter=adapter, loading=loading))


def recipe(algorithms: Mapping[str, dict[str, Any]], prompts: int, data_seed: int = 0) -> dict[str, Any]:
    """A label for each algorithm with each adapter, and one for the start in NF4."""
    labels: dict[str, dict[str, Any]] = {
        f"{name}-{kind}": {"learner": name, "type": kind, "settings": settings}
        for name, settings in algorithms.items()
        for kind in ("lora", "qlora")
    }
    labels["start-qlora"] = {"learner": "sft", "type": "qlora", "settings": {"trainer": {"learning_rate": 0.0}}}
    return {
        "extends": "base",
        "data": {"seed": data_seed},
        "budget": {"prompts": prompts},
        "tracking": {"wandb": {"mode": "disabled"}},
        "algorithms": {label: {"algorithm": "with_adapter", **settings} for label, settings in labels.items()},
    }


def lost(found: Results) -> dict[str, dict[str, Any]]:
    """Of each algorithm, and of the start: gold with LoRA and with QLoRA, and by how much the second is lower, paired
    by seed and prompt. Of the start, `lora` is the start as it is.

    Raises:
        RuntimeError: when a trial failed.
    """
    failed = {name: each.error for name, each in found.algorithms.items() if each.status != "ok"}
    if failed:
        raise RuntimeError(f"not all trials were trained: {failed}")
    rows = {}
    for quantized in [name for name in found.algorithms if name.endswith("-qlora")]:
        name = quantized.removesuffix("-qlora")
        plain = "start" if name == "start" else f"{name}-lora"
        pair = next(v for v in found.verdicts if v.metric == "gold" and {v.a, v.b} == {plain, quantized})
        sign = 1 if pair.a == plain else -1
        row: dict[str, Any] = {"loss": sign * pair.difference, "ci95": sorted(sign * bound for bound in pair.ci95)}
        for kind, label in (("lora", plain), ("qlora", quantized)):
            each = found.algorithms[label]
            row[kind] = {metric: each.summary[metric].mean for metric in ("gold", "proxy", "kl")}
            row[kind]["gold_by_seed"] = [trial.metrics["gold"] for trial in each.seeds.values()]
        rows[name] = row
    return rows


def on_the_other_base(found: Results, out: Path) -> dict[str, list[float]]:
    """Mean gold of each trained policy, a seed each, when its adapter is put on the base that it was not trained on: a
    LoRA adapter on the start in NF4, and a QLoRA adapter on the start as it is (which is what `export` merges)."""
    from prefzoo.models.language_model import LanguageModelPolicy

    generation = Generation(**found.recipe["generation"])
    gold: dict[str, list[float]] = {}
    for label, each in found.algorithms.items():
        if label.startswith("start"):
            continue
        other = Adapter(type="lora" if label.endswith("-qlora") else "qlora")
        gold[label] = []
        for seed, trial in each.seeds.items():
            folder = out / str(trial.policy)
            noted = json.loads((folder / POLICY_FILE).read_text())
            noted["loading"]["quantization"] = other.quantization
            policy = LanguageModelPolicy.load(folder, str((folder / noted["start"]).resolve()), noted)
            prompts = [record["prompt"] for record in read_records((out / trial.replies).parent)]
            drawn = policy.sample(prompts, generation, seed=10_000 + int(seed))  # as they were evaluated
            gold[label].append(mean(lab.gold(p[-1]["content"], r.text) for p, (r,) in zip(prompts, drawn, strict=True)))
    return gold


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--prompts", type=int, default=480)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--out", type=Path, default=Path("runs/qlora_vs_lora"))
    arguments = parser.parse_args()
    found = prefzoo.compare(
        recipe(ALGORITHMS, arguments.prompts), seeds=arguments.seeds, out=arguments.out, workers=arguments.workers
    )
    rows = lost(found)
    content = {
        "lost": rows,
        "on_the_other_base": on_the_other_base(found, arguments.out),
        "recipe": found.recipe,
        "versions": found.versions,
    }
    (arguments.out / "qlora_vs_lora.json").write_text(json.dumps(content, indent=1), encoding="utf-8")
    print(f"{'':8}{'LoRA':>8}{'QLoRA':>8}{'lost':>8}  95%")
    for name, row in rows.items():
        low, high = row["ci95"]
        line = f"{name:8}{row['lora']['gold']:8.2f}{row['qlora']['gold']:8.2f}{row['loss']:8.2f}"
        print(f"{line}  {low:.2f} to {high:.2f}{'' if row['loss'] <= LOSS else f'  above {LOSS}'}")


if __name__ == "__main__":
    main()
