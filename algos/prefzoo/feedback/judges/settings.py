"""What a recipe's `judge:` block may say."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, ValidationInfo, field_validator

from prefzoo.feedback.judges.endpoint_settings import EndpointSettings
from prefzoo.settings import Settings


class JudgeSettings(Settings):
    """Who judges: `local`, a causal language model (`path`: folder or hub id; where it is not given, the recipe's own),
    by the probabilities of its verdict; `openai`, a model behind any server that speaks OpenAI's chat completions
    (`endpoint` says which); `gold`, the truth; `random`, a negative control."""

    type: Literal["local", "openai", "gold", "random"] = "local"
    path: str | None = None
    endpoint: EndpointSettings | None = Field(None, validate_default=True)

    @field_validator("path")
    @classmethod
    def _path_fits(cls, path: str | None, info: ValidationInfo) -> str | None:
        if path is not None and info.data.get("type") == "openai":
            raise ValueError(f"{path!r} has no meaning with judge.type 'openai', whose model is judge.endpoint.model")
        return path

    @field_validator("endpoint")
    @classmethod
    def _endpoint_fits(cls, endpoint: EndpointSettings | None, info: ValidationInfo) -> EndpointSettings | None:
        kind = info.data.get("type")  # missing where it is itself wrong
        if kind == "openai" and endpoint is None:
            raise ValueError("is missing; judge.type 'openai' needs a block with base_url and model")
        if kind not in (None, "openai") and endpoint is not None:
            raise ValueError(f"has no meaning with judge.type {kind!r}; it must be 'openai'")
        return endpoint
