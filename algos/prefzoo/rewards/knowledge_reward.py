"""Facts out of documents as a reward."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefzoo.data.documents import load_documents
from prefzoo.judges.build_checker import judge_checker
from prefzoo.judges.fact_checking import CheckedReply, Checker, FactChecker
from prefzoo.types import Progress, Prompt

DOCUMENTS_FILE = "documents-{}.jsonl"


class KnowledgeReward:
    """Scores replies by whether documents support what they state, see `fact_checking.FactChecker`.

    Args:
        facts: checks them.
        scores: of each verdict.
        checked_by: what `build_fact_checker` makes the checker of again: `path` of an entailment model, or a `judge`.
    """

    def __init__(self, facts: FactChecker, scores: Mapping[str, float], checked_by: Mapping[str, Any]) -> None:
        self.facts, self.scores, self.checked_by = facts, dict(scores), dict(checked_by)

    @property
    def flops(self) -> float:
        """Operations of whoever checks, so far."""
        return getattr(self.facts.checker, "flops", 0.0)

    @property
    def questions(self) -> int:
        """Questions put to a judge so far."""
        return getattr(self.facts.checker, "questions", 0)

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        return [self.scores[reply.verdict] for reply in self.check(prompts, completions)]

    def check(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[CheckedReply]:
        """What is found about each reply."""
        return self.facts(prompts, completions)

    def report(self) -> dict[str, Any]:
        """See `FactChecker.report`."""
        return self.facts.report()

    def spec(self, folder: Path) -> dict[str, Any]:
        """See `prefzoo.Reward`; writes the documents into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        name = DOCUMENTS_FILE.format(self.facts.documents.sha256[:12])
        self.facts.documents.save(folder / name)
        asked = {"k": self.facts.k, "scores": self.scores, "checked_by": self.checked_by}
        return {"type": "knowledge", "documents": name, **asked}


def build_fact_checker(
    documents: str,
    k: int,
    checked_by: Mapping[str, Any],
    loading: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> FactChecker:
    """A checker of a file of documents.

    Args:
        checked_by: `{"path": ..}` of an entailment model, or `{"judge": ..}`, a description of a judge.
        loading: how the files of an entailment model are read.
    """
    if "path" in checked_by:
        from prefzoo.rewards.entailment import EntailmentChecker

        read = {key: value for key, value in (loading or {}).items() if key not in ("chat_template", "quantization")}
        checker: Checker = EntailmentChecker(checked_by["path"], read)
    else:
        checker = judge_checker(checked_by["judge"], progress)
    return FactChecker(load_documents(documents), checker, k)


def load_knowledge_reward(
    spec: Mapping[str, Any], folder: Path, loading: Mapping[str, Any] | None = None
) -> KnowledgeReward:
    """The reward that `KnowledgeReward.spec` describes and wrote."""
    facts = build_fact_checker(str(folder / spec["documents"]), spec["k"], spec["checked_by"], loading)
    return KnowledgeReward(facts, spec["scores"], spec["checked_by"])


def reports_of_facts(reward: Any) -> dict[str, Any]:
    """What was checked by each part of a reward that checks facts; empty where none does."""
    if isinstance(reward, KnowledgeReward):
        return {"knowledge": reward.report()}
    found: dict[str, Any] = {}
    names = getattr(reward, "names", [])
    for i, part in enumerate(getattr(reward, "parts", [])):
        if isinstance(part, KnowledgeReward):
            found[names[i] if i < len(names) else f"knowledge {i}"] = part.report()
    return found
