"""What a recipe's `judge:` block may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from prefzoo.settings import Settings

USED_BY = {
    "path": ("local",),
    "verdict": ("local",),
    "reasoning": ("local",),
    "max_new_tokens": ("local",),
    "prompt": ("local",),
    "grading_prompt": ("local",),
}
"""The types of judge that a key has a meaning for."""


class JudgeSettings(Settings):
    """Who judges: `local`, a causal language model (`path`: folder or hub id; where it is not given, the recipe's own);
    `gold`, the truth; `random`, a negative control.

    `verdict` says how a local judge is read: by the `probabilities` of its verdict's first token, or out of the text
    that it has `generated`, greedily; the latter may hold `reasoning` before the verdict and ends after
    `max_new_tokens` (where it is not given 16, and 512 with reasoning). `prompt` and `grading_prompt` are templates of
    one's own, or names of shipped ones (`wording.shipped`), for comparing two replies and for grading one.

    `audit_pairs` is on how many held-out pairs, in both orders, the judge itself is audited; 0: on none.
    """

    type: Literal["local", "gold", "random"] = "local"
    path: str | None = None
    audit_pairs: int = Field(500, ge=0)
    verdict: Literal["probabilities", "generated"] = "probabilities"
    reasoning: bool = False
    max_new_tokens: int | None = Field(None, ge=1)
    prompt: str | None = None
    grading_prompt: str | None = None

    @field_validator(*USED_BY)
    @classmethod
    def _is_used(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        if value == cls.model_fields[info.field_name].default:
            return value
        kind = info.data.get("type")  # missing where it is itself wrong
        if kind is not None and kind not in USED_BY[info.field_name]:
            allowed = ", ".join(USED_BY[info.field_name])
            raise ValueError(f"{value!r} has no meaning with judge.type {kind!r}. Allowed there: {allowed}")
        generated = info.data.get("verdict", "generated") == "generated"
        if kind == "local" and not generated and info.field_name in ("reasoning", "max_new_tokens"):
            raise ValueError(f"{value!r} has no meaning with verdict 'probabilities'; it must be 'generated'")
        return value
