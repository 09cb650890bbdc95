"""Train an algorithm while everything that it does is watched, and keep what the promises are judged by.

Runs inside a stage's process of an ordinary comparison; what was seen ends up among the trial's details.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

from prefzoo.conformance.seen import Row, Seen
from prefzoo.conformance.watch import watching
from prefzoo.interface import CHECKPOINTS, MILESTONES, Algorithm, Bench, Policy
from prefzoo.models.policy_with_modules import PolicyWithModules
from prefzoo.settings import Generation
from prefzoo.types import Completion, Prompt

DETAILS = "probe"
"""Where a trial's details hold its `ObservedTrial`."""
ASKED = 8
"""How many prompts a policy is asked about."""
CHARGED = ("trained_tokens", "forward_tokens", "generated_tokens", "reward_calls", "judge_calls", "flops")
"""What a trial is charged for, and what is counted beside it."""
KILLED_AFTER = 2
"""Optimizer steps after which a training is killed that must resume."""


@dataclass
class ObservedTrial:
    """What was seen of one training.

    Attributes:
        returned: the class of what `train` returned; None where it cannot sample.
        start_untouched: whether the start's files are what they were.
        rows: of the data's largest view.
        sequences: that passed with a gradient.
        seen, charged: the names in `CHARGED` -> what was counted, and what the ledger was charged.
        prompts_seen, prompts_charged: prompts of the data in what was trained on; what the ledger was charged.
        excess_passes: the most passes that a sequence of the data's own made beyond one an epoch of each of
            `models_on_data`, and how many made too many.
        foreign_sequences: sequences and questions that hold no prompt of the bench.
        generated_digests: a digest of each sequence that was trained on and is not one of the data's.
        batches: calls of `generate`: their settings, and a digest of each row.
        learned_greedily: replies that were trained on and came only from calls that are no sampling as the recipe's.
        trainings: `config_audit.training_facts` of each training.
        adapter: `config_audit.adapter_facts` of the policy that was returned.
        milestones: policies that were kept on the way.
        opened: sealed files that were opened.
        answers: of the policy that was returned; see `answers`.
    """

    returned: str | None
    start_untouched: bool = True
    rows: int = 0
    sequences: int = 0
    seen: dict[str, float] = field(default_factory=dict)
    charged: dict[str, float] = field(default_factory=dict)
    prompts_seen: int = 0
    prompts_charged: int = 0
    excess_passes: tuple[int, int] = (0, 0)
    foreign_sequences: list[str] = field(default_factory=list)
    generated_digests: list[int] = field(default_factory=list)
    batches: list[dict[str, Any]] = field(default_factory=list)
    learned_greedily: int = 0
    trainings: list[dict[str, Any]] = field(default_factory=list)
    adapter: dict[str, Any] = field(default_factory=dict)
    milestones: int = 0
    opened: list[str] = field(default_factory=list)
    answers: dict[str, Any] | None = None


Train = Callable[[Algorithm, Bench], Policy]


def probed(inner: type[Algorithm], train: Train) -> type[Algorithm]:
    """Return the same algorithm, trained by `train(algorithm, bench)`."""
    import dataclasses

    @dataclass(frozen=True)
    class Probed(inner):  # type: ignore[misc, valid-type]
        def train(self, bench: Bench) -> Policy:
            settings = {f.name: getattr(self, f.name) for f in dataclasses.fields(inner) if f.init}
            return train(inner(**settings), bench)

    return Probed


def observe(algorithm: Algorithm, bench: Bench) -> Policy:
    """Train on a copy of the start that is this trial's own, sharing no work with others, and report what was seen."""
    from prefzoo.models.saved_policy import SavedPolicy
    from prefzoo.run.cache import fingerprint
    from prefzoo.trainers import fitting
    from prefzoo.trainers.config_audit import adapter_facts

    class PolicyReadAtOnce(SavedPolicy):
        """What is returned, read before `train` can do anything to what was saved: else the two could not differ."""

        def __init__(self, folder: Path) -> None:
            super().__init__(folder)
            self.model  # noqa: B018

    own = with_own_start(bench)
    before = fingerprint(own.start)
    with mock.patch.object(fitting, "SavedPolicy", PolicyReadAtOnce), watching(own, sealed_from(bench)) as seen:
        policy = algorithm.train(own)
    samples = hasattr(policy, "sample")
    model = getattr(policy, "model", None)
    trial = described(seen, bench, algorithm.models_on_data)
    trial.returned = type(policy).__name__ if samples else None
    trial.start_untouched = fingerprint(own.start) == before
    trial.adapter = adapter_facts(model) if hasattr(model, "named_modules") else {}
    trial.answers = answers(policy, *questions(bench)) if samples else None
    bench.report[DETAILS] = asdict(trial)
    return policy


