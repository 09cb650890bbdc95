"""The reference's log-probabilities of preference pairs: computed once before a training, not in each of its steps."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from accelerate.utils import broadcast_object_list, convert_outputs_to_fp32, gather_object, send_to_device
from peft import PeftModel

from prefzoo.atomic_files import text_sha256
from prefzoo.interface import Bench
from prefzoo.machine import divides_weights
from prefzoo.models.weight_counts import REFERENCE, weights_of

if TYPE_CHECKING:
    from datasets import Dataset
    from trl import DPOConfig

PairTokens = list[Any]
"""`[prompt_ids, [reply_ids, reply_ids]]` of a preference pair; the replies are sorted, so that their order does not say
which was chosen."""


class PrecomputedReference:
    """Mixed into TRL's `DPOTrainer`: computes the start's log-probabilities of all pairs before the training.

    The numbers depend on the set of pairs and on nothing else of the trial: the pairs are passed in an order of their
    own, whatever order and labels they have here, so that every trial on them gets the same bits and one can compute
    them for all (`Bench.reuse`). The pass is charged to the ledger where it is made or read.

    Attributes:
        bench: of the trial.
        precompute: `precompute_ref_log_probs` as the recipe has it; None is true where the training sees every pair, so
            that a pass over all of them is no waste, its reference is the start and stays it, and its weights are not
            divided: those are whole nowhere, and divided only when the training has begun.
        reference_is_charged: whether the pass was made and charged.
    """

    bench: ClassVar[Bench]
    precompute: ClassVar[bool | None]
    reference_is_charged = False

    def __init__(self, *, args: DPOConfig, train_dataset: Dataset, **more: Any) -> None:
        if self.precompute is None:
            seen = _rows_seen(args, len(train_dataset))
            once = not args.sync_ref_model and seen >= len(train_dataset)
            self_play = self.bench.machinery.self_play and self.bench.latest is not None
            args.precompute_ref_log_probs = once and not divides_weights() and not self_play
        super().__init__(args=args, train_dataset=train_dataset, **more)  # type: ignore[call-arg]

    def _precompute_ref_logps(self: Any, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        if isinstance(self.model, PeftModel) and REFERENCE in self.model.peft_config:
            self.model.delete_adapter(REFERENCE)  # a copy of the adapter as it is now; the reference is the start
        if self.args.use_liger_kernel:
            return super()._precompute_ref_logps(dataset, name, batch_size)  # type: ignore[misc]
        rows = dataset.select_columns(["prompt_ids", "chosen_ids", "rejected_ids"])
        # As text, because lists of numbers would take many times the memory.
        keys = [json.dumps(_pair_tokens(row)) for row in rows]
        # Longest first, so that what does not fit in memory is met at once.
        pairs = sorted(set(keys), key=lambda key: (-_length(json.loads(key)), key))
        result = self._read_or_compute(
            [pairs[begin : begin + batch_size] for begin in range(0, len(pairs), batch_size)]
        )
        self.bench.ledger.forwarded(result["tokens"], weights_of(self.model).start)
        self.reference_is_charged = True
        self.ref_model = None  # is needed no more
        by_pair = dict(zip(pairs, result["log_probabilities"], strict=True))
        for column, reply in (("ref_chosen_logps", "chosen_ids"), ("ref_rejected_logps", "rejected_ids")):
            values = [by_pair[key][_pair_tokens(row)[1].index(row[reply])] for key, row in zip(keys, rows, strict=True)]
            dataset = dataset.add_column(column, values)
        return dataset

    def _read_or_compute(self: Any, batches: list[list[str]]) -> dict[str, Any]:
        """Return `log_probabilities` of both replies of each pair, in nats, and how many `tokens` they took. The first
        process reads what another trial stored; where nothing is stored, all processes compute together."""
        reuse, computed = self.bench.machinery.reuse, []

        def compute() -> dict[str, Any]:
            computed.append(True)
            broadcast_object_list([True])
            return self._compute(batches)

        result = None
        if self.accelerator.is_main_process:
            model = self.ref_model or self.model
            result = reuse.reference(self.bench, model, self._key(batches), compute) if reuse else compute()
            if not computed:
                broadcast_object_list([False])
        elif broadcast_object_list([None])[0]:
            self._compute(batches)
        return broadcast_object_list([result])[0]

    def _compute(self: Any, batches: list[list[str]]) -> dict[str, Any]:
        """Compute what `_read_or_compute` returns: each process takes its part of the batches."""
        training = self.model.training
        self.model.eval()
        forward = model = self.ref_model or self.model  # one of its own in the later rounds of a whole model
        if self.accelerator.mixed_precision != "no":  # as accelerate will prepare the model for training
            forward = convert_outputs_to_fp32(self.accelerator.autocast()(model.__call__))
        mine: list[tuple[int, list[list[float]], int]] = []
        for i in range(self.accelerator.process_index, len(batches), self.accelerator.num_processes):
            pairs = map(json.loads, batches[i])
            rows = [{"prompt_ids": p, "chosen_ids": one, "rejected_ids": other} for p, (one, other) in pairs]
            inputs = send_to_device(self.data_collator(rows), self.accelerator.device)
            both = torch.stack(self.compute_ref_log_probs(forward, inputs), dim=1)  # (B, 2)
            mine.append((i, both.tolist(), int(inputs["attention_mask"].sum())))
            self.bench.progress("reference", i + 1, len(batches))
        self.model.train(training)
        together = sorted(gather_object(mine))
        return {
            "log_probabilities": [pair for _, values, _ in together for pair in values],
            "tokens": sum(tokens for _, _, tokens in together),
        }

    def _key(self: Any, batches: list[list[str]]) -> dict[str, Any]:
        """Return all that the numbers depend on beside the model's weights."""
        return {
            "batches": text_sha256(json.dumps(batches)),
            "collator": dataclasses.asdict(self.data_collator),
            "loading": dict(self.bench.loading),
            "precision": self.accelerator.mixed_precision,
            "ld_alpha": self.ld_alpha,
        }


