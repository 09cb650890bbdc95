"""Win rates by people's answers about some test replies, joined with a judge's verdicts on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np

from prefzoo.data.agreement import clustered_wilson, vote_agreement
from prefzoo.errors import PrefzooError, with_full_stop
from prefzoo.results import statistics
from prefzoo.results.analysis import ALL, PromptGroups, Tables, primary_metric
from prefzoo.results.human_answers import ComparedPair, HumanAnswers, read_answers
from prefzoo.results.human_schema import Agreement, Human, HumanPair, SoFar, WinRate
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START, Plan
from prefzoo.views import prompt_key

Labels = tuple[str, str]
Cell = tuple[int, int]
"""The place of a training and of a test prompt in a table."""
STEPS = 6
"""Numbers of answers for which it is shown what they alone would have given."""


@dataclass(frozen=True)
class RunReplies:
    """Every policy's replies to the test prompts.

    Attributes:
        prompts: key of a prompt -> its places.
        texts: label -> (seeds x prompts) replies.
    """

    prompts: Mapping[str, Sequence[int]]
    texts: Mapping[str, Sequence[Sequence[str]]]

    @classmethod
    def of(cls, plan: Plan, labels: Sequence[str]) -> RunReplies:
        """Read those of a run."""
        records = {
            label: [read_records(plan.stages[f"evaluate {label} seed {seed}"].folder) for seed in plan.recipe.seeds]
            for label in labels
        }
        prompts: dict[str, list[int]] = {}
        for place, record in enumerate(records[labels[0]][0]):
            prompts.setdefault(prompt_key(record["prompt"]), []).append(place)
        texts = {label: [[r["reply"] for r in of_seed] for of_seed in seeds] for label, seeds in records.items()}
        return cls(prompts, texts)

    def cells(self, pair: ComparedPair, labels: Labels) -> list[Cell]:
        """Where these two policies gave these two replies."""
        a, b = (self.texts[label] for label in labels)
        return [
            (seed, place)
            for place in self.prompts.get(pair.prompt, ())
            for seed in range(len(a))
            if {a[seed][place], b[seed][place]} == {*pair.replies}
        ]


def human_win_rates(plan: Plan, tables: Mapping[str, Tables], groups: PromptGroups) -> Human | None:
    """Join what people answered with the metric that decides; None where the recipe names no answers.

    What cannot be read is a `problem` in the result: numbers that do not depend on it are reported all the same.
    """
    path = plan.recipe.evaluation.human
    metric = primary_metric(tables)
    if path is None or metric is None:
        return None
    human = Human(file=path, instrument="judge" if plan.recipe.final_judge is not None else metric)
    if not Path(path).is_file():
        return human.model_copy(update={"problem": "there is no such file yet"})
    try:
        answers = read_answers(Path(path))
    except PrefzooError as error:
        return human.model_copy(update={"problem": str(error)})
    scores = {label: of_label[metric] for label, of_label in tables.items() if metric in of_label}
    ordered = sorted(scores, key=lambda label: label == START)  # so that the start is the second of a pair
    replies = RunReplies.of(plan, ordered)
    assigned = assign(answers, replies)
    results = [
        joined(labels, pairs, replies, scores, groups.get(ALL), [str(seed) for seed in plan.recipe.seeds])
        for labels, pairs in assigned.items()
        if any(pair.votes for pair in pairs)
    ]
    used = [pair for pairs in assigned.values() for pair in pairs if pair.votes]
    return human.model_copy(
        update={
            "sha256": answers.sha256,
            "answers": answers.answers,
            "used": sum(len(pair.votes) for pair in used),
            "unused": dict(answers.unused),
            "weighting": answers.weighting,
            "annotators": vote_agreement([pair.votes for pair in used]) if used else {},
            "pairs": [result for result in results if result is not None],
        }
    )


def human_notes(human: Human | None) -> list[str]:
    """Return what a reader must know of answers that could not be used."""
    if human is None:
        return []
    if human.problem is not None:
        return [with_full_stop(f"People's answers are not in this report: {human.file}: {human.problem}")]
    if human.answers and not human.used:
        why = ", ".join(f"{count}: {reason}" for reason, count in human.unused.items())
        return [f"None of the {human.answers} answers in {human.file} is about the test replies of this run ({why})."]
    return [] if human.answers else [f"Nobody has answered anything in {human.file} yet."]


def assign(answers: HumanAnswers, replies: RunReplies) -> dict[Labels, list[ComparedPair]]:
    """Give each pair of replies to the two policies that it is of; answers of none are counted in `answers.unused`.

    Where the answers do not say whose replies they are, and several policies gave the same ones, it is the two policies
    that most answers may be about: it was for them that replies were drawn, and not for those that happen to say the
    same.
    """
    every = list(combinations(replies.texts, 2))
    candidates: list[tuple[ComparedPair, list[Labels]]] = []
    for pair in answers.pairs:
        named = [labels for labels in every if set(labels) == set(pair.policies)]
        if len(set(pair.replies)) == 1:
            fitting, reason = [], "both replies are the same"
        else:
            fitting = [labels for labels in named or every if replies.cells(pair, labels)]
            known = pair.prompt in replies.prompts
            reason = "other replies to a test prompt" if known else "a prompt that is no test prompt"
        if fitting:
            candidates.append((pair, fitting))
        elif pair.votes:
            answers.unused[reason] += len(pair.votes)
    counts = Counter(labels for pair, fitting in candidates if pair.votes for labels in fitting)
    assigned: dict[Labels, list[ComparedPair]] = {}
    for pair, fitting in candidates:
        assigned.setdefault(max(fitting, key=lambda labels: counts[labels]), []).append(pair)
    return {labels: assigned[labels] for labels in every if labels in assigned}


def joined(
    labels: Labels,
    pairs: Sequence[ComparedPair],
    replies: RunReplies,
    scores: Mapping[str, np.ndarray],
    groups: statistics.Groups,
    seeds: Sequence[str],
) -> HumanPair | None:
    """Return the win rates of the first policy over the second; None where no reply that counts was answered.

    Args:
        pairs: those that people answered in the order of their answers, and those that they could be asked about.
        scores: (seeds x prompts) tables by label; the higher one wins.
    """
    a, b = (replies.texts[label] for label in labels)
    people, weights, order = answer_table(labels, pairs, replies)
    rows = np.flatnonzero(~np.isnan(people).all(1))
    people, weights, order = people[rows], weights[rows], order[rows]
    same = np.array([[x == y for x, y in zip(a[seed], b[seed], strict=True)] for seed in rows.tolist()])
    known = np.where(same, 0.5, np.nan)
    judge = statistics.wins(*(scores[label][rows] for label in labels))

    def estimated(answers: np.ndarray) -> statistics.PredictionPowered:
        some = ~np.isnan(answers).all(1)
        return statistics.prediction_powered(judge[some], answers[some], weights[some], groups, known[some])

    found = estimated(people)
    ranks = np.unique(order[~np.isnan(people)])
    so_far = []
    for count in sorted({round(len(ranks) * (step + 1) / STEPS) for step in range(STEPS)} - {0}):
        early = estimated(np.where(order <= ranks[count - 1], people, np.nan))
        so_far.append(
            SoFar(
                answered=early.answered,
                people=_rate(early.people, early.people_here),
                joined=_rate(early.joined, early.joined_here),
            )
        )
    votes = [vote for pair in pairs for vote in pair.votes]
    of_judge = statistics.group_means(judge, groups)
    by_seeds = statistics.proportion(statistics.estimate(of_judge), of_judge)
    means = of_judge.mean(0, keepdims=True)
    return HumanPair(
        a=labels[0],
        b=labels[1],
        seeds=[seeds[row] for row in rows.tolist()],
        replies=judge.size,
        same_replies=int(same.sum()),
        answered=found.answered,
        answers=len(votes),
        ties=sum(vote.choice is None for vote in votes),
        both_bad=sum(pair.both_bad for pair in pairs),
        judge=_rate(by_seeds, statistics.proportion(statistics.estimate(means), means)),
        people=_rate(found.people, found.people_here),
        joined=_rate(found.joined, found.joined_here),
        agreement=agreement(judge, people, groups),
        correlation=found.correlation,
        slope=found.slope,
        worth=found.worth,
        so_far=so_far,
    )


def answer_table(
    labels: Labels, pairs: Sequence[ComparedPair], replies: RunReplies
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (seeds x prompts) tables: the share of people who prefer the first policy's reply, NaN where nobody
    answered; what each stands for; and the place of the answer in their order.

    Where policies gave the same replies with several seeds, and people could be asked about these only once, the answer
    stands for all of them; where they could be asked as often, each stands for one.
    """
    texts = replies.texts[labels[0]]
    people = np.full((len(texts), len(texts[0])), np.nan)
    weights, order = np.ones_like(people), np.full(people.shape, len(pairs))
    alike: dict[Any, list[int]] = {}
    for place, pair in enumerate(pairs):
        alike.setdefault((pair.prompt, frozenset(pair.replies)), []).append(place)
    for places in alike.values():
        cells = replies.cells(pairs[places[0]], labels)
        for i, (seed, prompt) in enumerate(cells):
            of_cell = [p for j, p in enumerate(places) if i % len(places) == j or j % len(cells) == i]
            answered = [p for p in of_cell if pairs[p].votes]
            if answered:
                first = [pairs[p].replies[0] == texts[seed][prompt] for p in answered]
                values = [
                    0.5 if vote.choice is None else float((vote.choice == 0) == is_first)
                    for p, is_first in zip(answered, first, strict=True)
                    for vote in pairs[p].votes
                ]
                people[seed, prompt] = np.mean(values)
                weights[seed, prompt] = np.mean([pairs[p].weight for p in answered])
                order[seed, prompt] = answered[0]
    return people, weights, order


def agreement(judge: np.ndarray, people: np.ndarray, groups: statistics.Groups) -> Agreement | None:
    """Return how often both prefer the same reply, where both prefer one."""
    both = ~np.isnan(people) & (people != 0.5) & (judge != 0.5)
    if not both.any():
        return None
    same = ((people > 0.5) == (judge > 0.5))[both].astype(float).tolist()
    clusters = np.arange(judge.shape[1]) if groups is None else groups
    ends = clustered_wilson(same, np.broadcast_to(clusters, judge.shape)[both].tolist())
    return Agreement(share=float(np.mean(same)), ci95=ends, count=len(same))


def _rate(both: statistics.Estimate, here: statistics.Estimate) -> WinRate:
    return WinRate(mean=both.mean, ci95=(both.low, both.high), ci95_of_prompts=(here.low, here.high))
