"""Win rates by people's answers about some test replies, joined with a judge's verdicts on all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

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
LABELS_FILE = "labels.sqlite"
"""Where `prefzoo label RUN` keeps answers, in the run's folder."""
STEPS = 6
"""Numbers of answers for which it is shown what they alone would have given."""


@dataclass(frozen=True)
class RunReplies:
    """Every policy's replies to the test prompts.

    Attributes:
        prompts: key of a prompt -> its places.
        texts: label -> (seeds x prompts) replies.
        seeds: of the trainings.
    """

    prompts: Mapping[str, Sequence[int]]
    texts: Mapping[str, Sequence[Sequence[str]]]
    seeds: Sequence[int]

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
        return cls(prompts, texts, plan.recipe.seeds)

    def cells(self, pair: ComparedPair, labels: Labels) -> list[Cell]:
        """Where these two policies gave these two replies."""
        a, b = (self.texts[label] for label in labels)
        return [
            (row, place)
            for place in self.prompts.get(pair.prompt, ())
            for row, seed in enumerate(self.seeds)
            if pair.seed in (None, seed) and {a[row][place], b[row][place]} == {*pair.replies}
        ]


def human_win_rates(plan: Plan, tables: Mapping[str, Tables], groups: PromptGroups) -> Human | None:
    """Join what people answered with the metric that decides; None where there are no answers: the recipe names no
    file of them, and none lies in the run's folder.

    What cannot be read is a `problem` in the result: numbers that do not depend on it are reported all the same.
    """
    own = plan.out / LABELS_FILE
    path = plan.recipe.evaluation.human or (str(own) if own.is_file() else None)
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
    results = [joined(labels, pairs, replies, scores, groups.get(ALL)) for labels, pairs in assigned.items()]
    used = [pair for pairs in assigned.values() for pair in pairs]
    return human.model_copy(
        update={
            "sha256": answers.sha256,
            "answers": answers.answers,
            "used": sum(len(pair.votes) for pair in used),
            "unused": dict(answers.unused),
            "weighting": answers.weighting,
            "annotators": vote_agreement([pair.votes for pair in used]) if used else {},
            "pairs": results,
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
        else:
            answers.unused[reason] += len(pair.votes)
    counts = Counter(labels for _, fitting in candidates for labels in fitting)
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
) -> HumanPair:
    """Return the win rates of the first policy over the second.

    Args:
        pairs: those that people compared, in the order of their answers.
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
        seeds=[str(replies.seeds[row]) for row in rows.tolist()],
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

    Where policies gave the same two replies with several seeds, and an answer does not say about which, it counts for
    one of them: of each prompt, one seed's replies are asked about.
    """
    texts = replies.texts[labels[0]]
    people = np.full((len(texts), len(texts[0])), np.nan)
    weights, order = np.ones_like(people), np.full(people.shape, len(pairs))
    of_cell: dict[Cell, list[int]] = {}
    for place, pair in enumerate(pairs):
        cells = replies.cells(pair, labels)
        of_cell.setdefault(next((cell for cell in cells if cell not in of_cell), cells[0]), []).append(place)
    for (row, prompt), places in of_cell.items():
        values = [
            0.5 if vote.choice is None else float((vote.choice == 0) == (pairs[p].replies[0] == texts[row][prompt]))
            for p in places
            for vote in pairs[p].votes
        ]
        people[row, prompt], order[row, prompt] = np.mean(values), places[0]
        weights[row, prompt] = np.mean([pairs[p].weight for p in places])
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
