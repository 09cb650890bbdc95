"""What a recipe's `judge.endpoint:` block may say."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from prefzoo.settings import Settings


class EndpointSettings(Settings):
    """A server that speaks OpenAI's chat completions: `base_url` up to and without `/chat/completions` (most often it
    ends in `/v1`), and the `model` as the server names it.

    The key is read from the environment variable that `key_env` names; where that is not set no key is sent, which
    suits servers without keys. At most `concurrency` requests are under way at a time. One takes at most `timeout`
    seconds and is repeated up to `retries` times. `price_in` and `price_out` are what a million tokens of questions and
    of answers cost, in any currency; the report says what was spent where one is given. `temperature` 0 is greedy.
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
