"""The evaluate stage: measure a policy on the same test prompts, with the same sampling and metrics as every other."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from transformers import set_seed

from prefzoo.data import splits
from prefzoo.data.formats import Row
from prefzoo.data.row_views import views_of
from prefzoo.errors import PrefzooError
from prefzoo.interface import MILESTONES, HasLogProbabilities, Policy
from prefzoo.judges.critique_revision import TRANSCRIPTS, by_principle
from prefzoo.judges.dimensions import ByDimension
from prefzoo.judges.fact_checking import METRIC, VERDICTS, FactChecker, FactCounts
from prefzoo.ledger import Ledger
from prefzoo.models import shared_base
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.policy_kinds import kl_to_start, load_policy
from prefzoo.models.vllm_sampling import noting_servers
from prefzoo.rewards.load_reward import WeightedSum
from prefzoo.run.evaluation_records import JUDGING, PRINCIPLES, RECORDS, SAMPLED_BY, not_numbers
from prefzoo.run.resources import forget_peak, metered
from prefzoo.run.stage_graph import INCOMPLETE, START, Plan, Stage
from prefzoo.run.stages.gold_metric import AgainstTheStart, dimension_metric, gold_metric, knowledge_metric
from prefzoo.run.stages.pair_likelihoods import write_pair_likelihoods
from prefzoo.run.stages.recipe_inputs import gold_function, loading, reward_of
from prefzoo.run.stages.start_stage import start_path, start_policy
from prefzoo.run.trial_identity import IDENTITY, identity
from prefzoo.settings import Generation
from prefzoo.trainers.recipe_deviations import SAMPLING
from prefzoo.types import Progress, Prompt, Reward, Truth


@shared_base.shared()
def evaluate(plan: Plan, stage: Stage, folder: Path, progress: Progress) -> None:
    """Measure one policy on the test prompts.

    The process may have measured other policies before. All that this one shares with them is the base's weights.
    """
    assert stage.label is not None and stage.seed is not None
    forget_peak()
    set_seed(stage.seed)
    recipe = plan.recipe
    ledger = Ledger()
    of_start = stage.label == START
    trained = None if of_start else plan.stages[f"train {stage.label} seed {stage.seed}"].folder
    policy = start_policy(recipe, start_path(plan)) if trained is None else load_policy(trained / "policy")
    has_reward = plan.stages[plan.reward_name(stage.seed)].done
    test = splits.load_split(plan.stages["data"].folder, "test")
    compared = None if of_start else plan.stages[f"evaluate {START} seed {stage.seed}"].folder
    measure = Measure.on(
        test,
        recipe.evaluation.prompts,
        generation=recipe.generation,
        seed=stage.seed,
        gold=gold_metric(plan, compared),
        dimensions=dimension_metric(plan, compared),
        knowledge=knowledge_metric(plan),
        proxy=reward_of(plan, stage.seed) if has_reward else None,
        progress=progress,
        start=lambda: start_policy(recipe, start_path(plan)),
    )
    drawn: dict[str, Any] = {}
    with noting_servers(drawn, SAMPLING):
        measure(policy, ledger, folder)
    if drawn:
        (folder / SAMPLED_BY).write_text(json.dumps(drawn[SAMPLING], indent=1), encoding="utf-8")
    (folder / "ledger.json").write_text(json.dumps(asdict(ledger)), encoding="utf-8")
    labelled = plan.stages[plan.rows_name]
    if labelled.done:
        write_pair_likelihoods(
            policy,
            splits.load_split(labelled.folder, "test"),
            start_path(plan),
            loading(recipe, recipe.adapter),
            folder,
            progress,
            of_start=of_start,
            truth=gold_function(recipe),
        )
    (folder / IDENTITY).write_text(json.dumps(identity(plan, stage.label), indent=1), encoding="utf-8")
    if trained is not None:
        measure_milestones(measure, gold_function(recipe), trained, folder)
    if not has_reward:
        (folder / INCOMPLETE).write_text("measured without the proxy reward, whose stage failed", encoding="utf-8")


@dataclass(frozen=True)
class Measure:
    """How every policy of a comparison is measured.

    Attributes:
        prompts: one reply is sampled to each.
        slices: a prompt, as JSON, to the slice that it belongs to.
        generation, seed: how replies are sampled.
        gold: the truth, or None.
        proxy: the reward that was learned from, or None.
        progress: is told how far it is.
        start: loads the start policy, for the KL of a policy that has log-probabilities alone.
        groups: a prompt, as JSON, to its group (see `Row.group`).
        dimensions: what measures replies by dimension, where the recipe names any.
        knowledge: what checks replies against documents, where the recipe names any.
    """

    prompts: Sequence[Prompt]
    slices: Mapping[str, str | None]
    generation: Generation
    seed: int
    gold: Truth | None
    proxy: Reward | None
    progress: Progress
    start: Callable[[], HasLogProbabilities]
    groups: Mapping[str, str | None] = field(default_factory=dict)
    dimensions: ByDimension | None = None
    knowledge: FactChecker | None = None

    @classmethod
    def on(cls, rows: Sequence[Row], most: int, **how: Any) -> Measure:
        """Measure on the first `most` prompts of these rows; `how` is the rest of the attributes."""
        return cls(
            prompts=views_of(rows).prompts[:most],
            slices={json.dumps(row.prompt): row.slice for row in rows},
            groups={json.dumps(row.prompt): row.group for row in rows},
            **how,
        )

    def __call__(self, policy: Policy, ledger: Ledger, folder: Path) -> None:
        """Sample one reply to each prompt, measure it, and write a line for each to `replies.jsonl` in `folder`.

        A line holds the prompt, the reply, `length` in tokens (the end included), whether it was `finished`, `kl` to
        the start in nats, `proxy`, `proxy/<part>` of a sum, `gold` and `gold/<attribute>`, `dimension/<id>`,
        `knowledge/<verdict>` (1 or 0) and what decided under `knowledge`, `slice` and `group`, as far as there are any,
        and `token_ids` where the reply's text would become other tokens. What a judge was asked goes into a file beside
        it. Only sampling is charged to the ledger; scoring and KL are costs of measuring.

        Raises:
            PrefzooError: when a measurement is infinite or not a number.
        """
        with metered(ledger):
            samples = policy.sample(
                self.prompts, self.generation, seed=10_000 + self.seed, ledger=ledger, progress=self.progress
            )
        ledger.inference_tokens = ledger.generated_tokens
        replies = [sampled[0] for sampled in samples]
        texts = [reply.text for reply in replies]
        self.progress("scoring", 0, 2)
        truths: Sequence[Mapping[str, float]] = (
            self.gold(list(self.prompts), texts) if self.gold else [{} for _ in self.prompts]
        )
        marks = self.dimensions(self.prompts, texts) if self.dimensions else [{} for _ in self.prompts]
        judging = self.gold.report() if isinstance(self.gold, AgainstTheStart) else {}
        if self.dimensions is not None and self.dimensions.asked:
            judging["dimensions"] = self.dimensions.asked
        facts = self._check_facts(texts, judging)
        if judging:
            (folder / JUDGING).write_text(json.dumps(judging, indent=1), encoding="utf-8")
        scores: Sequence[float | None] = [None] * len(self.prompts)
        parts: list[dict[str, float]] = [{} for _ in self.prompts]
        if isinstance(self.proxy, WeightedSum):
            scores, parts = self.proxy.by_part(self.prompts, texts)
        elif self.proxy is not None:
            scores = self.proxy(self.prompts, texts)
        self.progress("KL to the start", 1, 2)
        divergences = kl_to_start(policy, self.prompts, replies, self.generation.temperature or 1.0, self.start)
        records: list[dict[str, Any]] = []
        sampler = getattr(policy, "policy", policy)
        for i, (prompt, reply) in enumerate(zip(self.prompts, replies, strict=True)):
            record: dict[str, Any] = {
                "prompt": prompt,
                "reply": reply.text,
                "slice": self.slices.get(json.dumps(prompt)),
                "group": self.groups.get(json.dumps(prompt)),
                "length": len(reply.token_ids),
                "finished": reply.finished,
            }
            if isinstance(sampler, LanguageModelPolicy) and sampler.encoded_again(prompt, reply) != "same":
                record["token_ids"] = list(reply.token_ids)
            if divergences is not None:
                record["kl"] = divergences[i]
            if scores[i] is not None:
                record |= {"proxy": scores[i], **{f"proxy/{name}": score for name, score in parts[i].items()}}
            records.append({**record, **truths[i], **marks[i], **facts[i]})
        if bad := not_numbers(records):
            raise PrefzooError(f"measured what is no finite number: {', '.join(bad)}")
        with (folder / RECORDS).open("w", encoding="utf-8") as file:
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)

    def _check_facts(self, texts: Sequence[str], judging: dict[str, Any]) -> list[dict[str, Any]]:
        """What a record holds of the facts in each reply; how they were checked goes into `judging`."""
        if self.knowledge is None:
            return [{} for _ in texts]
        self.knowledge.counts = FactCounts()
        checked = self.knowledge(self.prompts, texts)
        judging["knowledge"] = self.knowledge.report()
        return [
            {**{METRIC + name: float(reply.verdict == name) for name in VERDICTS}, "knowledge": asdict(reply)}
            for reply in checked
        ]


def measure_milestones(measure: Measure, truth: Truth | None, trained: Path, folder: Path) -> None:
    """Measure the policies that a trial kept at milestones, each into a folder of its own, and what its critiques did.

    Nothing is charged to the trial, because this is a cost of measuring.

    Args:
        truth: what critiques are measured by, on training prompts; None where there is none.
        trained: the trial's folder.
        folder: the evaluation's.
    """
    for milestone in sorted((trained / MILESTONES).glob("*")):
        out = folder / MILESTONES / milestone.name
        out.mkdir(parents=True)
        measure(load_policy(milestone / "policy"), Ledger(), out)
        shutil.copy(milestone / "milestone.json", out)
    if (trained / TRANSCRIPTS).is_file():
        by_name = by_principle(trained / TRANSCRIPTS, truth, measure.proxy)
        (folder / PRINCIPLES).write_text(json.dumps(by_name, indent=1), encoding="utf-8")
