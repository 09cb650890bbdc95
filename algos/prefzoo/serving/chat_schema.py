"""OpenAI's chat completions: the request as it may be sent, and the answers in its form; imports no torch."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from prefzoo.errors import did_you_mean
from prefzoo.serving.generation_request import GenerationRequest, Piece, RequestError, TokenScore

MOST_REPLIES = 16
MOST_TOP = 20


def _is_text(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"holds half a surrogate pair at letter {error.start}; send valid Unicode") from None
    return text


def _is_neutral(number: float) -> float:
    if number != 0:
        raise ValueError("is not done here; leave it out, or send 0")
    return number


def _as_parts(content: Any) -> Any:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _as_list(stop: Any) -> Any:
    return [stop] if isinstance(stop, str) else stop


Text = Annotated[str, AfterValidator(_is_text)]
Neutral = Annotated[float, AfterValidator(_is_neutral)]
"""A penalty, which would change the reply's distribution: only 0, which does nothing."""


class _Part(BaseModel):
    """Text in a list of parts."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Text


class Turn(BaseModel):
    model_config = ConfigDict(extra="forbid")
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[list[_Part], BeforeValidator(_as_parts), Field(min_length=1)]
    name: str | None = None
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    audio: None = None
    annotations: Any = None

    def message(self) -> dict[str, str]:
        """As the chat template takes it."""
        content = "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": content}


class _StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid")
    include_usage: bool = False
    include_obfuscation: bool = False


class _ResponseFormat(BaseModel):
    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]


class ChatRequest(BaseModel):
    """The body of `POST /v1/chat/completions`. What would change the reply and is not done is refused, never passed
    over; what would not, such as `store`, is taken."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model: Text
    messages: list[Turn] = Field(min_length=1)
    stream: bool | None = False
    stream_options: _StreamOptions | None = None
    n: int | None = Field(1, ge=1, le=MOST_REPLIES)
    temperature: float | None = Field(None, ge=0, le=100, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    stop: Annotated[list[Text] | None, BeforeValidator(_as_list), Field(max_length=4)] = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    logprobs: bool | None = False
    top_logprobs: int | None = Field(None, ge=0, le=MOST_TOP)
    user: Text | None = None
    safety_identifier: Text | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    frequency_penalty: Neutral | None = None
    presence_penalty: Neutral | None = None
    logit_bias: Annotated[dict[str, float], Field(max_length=0)] | None = None
    response_format: _ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _fits(self) -> ChatRequest:
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs: set logprobs to true with it")
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options: set stream to true with it")
        if "" in (self.stop or ()):
            raise ValueError("stop: an empty text would end every reply at once")
        return self

    def request(self, policy: str) -> GenerationRequest:
        """What an engine is asked for."""
        return GenerationRequest(
            policy,
            [turn.message() for turn in self.messages],
            n=self.n or 1,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p or 1.0,
            stop=tuple(self.stop or ()),
            seed=self.seed,
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


def read_request(body: object, schema: type[Any] = ChatRequest) -> Any:
    """A body that was JSON, checked.

    Raises:
        RequestError: naming everything that is wrong with it, and the nearest right spelling of unknown keys.
    """
    if not isinstance(body, dict):
        raise RequestError(f"the body is a JSON {type(body).__name__}; send an object")
    try:
        return schema.model_validate(body)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False)
        told = [_told(each, schema) for each in found[:20]]
        told += [f"and {len(found) - 20} more mistakes"] if len(found) > 20 else []
        first = next((str(each["loc"][0]) for each in found if each["loc"]), None)
        raise RequestError("; ".join(dict.fromkeys(told)), param=first) from None


def _told(error: Mapping[str, Any], schema: type[BaseModel]) -> str:
    place = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        near = did_you_mean(place, schema.model_fields) if len(error["loc"]) == 1 else ""
        return f"{place[:80]}: is not a key that is known here.{near}"
    if error["type"] == "missing":
        return f"{place}: is missing"
    said = repr(error["input"])
    said = "" if not error["loc"] else f" (it is {said if len(said) <= 80 else said[:77] + '...'})"
    return f"{place}: {error['msg'].removeprefix('Value error, ')}{said}".removeprefix(": ")


def _entry(token: str, logprob: float) -> dict[str, Any]:
    whole = "\ufffd" not in token
    return {"token": token, "logprob": logprob, "bytes": list(token.encode()) if whole else None}


def logprobs_of(scores: Sequence[TokenScore]) -> dict[str, Any]:
    """OpenAI's `logprobs`; a token that is a part of a letter has no `bytes`."""
    content = [
        {**_entry(score.token, score.logprob), "top_logprobs": [_entry(token, p) for token, p in score.top]}
        for score in scores
    ]
    return {"content": content, "refusal": None}


def usage_of(prompt_tokens: int, reply_tokens: int) -> dict[str, int]:
    """OpenAI's `usage`."""
    total = prompt_tokens + reply_tokens
    return {"prompt_tokens": prompt_tokens, "completion_tokens": reply_tokens, "total_tokens": total}


class Answer:
    """Puts the pieces of some replies into OpenAI's form.

    Args:
        id: of the answer.
        model: its name as it was asked for.
        prompt_tokens: of the prompt.
        scored: whether log-probabilities were asked for.
    """

    def __init__(self, id: str, model: str, prompt_tokens: int, scored: bool) -> None:
        self.id = id
        self._head: dict[str, Any] = {"id": id, "created": int(time.time()), "model": model}
        self._prompt_tokens, self._scored = prompt_tokens, scored
        self._begun: set[int] = set()
        self._scores: dict[int, list[TokenScore]] = {}
        self.finished: dict[int, Piece] = {}
        """The last piece of each reply that has ended."""

    def add(self, piece: Piece) -> None:
        """Keep what the whole answer needs of a piece."""
        if self._scored:
            self._scores.setdefault(piece.index, []).extend(piece.scores)
        if piece.finish is not None:
            self.finished[piece.index] = piece

    def chunk(self, piece: Piece, usage: bool) -> str:
        """The server-sent events for a piece; `usage`: whether its chunks have a key of that name."""
        self.add(piece)
        choice: dict[str, Any] = {"index": piece.index, "delta": {}, "finish_reason": None, "logprobs": None}
        events = ""
        if piece.index not in self._begun:
            self._begun.add(piece.index)
            events += self._event([{**choice, "delta": {"role": "assistant", "content": ""}}], usage)
        if piece.text or piece.scores:
            scores = logprobs_of(piece.scores) if piece.scores else None
            events += self._event([{**choice, "delta": {"content": piece.text}, "logprobs": scores}], usage)
        if piece.finish is not None:
            events += self._event([{**choice, "finish_reason": piece.finish}], usage)
        return events

    def end(self, usage: bool) -> str:
        """The events that end a stream."""
        last = self._event([], usage, self._usage()) if usage else ""
        return f"{last}data: [DONE]\n\n"

    def whole(self) -> dict[str, Any]:
        """The answer that is not streamed."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": piece.whole, "refusal": None},
                "finish_reason": piece.finish,
                "logprobs": logprobs_of(self._scores.get(index, [])) if self._scored else None,
            }
            for index, piece in sorted(self.finished.items())
        ]
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": self._usage()}

    def _usage(self) -> dict[str, int]:
        return usage_of(self._prompt_tokens, sum(piece.tokens for piece in self.finished.values()))

    def _event(self, choices: list[dict[str, Any]], usage: bool, total: dict[str, int] | None = None) -> str:
        more = {"usage": total} if usage else {}
        return sse({**self._head, "object": "chat.completion.chunk", "choices": choices, **more})


def sse(content: Mapping[str, Any]) -> str:
    """One server-sent event."""
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"
