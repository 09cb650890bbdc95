"""Replies checked against documents: what a reply states is supported, contradicted or not found, and which sentence
of the documents decided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, get_args

from prefzoo.data.documents import QUESTION_MARKS, Documents, Passage, sentences
from prefzoo.errors import PrefzooError
from prefzoo.judges.chat import ChatClient, Response
from prefzoo.judges.judge import EXAMPLES, SHOWN
from prefzoo.judges.prompt_templates import FOLDER, PromptTemplate
from prefzoo.judges.verdict_parsing import read_fact
from prefzoo.types import Prompt, Truth
from prefzoo.views import prompt_key

Verdict = Literal["supported", "contradicted", "not_found"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)
FOUND = 4
"""How many sentences a checker is shown where nothing else is said."""
METRIC = "knowledge/"
"""Begins the names of the shares of verdicts, as metrics."""
BY_LETTER: dict[str, Verdict] = {"A": "supported", "B": "contradicted", "C": "not_found"}
"""What a judge answers."""


@dataclass(frozen=True)
class Claim:
    """A sentence of a reply that states something.

    Attributes:
        text: the sentence.
        question: the last line of the prompt, without which a sentence such as "That is 23 euros." says nothing.
        found: sentences of the documents that it may be about, the best first.
        key, prompt: of the prompt.
    """

    text: str
    question: str
    found: tuple[Passage, ...]
    key: str
    prompt: Prompt = field(compare=False, repr=False)


@dataclass(frozen=True)
class Finding:
    """What a checker says of a claim.

    Attributes:
        decided: the place of the sentence that decided, in `Claim.found`; None where none did.
        conflict: a sentence that was found says the opposite of it.
        failed: no answer could be read; the verdict is then `not_found`.
    """

    verdict: Verdict
    decided: int | None = None
    conflict: bool = False
    failed: bool = False


class Checker(Protocol):
    """Decides claims that have found sentences. One that counts its operations does so in an attribute `flops`; one
    that asks a judge counts in `questions`, and shows answers that it could not read in `failure_examples`."""

    def __call__(self, claims: Sequence[Claim]) -> list[Finding]: ...


@dataclass(frozen=True)
class CheckedReply:
    """The verdict on a reply: `contradicted` where one of its claims is, else `supported` where one is. The first such
    claim is `claim`, and `sentence` of `document` decided it; they are empty where nothing was found."""

    verdict: Verdict
    claim: str = ""
    sentence: str = ""
    document: str = ""
    conflict: bool = False


@dataclass
class FactCounts:
    """What was checked so far.

    Attributes:
        supported, contradicted, not_found: replies with this verdict.
        claims: sentences that state something.
        nothing_found: claims for which the documents have no sentence to ask about.
        conflicts: claims about which two sentences contradict each other; the one that was found first decided.
        failures: claims on which the checker gave no answer that could be read; they count as not found.
    """

    supported: int = 0
    contradicted: int = 0
    not_found: int = 0
    claims: int = 0
    nothing_found: int = 0
    conflicts: int = 0
    failures: int = 0


class FactChecker:
    """Checks replies against documents.

    A claim is a sentence of the reply that is no question, and has a number or a word that the documents have too. For
    each, `k` sentences of the documents are found by its own words and those of the prompt's last line.

    Args:
        documents: what is known.
        checker: decides the claims.
        k: sentences that it is shown.
    """

    def __init__(self, documents: Documents, checker: Checker, k: int) -> None:
        self.documents, self.checker, self.k = documents, checker, k
        self.counts = FactCounts()

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[CheckedReply]:
        claims = [self.claims(prompt, text) for prompt, text in zip(prompts, completions, strict=True)]
        asked = list(dict.fromkeys(claim for of_reply in claims for claim in of_reply if claim.found))
        findings = dict(zip(asked, self.checker(asked) if asked else [], strict=True))
        counts = self.counts
        counts.claims += sum(map(len, claims))
        counts.nothing_found += sum(not claim.found for of_reply in claims for claim in of_reply)
        counts.conflicts += sum(findings[claim].conflict for of_reply in claims for claim in of_reply if claim.found)
        counts.failures += sum(findings[claim].failed for of_reply in claims for claim in of_reply if claim.found)
        checked = [_decide([(claim, findings[claim]) for claim in each if claim.found]) for each in claims]
        for reply in checked:
            setattr(counts, reply.verdict, getattr(counts, reply.verdict) + 1)
        return checked

    def claims(self, prompt: Prompt, completion: str) -> list[Claim]:
        """What a reply states."""
        question = next((line for line in reversed(prompt[-1]["content"].splitlines()) if line.strip()), "").strip()
        found = []
        for text in sentences(completion):
            if text.endswith(QUESTION_MARKS):
                continue
            if self.documents.knows(text) or any(letter.isdigit() for letter in text):
                about = self.documents.find_sentences(f"{text} {question}", self.k)
                found.append(Claim(text, question, tuple(about), prompt_key(prompt), prompt))
        return found

    def report(self) -> dict[str, Any]:
        """What was checked so far, with some answers of a judge that could not be read."""
        examples = getattr(self.checker, "failure_examples", [])
        return {**asdict(self.counts), **({"failure_examples": examples} if examples else {})}


def _decide(findings: Sequence[tuple[Claim, Finding]]) -> CheckedReply:
    for verdict in ("contradicted", "supported"):
        for claim, finding in findings:
            if finding.verdict == verdict:
                source = claim.found[finding.decided or 0]
                return CheckedReply(finding.verdict, claim.text, source.text, source.document, finding.conflict)
    return CheckedReply("not_found")


class JudgeChecker:
    """Asks a judge about each claim, who is shown it and the sentences that were found.

    Args:
        client: brings the judge's answers.
        template: the request.
        reasoning: whether answers think aloud first.
        max_new_tokens: length of an answer.
    """

    def __init__(self, client: ChatClient, template: PromptTemplate, reasoning: bool, max_new_tokens: int) -> None:
        self.client, self.template, self.reasoning = client, template, reasoning
        self.max_new_tokens, self.questions = max_new_tokens, 0
        self.failure_examples: list[dict[str, str]] = []

    @property
    def flops(self) -> float:
        """Operations of the judge so far."""
        return getattr(self.client, "flops", 0.0)

    def __call__(self, claims: Sequence[Claim]) -> list[Finding]:
        requests = [
            self.template.render(
                question=claim.question, claim=claim.text, sentences=[asdict(each) for each in claim.found]
            )
            for claim in claims
        ]
        self.questions += len(requests)
        responses = self.client([[{"role": "user", "content": text}] for text in requests], self.max_new_tokens)
        return [self._finding(claim, response) for claim, response in zip(claims, responses, strict=True)]

    def _finding(self, claim: Claim, response: Response) -> Finding:
        answer = None if response.failure else read_fact(response.text, self.reasoning)
        if answer is None or answer.number > len(claim.found):
            if len(self.failure_examples) < EXAMPLES:
                failure = {"failure": response.failure or "unreadable", "answer": response.text[:SHOWN]}
                self.failure_examples.append(failure)
            return Finding("not_found", failed=True)
        return Finding(BY_LETTER[answer.letter], max(answer.number - 1, 0), answer.conflict)


class TruthChecker:
    """The truth of a source whose gold has a part `correctness`: a claim is supported where it is positive, and
    contradicted where it is negative."""

    def __init__(self, truth: Truth) -> None:
        self.truth = truth

    def __call__(self, claims: Sequence[Claim]) -> list[Finding]:
        parts = self.truth([claim.prompt for claim in claims], [claim.text for claim in claims])
        if parts and "gold/correctness" not in parts[0]:
            raise PrefzooError("judge.type: 'gold' decides facts by gold/correctness, and this truth has no such part")
        values = [part["gold/correctness"] for part in parts]
        return [Finding("supported" if x > 0 else "contradicted" if x < 0 else "not_found", 0) for x in values]


class RandomChecker:
    """A die for each claim; a negative control."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(f"random checker {seed}")

    def __call__(self, claims: Sequence[Claim]) -> list[Finding]:
        return [Finding(self.rng.choice(VERDICTS), 0) for _ in claims]


def knowledge_template(reasoning: bool, lab: bool) -> PromptTemplate:
    """The request of a `JudgeChecker`; the lab's model compares a claim with saying that one does not know, which it
    was taught to judge."""
    path = FOLDER / "knowledge" / f"{'lab' if lab else 'reasoning-1' if reasoning else 'plain-1'}.jinja"
    return PromptTemplate(path.name, path.read_text(encoding="utf-8"), frozenset({"question", "claim", "sentences"}))
