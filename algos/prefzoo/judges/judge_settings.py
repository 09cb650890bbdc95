"""What a recipe's `judge:` block may say."""

from __future__ import annotations

import re
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, ValidationInfo, field_validator, model_validator

from prefzoo.settings import PathText, Settings

USED_BY = {
    "path": ("local",),
    "verdict": ("local",),
    "reasoning": ("local", "openai"),
    "max_new_tokens": ("local", "openai"),
    "prompt": ("local", "openai"),
    "grading_prompt": ("local", "openai"),
    "store": ("people",),
    "per_round": ("people",),
}
"""The types of judge that a key has a meaning for."""


class EndpointSettings(Settings):
    """A server that speaks OpenAI's chat completions. Recipes are kept and shown, so that it holds no secret.

    Attributes:
        base_url: the address up to and without `/chat/completions`; most often it ends in `/v1`.
        model: the model as the server names it.
        key_env: the environment variable that holds the key; where it is not set no key is sent, which suits servers
            without keys.
        concurrency: requests under way at a time, at most.
        timeout: seconds that a request takes, at most.
        retries: how often a request is repeated, at most.
        price_in, price_out: what a million tokens of questions, and of answers, cost, in any currency; the report says
            what was spent where one is given.
        temperature: 0 is greedy.
    """

    base_url: str
    model: str = Field(min_length=1)
    key_env: str = "OPENAI_API_KEY"
    concurrency: int = Field(8, ge=1)
    timeout: float = Field(60.0, gt=0)
    retries: int = Field(5, ge=0)
    price_in: float | None = Field(None, ge=0)
    price_out: float | None = Field(None, ge=0)
    temperature: float = Field(0.0, ge=0)

    @model_validator(mode="after")
    def _holds_no_secret(self) -> EndpointSettings:
        # Checked for the block as a whole, because what is wrong about a single key is quoted in the message.
        if not re.fullmatch(r"[A-Z_][A-Z0-9_]*", self.key_env):
            raise ValueError(
                "key_env must be the name of an environment variable, in capitals, such as OPENAI_API_KEY; "
                "what it says is not shown, lest it be the key itself"
            )
        address = urlsplit(self.base_url)
        if address.scheme not in ("http", "https") or not address.netloc:
            raise ValueError("base_url must begin with http:// or https:// and a host, as in http://localhost:8000/v1")
        if "@" in address.netloc or address.query or address.fragment:
            raise ValueError(
                "base_url must be an address alone, without a user, a password or parameters, for recipes are kept and "
                "shown; the key comes from the environment variable that key_env names"
            )
        return self


class JudgeSettings(Settings):
    """Who judges: `local`, a causal language model (`path`: folder or hub id; where it is not given, the recipe's own);
    `openai`, a model behind any server that speaks OpenAI's chat completions (`endpoint` says which); `gold`, the
    truth; `random`, a negative control; `people`, who answer on the page of `prefzoo label STORE`, while the comparison
    pauses.

    `verdict` says how a local judge is read: by the `probabilities` of its verdict's first token, or out of the text
    that it has `generated`, greedily. What is read out of text, a server's always, may hold `reasoning` before the
    verdict and ends after `max_new_tokens` (where it is not given 16, and 512 with reasoning). `prompt` and
    `grading_prompt` are templates for comparing two replies and for grading one: files, or names of shipped ones (in
    `judges/prompts`).

    `store` is the file that people's questions and answers are in, and `per_round` how many pairs of a round they are
    asked about, drawn at random; where it is not given, about all.

    `audit_pairs` is on how many held-out pairs, in both orders, the judge itself is audited; 0: on none.
    """

    type: Literal["local", "openai", "gold", "random", "people"] = "local"
    path: PathText | None = None
    endpoint: EndpointSettings | None = Field(None, validate_default=True)
    audit_pairs: int = Field(500, ge=0)
    verdict: Literal["probabilities", "generated"] = "probabilities"
    reasoning: bool = False
    max_new_tokens: int | None = Field(None, ge=1)
    prompt: PathText | None = None
    grading_prompt: PathText | None = None
    store: PathText | None = Field(None, validate_default=True)
    per_round: int | None = Field(None, ge=1)

    @field_validator(*USED_BY)
    @classmethod
    def _is_used(cls, value: Any, info: ValidationInfo) -> Any:
        assert info.field_name is not None
        kind = info.data.get("type")  # missing where it is itself wrong
        if kind == "people" and info.field_name == "store" and value is None:
            raise ValueError("is missing; judge.type 'people' needs a file for their answers, such as labels.sqlite")
        if value == cls.model_fields[info.field_name].default:
            return value
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
