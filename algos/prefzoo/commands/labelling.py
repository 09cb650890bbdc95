"""`prefzoo label`: what is asked for, and the items of a run or a file."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

from prefzoo.data.rejects import Rejects
from prefzoo.errors import PrefzooError, unknown
from prefzoo.feedback.choose_next import RULES
from prefzoo.feedback.feedback_types import KINDS, Item
from prefzoo.feedback.read_items import items_of_file, make_items
from prefzoo.feedback.store import FeedbackStore
from prefzoo.feedback.stored_records import is_store
from prefzoo.judges import dimensions
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START, Plan, load_plan

TASKS = tuple(kind for kind in KINDS if kind != "thumb")
RULES_OF = {"uniform": TASKS, "uncertain": ("compare",), "disagreement": ("compare", "rank", "rate")}
"""Rule -> the tasks for which it can be asked. Items of an A/B test are drawn uniformly: all count alike."""


@dataclass(frozen=True)
class LabelRequest:
    """What is asked about, and how; attributes are the options of `prefzoo label`."""

    source: Path
    task: str | None = None
    policies: Sequence[str] | None = None
    gold: Path | None = None
    rule: str = "uniform"
    overlap: float = 0.2
    dimensions: Sequence[str] | None = None
    store: Path | None = None

    @property
    def of_run(self) -> bool:
        """Whether the source is the folder of a comparison."""
        return self.source.is_dir()

    @property
    def of_store(self) -> bool:
        """Whether the source is itself a file of questions and answers, which is asked from as it is."""
        return is_store(str(self.source))

    @property
    def kind(self) -> str:
        """The task: that which was asked for, else an A/B test of a run, and comparisons of a file."""
        return self.task or ("ab" if self.of_run else "compare")

    @property
    def file(self) -> Path:
        """Where answers are kept: in the run's folder, or beside the data."""
        if self.of_store:
            return self.source
        inside = self.source / "labels.sqlite"
        return self.store or (inside if self.of_run else self.source.with_name(f"{self.source.name}.labels.sqlite"))


def check_request(request: LabelRequest) -> None:
    """Raise PrefzooError for everything that is wrong with the options, before anything is written."""
    problems = []
    if not request.source.exists():
        problems.append(f"{request.source}: there is neither such a folder of a run nor such a file")
    if request.kind not in TASKS:
        problems.append(f"--task: {unknown('task', request.kind, TASKS)}")
    if request.rule not in RULES:
        problems.append(f"--next: {unknown('rule', request.rule, RULES)}")
    elif request.kind in TASKS and request.kind not in RULES_OF[request.rule]:
        tasks = ", ".join(RULES_OF[request.rule])
        problems.append(f"--next {request.rule}: for --task {tasks}, not for {request.kind}")
    if request.gold is not None and request.kind not in ("compare", "ab"):
        problems.append(f"--gold: for --task compare and ab, not for {request.kind}")
    if request.kind == "ab" and not request.of_run:
        problems.append("--task ab: compares the policies of a run; give the folder of one, or --task compare")
    if request.of_store and request.store is not None:
        problems.append("--store: the source is a file of questions and answers itself; leave one of the two out")
    if request.policies is not None and not request.of_run:
        problems.append("--policies: names labels of a run, and the source is a file")
    if not 0 <= request.overlap <= 1:
        problems.append(f"--overlap: a share from 0 to 1 (got {request.overlap:g})")
    names = request.dimensions
    if names is not None and (not names or len(set(names)) < len(names) or len(names) > 20):
        problems.append("--dimensions: 1 to 20 different names")
    if problems:
        raise PrefzooError("\n".join(problems))


def open_store(request: LabelRequest) -> tuple[FeedbackStore, list[str]]:
    """The file of answers with the items that are asked about, and sentences on what it holds and what was left out."""
    check_request(request)
    store = FeedbackStore(request.file)
    items: list[Item] = []
    notes: list[str] = []
    if request.of_store:
        asked = [item for item in store.items(request.kind) if item.gold is None]
        done = {answer.item_id for answer in store.answers(request.kind)}
        notes = [f"Answered are {sum(item.item_id in done for item in asked)} of {len(asked)} items."]
    elif request.of_run:
        items, notes = _items_of_run(load_plan(request.source), request, store)
    else:
        items, dropped = items_of_file(str(request.source), request.kind, store.item_id)
        notes = _dropped_notes(request.source, dropped)
    if request.gold is not None:
        checks, dropped = items_of_file(str(request.gold), request.kind, store.item_id, gold=True)
        items += checks
        notes += [f"{len(checks)} gold questions.", *_dropped_notes(request.gold, dropped)]
    if request.rule == "uncertain" and all(
        item.uncertainty is None for item in (store.items() if request.of_store else items)
    ):
        raise PrefzooError(
            "--next uncertain: no reward scored these replies; it needs a run with a learned reward, or a file with a "
            "column 'uncertainty' from 0 to 1"
        )
    added = store.add_items(items)
    for key, value in (("rule", request.rule), ("overlap", str(request.overlap))):
        store.setting(key, value)
    store.setting("kinds", json.dumps([request.kind]))
    return store, [f"{len(items)} items for {request.kind!r}, {added} of them new, in {request.file}.", *notes]