def resume(algorithm: Algorithm, bench: Bench) -> Policy:
    """Train, be killed after `KILLED_AFTER` optimizer steps, and train again from what a killed stage leaves."""
    from prefzoo.ledger import Ledger
    from prefzoo.run.worker import clear
    from prefzoo.trainers import checkpoints

    with mock.patch.object(checkpoints, "CHECKPOINT_INTERVAL_SECONDS", 0.0):
        killed = False
        try:
            with _killed_after(KILLED_AFTER):
                own = with_own_start(bench)
                algorithm.train(own.replace(ledger=Ledger(), memory={}, report={}))
        except _Killed:
            killed = True
        left = sum(1 for file in (bench.out / CHECKPOINTS).rglob("*") if file.is_file())
        clear(bench.out)
        policy = algorithm.train(with_own_start(bench))
    bench.report[DETAILS] = {"killed": killed, "checkpoint_files": left}
    return policy


def with_own_start(bench: Bench) -> Bench:
    """Return the bench with a copy of the start in the trial's folder, and without what trials share."""
    start = bench.out / "start"
    shutil.rmtree(start, ignore_errors=True)
    shutil.copytree(bench.start, start)
    return bench.replace(start=str(start), reuse=None)


def sealed_from(bench: Bench) -> Callable[[Path], bool]:
    """Return a test of whether a file lies among a comparison's rows or other trials, which no training may read."""
    comparison, own = bench.out.resolve().parent.parent, bench.out.resolve()
    if not (comparison / "stages").is_dir():
        return lambda path: path.name in ("test.jsonl", "validation.jsonl")

    def sealed(path: Path) -> bool:
        path = path.resolve()
        if not path.is_relative_to(comparison) or path.is_relative_to(own):
            return False
        of_rows = path.parent.parent == comparison / "stages" and path.parent.name.startswith(("data-", "label-"))
        return path.is_file() and (of_rows or (path.is_relative_to(comparison / "trials") and path.suffix != ".log"))

    return sealed


class _Killed(BaseException):
    """No handler of an algorithm's own should stop it, as none stops a signal."""


class _killed_after:
    """Ends the block by `_Killed` after so many steps of any optimizer."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def __enter__(self) -> None:
        from torch.optim.optimizer import register_optimizer_step_post_hook

        self.handle = register_optimizer_step_post_hook(self._count)

    def __exit__(self, *error: object) -> None:
        self.handle.remove()

    def _count(self, *_: Any) -> None:
        self.left -= 1
        if self.left <= 0:
            raise _Killed


def described(seen: Seen, bench: Bench, models_on_data: int = 1) -> ObservedTrial:
    """Return what was seen, read with the bench's data."""
    from prefzoo.models.loading import load_tokenizer

    tokenizer = load_tokenizer(bench.start)
    texts: dict[Row, str] = {}

    def text(row: Row) -> str:
        if row not in texts:
            texts[row] = plain(tokenizer.decode(row, skip_special_tokens=True))
        return texts[row]

    known = {plain(prompt[-1]["content"]) for prompt in bench.data.prompts}
    alike = [batch for batch in seen.batches if batch.by_assistant or is_alike(asdict(batch), bench.generation)]
    sampled = {text(row) for batch in alike for row in batch.rows}
    other = {text(row) for batch in seen.batches if batch not in alike for row in batch.rows} - sampled
    of_data = _data_texts(bench)
    trained: Counter[str] = Counter()
    for row, passes in seen.trained.items():
        trained[text(row)] += passes
    excess = {}
    generated = []
    for sequence, passes in trained.items():
        count = _occurrences(sequence, of_data)
        if sequence in sampled or not count:
            if any(prompt in sequence for prompt in known):
                generated.append(sequence)
        elif passes > (most := math.ceil(count * bench.budget.epochs) * models_on_data):
            excess[sequence] = passes - most
    everything = {text(row) for row in (*seen.trained, *seen.forwarded)}
    everything |= {text(row) for batch in seen.batches for row in batch.rows} | set(map(plain, seen.asked_prompts))
    data = bench.data
    return ObservedTrial(
        returned=None,
        rows=max(len(data.prompts), len(data.preferences) + len(data.labelled), len(data.demonstrations)),
        sequences=seen.sequences,
        seen={name: getattr(seen, name) for name in CHARGED},
        charged={name: getattr(bench.ledger, name) for name in CHARGED},
        prompts_seen=sum(any(prompt in sequence for sequence in trained) for prompt in known),
        prompts_charged=bench.ledger.prompts,
        excess_passes=(max(excess.values(), default=0), len(excess)),
        foreign_sequences=sorted(
            sequence for sequence in everything if not any(prompt in sequence for prompt in known)
        ),
        generated_digests=sorted(map(hash_of, generated)),
        batches=[{**asdict(batch), "rows": sorted(hash_of(text(row)) for row in batch.rows)} for batch in seen.batches],
        learned_greedily=len(other.intersection(generated)),
        trainings=seen.trainings,
        milestones=len(list((bench.out / MILESTONES).glob("*"))),
        opened=sorted(set(seen.opened)),
    )


