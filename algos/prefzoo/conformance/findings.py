"""What a conformance check found."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROMISES = {
    "trains": "trains without an error and returns a policy",
    "saves": "saves the policy",
    "reloads": "the saved policy, loaded in another process, answers like the one that was returned",
    "repeats": "the same seed gives the same policy and the same replies",
    "seed": "another seed gives another policy",
    "unseen": "learns nothing from the rows that it is measured by, and reads none of them",
    "budget": "trains on no more than the budget, and on its prompts alone",
    "recipe": "trains with the recipe's adapter, epochs, training arguments and milestones",
    "sampling": "samples as the recipe says, and by the trial's seed",
    "settings": "every hyper-parameter changes something",
    "ledger": "charges to the ledger what it trained on, sampled, passed forward, scored and asked",
    "base": "leaves the start as it is, on disk and under the adapter",
    "changes": "the policy is not just the start returned",
    "resumes": "a training that was killed ends like one that was not",
    "learns": "the gold reward rises in the lab",
    "control": "the gold reward does not rise when there is nothing to learn from",
}
"""Every promise that is tried, in the order in which they are: name -> what is promised."""


@dataclass(frozen=True)
class Finding:
    """What became of one promise.

    Attributes:
        promise: one of `PROMISES`.
        status: `kept`, `broken`, or `untried`: it does not apply, or an earlier one that it rests on is broken.
        message: the numbers behind a promise that is kept; how it is broken; why it was not tried.
    """

    promise: str
    status: Literal["kept", "broken", "untried"]
    message: str

    def __str__(self) -> str:
        return f"{self.promise} ({PROMISES[self.promise]}): {self.status}: {self.message}"