def dimensions_of(request: LabelRequest) -> Sequence[str] | None:
    """In what a reply is rated: as asked for; else what the run's recipe names under `data.attributes`, or measures by
    `evaluation.dimensions`; None where nothing names any."""
    if request.dimensions is not None or not request.of_run:
        return request.dimensions
    recipe = load_plan(request.source).recipe
    if recipe.data.attributes or recipe.evaluation.dimensions is None:
        return recipe.data.attributes or None
    return [dimension.id for dimension in dimensions.load(recipe.evaluation.dimensions).dimensions]


def _dropped_notes(source: Path, dropped: Rejects) -> list[str]:
    """Sentences on the records that could not be used."""
    return [
        f"{source}: {count} records are not shown: {reason} (first: {dropped.places()[reason][0]})."
        for reason, count in dropped.counts().items()
    ]


def _items_of_run(plan: Plan, request: LabelRequest, store: FeedbackStore) -> tuple[list[Item], list[str]]:
    """Items of the replies to a run's test prompts; of several seeds, each prompt has one, drawn by chance."""
    labels = (START, *plan.recipe.algorithms)
    policies = list(dict.fromkeys(request.policies or labels))
    if wrong := [name for name in policies if name not in labels]:
        raise PrefzooError("\n".join(f"--policies: {unknown('policy', name, labels)}" for name in wrong))
    if request.kind == "ab" and START not in policies:
        policies.insert(0, START)
    if len(policies) < 2 and request.kind in ("ab", "compare", "rank"):
        raise PrefzooError(f"--policies: {request.kind!r} needs two policies or more, and there is {policies[0]}")
    kept: dict[int, dict[str, list[dict[str, Any]]]] = {}
    folders = []
    for seed in plan.recipe.seeds:
        for label in policies:
            stage = plan.stages[f"evaluate {label} seed {seed}"]
            if stage.done:
                folders.append(stage.folder.name)
                kept.setdefault(seed, {})[label] = read_records(stage.folder)
    missing = [label for label in policies if not any(label in of_seed for of_seed in kept.values())]
    if missing:
        raise PrefzooError(f"{plan.out}: {', '.join(missing)}: no evaluation finished; compare again, or leave it out")
    _refuse_others(store, folders, plan)
    items, same = [], 0
    for place in range(min(len(records) for of_seed in kept.values() for records in of_seed.values())):
        whole = [seed for seed in sorted(kept) if set(policies) <= kept[seed].keys()] or sorted(kept)
        seed = whole[int(store.item_id("seed", place), 16) % len(whole)]
        replies = {label: records[place] for label, records in kept[seed].items()}
        for group in _groups(request.kind, list(replies)):
            where = f"seed {seed} test prompt {place + 1}"
            texts = [(str(replies[label]["reply"]), label) for label in group]
            prompt = replies[group[0]]["prompt"]
            if any(replies[label]["prompt"] != prompt for label in group):
                raise PrefzooError(f"{plan.out}: {', '.join(group)}: their test prompts differ; compare again")
            found = list(make_items(request.kind, prompt, texts, where, store.item_id))
            same += not found
            items += [replace(item, uncertainty=_uncertainty([replies[label] for label in group])) for item in found]
    if not items:
        raise PrefzooError(
            f"{plan.out}: the replies of {', '.join(policies)} are all the same; there is nothing to ask"
        )
    notes = [f"{same} pairs of replies are the same text, and are not shown."] if same else []
    items.sort(key=lambda item: item.item_id)  # an order that tells nothing
    return items, notes


def _groups(kind: str, labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Of whose replies an item is made: the start beside each other policy, each two, all, or each alone."""
    if kind == "ab":
        return [(START, label) for label in labels if label != START and START in labels]
    if kind == "compare":
        return list(combinations(labels, 2))
    return [tuple(labels)] if kind == "rank" else [(label,) for label in labels]


def _uncertainty(records: Sequence[Mapping[str, Any]]) -> float | None:
    """How unsure a Bradley-Terry reward is of two replies: 4 p (1 - p), p being P(the first is better)."""
    scores = [float(record["proxy"]) for record in records if record.get("proxy") is not None]
    if len(scores) != 2:
        return None
    return 1 / math.cosh(min(abs(scores[0] - scores[1]), 700.0) / 2) ** 2


def _refuse_others(store: FeedbackStore, folders: Sequence[str], plan: Plan) -> None:
    """Refuse a file with answers on policies that the run has no longer: their names would be mistaken for these."""
    known = set(json.loads(store.setting("evaluations") or "[]"))
    current = {stage.folder.name for stage in plan.stages.values()}
    if known - current:
        raise PrefzooError(
            f"{store.path} holds feedback on policies that {plan.out} has no longer, since it was trained again with "
            "other settings; keep it, and give another file (--store)"
        )
    store.setting("evaluations", json.dumps(sorted(known | set(folders))))