def is_alike(batch: dict[str, Any], generation: Generation) -> bool:
    """Whether a call of `generate` samples as the recipe says, from the whole distribution."""
    if generation.temperature == 0:
        return not batch["sampling"] and batch["max_new_tokens"] == generation.max_new_tokens
    whole = batch["top_p"] in (None, 1.0) and not batch["top_k"] and not batch["altered"]
    same = (batch["temperature"], batch["max_new_tokens"]) == (generation.temperature, generation.max_new_tokens)
    return bool(batch["sampling"] and whole and same)


def plain(text: str) -> str:
    """Return a text with all white space alike."""
    return " ".join(text.split())


def hash_of(text: str) -> int:
    """Return a short digest of a text, the same in every process."""
    import zlib

    return zlib.crc32(text.encode())


def _data_texts(bench: Bench) -> Counter[tuple[str, str]]:
    """Every prompt with every reply to it in the bench's data, and how often it is there."""
    data = bench.data
    pairs = [(pair["prompt"], pair[side]) for pair in data.preferences for side in ("chosen", "rejected")]
    pairs += [(row["prompt"], row["completion"]) for row in data.demonstrations]
    return Counter((plain(prompt[-1]["content"]), plain(reply[-1]["content"])) for prompt, reply in pairs)


def _occurrences(text: str, of_data: Counter[tuple[str, str]]) -> int:
    """How often the data has the prompt and the reply that a sequence consists of; 0 where it has not."""
    return sum(count for (prompt, reply), count in of_data.items() if prompt in text and text.endswith(reply))


def questions(bench: Bench) -> tuple[list[Prompt], list[Completion]]:
    """Return some prompts of the bench, each with a reply whose log-probability is asked for."""
    from prefzoo.models.loading import load_tokenizer

    tokenizer = load_tokenizer(bench.start)
    pairs = bench.data.preferences[:ASKED]
    ids = [(*tokenizer(pair["chosen"][0]["content"])["input_ids"], tokenizer.eos_token_id) for pair in pairs]
    return [pair["prompt"] for pair in pairs], [Completion("", token_ids, True) for token_ids in ids]


def answers(policy: Policy, prompts: Sequence[Prompt], completions: Iterable[Completion]) -> dict[str, Any]:
    """Return what tells one policy from another: sampled replies, and log-probabilities where it has them, also with
    its adapter off."""
    completions = list(completions)
    generation = Generation(max_new_tokens=24)
    result: dict[str, Any] = {
        "prompts": [list(prompt) for prompt in prompts],
        "completions": [list(c.token_ids) for c in completions],
        "replies": [list(replies[0].token_ids) for replies in policy.sample(prompts, generation, seed=0)],
    }
    if hasattr(policy, "log_probabilities"):
        result["log_probabilities"] = policy.log_probabilities(prompts, completions)
    model = policy.policy if isinstance(policy, PolicyWithModules) else policy
    if hasattr(model, "adapted"):
        result["adapted"] = model.adapted
        if result["adapted"]:
            with model.as_start() as start:  # type: ignore[attr-defined]
                result["adapter_off"] = start.log_probabilities(prompts, completions)
    return result
