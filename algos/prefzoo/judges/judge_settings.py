"""What a recipe's `judge:` block may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator

from prefzoo.judges.endpoint_settings import EndpointSettings
from prefzoo.settings import Settings

USED_BY = {
    "path": ("local",),
    "verdict": ("local",),
    "reasoning": ("local", "openai"),
    "max_new_tokens": ("local", "openai"),
    "prompt": ("local", "openai"),
    "grading_prompt": ("local", "openai"),
}
"""The types of judge that a key has a meaning for."""


class JudgeSettings(Settings):
    """Who judges: `local`, a causal language model (`path`: folder or hub id; where it is not given, the recipe's own);
    `openai`, a model behind any server that speaks OpenAI's chat completions (`endpoint` says which); `gold`, the
    truth; `random`, a negative control.

    `verdict` says how a local judge is read: by the `probabilities` of its verdict's first token, or out of the text
    that it has `generated`, greedily. What is read out of text, a server's always, may hold `reasoning` before the
    verdict and ends after `max_new_tokens` (where it is not given 16, and 512 with reasoning). `prompt` and
    `grading_prompt` are templates of one's own, or names of shipped ones (`wording.shipped`), for comparing two replies
    and for grading one.

    `audit_pairs` is on how many held-out pairs, in both orders, the judge itself is audited; 0: on none.
    """

    type: Literal["local", "openai", "gold", "random"] = "local"
    path: str | None = None
    endpoint: EndpointSettings | None = Field(None, validate_default=True)
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

    @field_validator("endpoint")
    @classmethod
    def _endpoint_fits(cls, endpoint: EndpointSettings | None, info: ValidationInfo) -> EndpointSettings | None:
        kind = info.data.get("type")  # missing where it is itself wrong
        if kind == "openai" and endpoint is None:
            raise ValueError("is missing; judge.type 'openai' needs a block with base_url and model")
        if kind not in (None, "openai") and endpoint is not None:
            raise ValueError(f"has no meaning with judge.type {kind!r}; it must be 'openai'")
        return endpoint
