"""A sequence-classification model that says whether one text follows from another, as a checker of facts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification

from prefzoo.errors import PrefzooError
from prefzoo.judges.fact_checking import Claim, Finding
from prefzoo.models.dropout import without_dropout
from prefzoo.models.loading import count_parameters, device, resolve, source
from prefzoo.rewards.entailment_labels import verdict_labels
from prefzoo.rewards.reward_text import classifier_tokenizer, classifier_tokens, most_tokens

BATCH = 64
"""Pairs of texts that are read side by side."""


class EntailmentChecker:
    """Reads each sentence that was found (premise) with the prompt's last line and the claim (hypothesis).

    The first sentence, in the order in which they were found, whose likeliest label is not `not_found` decides; where a
    later one has the opposite label, that is a conflict. A pair that is longer than the model reads loses the end of
    its sentence.

    Args:
        path: folder or hub id.
        loading: how its files are read.

    Raises:
        PrefzooError: when it is no classifier, lacks weights, or has labels of which no verdict can be made.
    """

    def __init__(self, path: str, loading: Mapping[str, Any] | None = None) -> None:
        place, settings = source(resolve(path), **(loading or {}))
        try:
            model, info = AutoModelForSequenceClassification.from_pretrained(
                place, output_loading_info=True, **settings
            )
            self.labels = verdict_labels(model.config.to_dict())
        except ValueError as error:
            raise PrefzooError(f"reward.path: {path!r} {error}") from error
        if missing := sorted(info["missing_keys"]):
            raise PrefzooError(
                f"reward.path: {path!r} is no entailment model: it has no weights for {', '.join(missing)}"
            )
        self.path, self.flops = path, 0.0
        self.model = without_dropout(model).eval().to(device())
        self.tokenizer = classifier_tokenizer(place, bool(settings["trust_remote_code"]), model.config.model_type)
        pad = getattr(model.config.get_text_config(), "pad_token_id", None)
        self.pad = pad if pad is not None and 0 <= pad < len(self.tokenizer) else None
        if self.pad is not None:
            self.tokenizer.pad_token = self.tokenizer.convert_ids_to_tokens(self.pad)

    def __call__(self, claims: Sequence[Claim]) -> list[Finding]:
        pairs = [(each.whole, f"{claim.question} {claim.text}".strip()) for claim in claims for each in claim.found]
        verdicts = iter(self._labels(pairs))
        return [_finding([self.labels[next(verdicts)] for _ in claim.found]) for claim in claims]

    @torch.inference_mode()
    def _labels(self, pairs: Sequence[tuple[str, str]]) -> list[int]:
        rows = [self._tokens(*pair) for pair in pairs]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
        found = [0] * len(rows)
        size = BATCH if self.pad is not None else 1
        for begin in range(0, len(order), size):
            batch = order[begin : begin + size]
            padded = self.tokenizer.pad(
                [rows[i] for i in batch], padding=len(batch) > 1, padding_side="right", return_tensors="pt"
            )
            self.flops += 2.0 * count_parameters(self.model) * sum(len(rows[i]["input_ids"]) for i in batch)
            logits = self.model(**padded.to(device())).logits
            for i, label in zip(batch, logits.argmax(1).tolist(), strict=True):
                found[i] = label
        return found

    def _tokens(self, premise: str, hypothesis: str) -> dict[str, list[int]]:
        tokens = classifier_tokens(self.tokenizer, [{"role": "user", "content": premise}], hypothesis)
        limit = most_tokens(self.model.config)
        while limit is not None and len(tokens["input_ids"]) > limit and premise:
            premise = premise[: len(premise) // 2]
            tokens = classifier_tokens(self.tokenizer, [{"role": "user", "content": premise}], hypothesis)
        if limit is not None and len(tokens["input_ids"]) > limit:
            raise PrefzooError(
                f"the entailment model in {self.path!r} has {limit} positions, too few for {hypothesis!r}"
            )
        return tokens

    def spec(self) -> str:
        """Its path, absolute where it is a folder."""
        place = Path(self.path).expanduser()
        return str(place.resolve()) if place.is_dir() else self.path


def _finding(verdicts: Sequence[str]) -> Finding:
    said = [(i, verdict) for i, verdict in enumerate(verdicts) if verdict != "not_found"]
    if not said:
        return Finding("not_found")
    place, verdict = said[0]
    return Finding(verdict, place, conflict=any(other != verdict for _, other in said))  # type: ignore[arg-type]