class NoReference:
    """Mixed into TRL's `DPOTrainer` for losses without a reference: none is loaded or computed."""

    def __init__(self, *, args: DPOConfig, **more: Any) -> None:
        # TRL then loads no second model, unless it divides weights, and is given one without numbers.
        args.precompute_ref_log_probs = not divides_weights()
        super().__init__(args=args, **more)  # type: ignore[call-arg]
        self.ref_model = None

    def _precompute_ref_logps(self, dataset: Dataset, name: str, batch_size: int) -> Dataset:
        return dataset


def precomputed_reference(trainer_class: Any, bench: Bench, precompute: bool | None = None) -> Any:
    """Return `trainer_class`, a DPOTrainer, with `PrecomputedReference` mixed in, under its own name."""
    attributes = {"bench": bench, "precompute": precompute}
    return type(trainer_class.__name__, (PrecomputedReference, trainer_class), attributes)


def without_reference(trainer_class: Any) -> Any:
    """Return `trainer_class`, a DPOTrainer, with `NoReference` mixed in, under its own name."""
    return type(trainer_class.__name__, (NoReference, trainer_class), {})


def _rows_seen(args: DPOConfig, rows: int) -> float:
    """Return how many rows a training takes up, each counted as often as it is taken."""
    if args.max_steps > 0:
        return args.max_steps * args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
    return args.num_train_epochs * rows


def _pair_tokens(row: dict[str, Any]) -> PairTokens:
    return [row["prompt_ids"], sorted([row["chosen_ids"], row["rejected_ids"]])]


def _length(pair: PairTokens) -> int:
    """Return the number of tokens of the longer of its two sequences."""
    return len(pair[0]) + max(map(len, pair[1]))
