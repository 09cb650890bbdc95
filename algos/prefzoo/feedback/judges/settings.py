"""What a recipe's `judge:` block may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from prefzoo.settings import Settings


class JudgeSettings(Settings):
    """Who judges: `local`, a causal language model (`path`: folder or hub id; where it is not given, the recipe's own),
    by the probabilities of its verdict; `gold`, the truth; `random`, a negative control.

    `audit_pairs` is on how many held-out pairs, in both orders, the judge itself is audited; 0: on none.
    """

    type: Literal["local", "gold", "random"] = "local"
    path: str | None = None
    audit_pairs: int = Field(500, ge=0)
