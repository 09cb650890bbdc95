"""Asks a vLLM server by token ids, in the form of OpenAI's completions; imports no torch."""

from __future__ import annotations

import contextlib
import http.client
import json
import math
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefzoo.errors import PrefzooError
from prefzoo.machine import is_loopback

REQUEST_SECONDS = 1800.0
"""For which one request may wait and run."""
FORGETTING = 100
"""How often it is asked to forget keys and values of weights that it no longer has."""


class NoAnswer(PrefzooError):
    """The server cannot be reached, or broke off."""


@dataclass(frozen=True)
class Drawn:
    """A sampled reply: its tokens, the end included, their log-probabilities at the temperature that they were drawn
    at, in nats, and whether it ended by itself."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool


@dataclass(frozen=True)
class Drawing:
    """How replies are drawn from a server.

    Attributes:
        model: what the server calls the weights.
        max_new_tokens, temperature: as of `Generation`.
        ends: tokens that end a reply.
        n: replies to each prompt.
        at_once: prompts that are asked side by side.
    """

    model: str
    max_new_tokens: int
    temperature: float
    ends: Sequence[int]
    n: int = 1
    at_once: int = 128


class VllmClient:
    """A vLLM server.

    Args:
        url: its root, without `/v1`.
        key: which it wants; None where it wants none.
    """

    def __init__(self, url: str, key: str | None = None) -> None:
        self.url, self._key = url, key
        here = is_loopback(urllib.parse.urlsplit(url).hostname or "")
        self._open = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else [])).open

    def problem(self) -> str | None:
        """Why it does not answer; None where it does."""
        try:
            self.models(timeout=5.0)
        except NoAnswer as error:
            return str(error)
        return None

    def models(self, timeout: float = 60.0) -> list[dict[str, Any]]:
        """What it serves: its base, and adapters, which have a `parent`."""
        return list(self._ask("/v1/models", None, timeout)["data"])

    def base(self) -> str:
        """What it calls its base."""
        return str(next(each["id"] for each in self.models() if each.get("parent") is None))

    def tokenize(self, text: str) -> list[int]:
        """The tokens of a text, nothing added."""
        return list(
            self._ask("/tokenize", {"model": self.base(), "prompt": text, "add_special_tokens": False})["tokens"]
        )

    def version(self) -> str:
        """Of vLLM."""
        return str(self._ask("/version", None)["version"])

    def load_adapter(self, name: str, folder: Path) -> None:
        """Have it sample from an adapter too."""
        self._ask("/v1/load_lora_adapter", {"lora_name": name, "lora_path": str(folder)})

    def unload_adapter(self, name: str) -> None:
        """Have it forget an adapter; one that it does not know is forgotten."""
        with contextlib.suppress(PrefzooError):
            self._ask("/v1/unload_lora_adapter", {"lora_name": name})

    def replace_weights(self, folder: Path) -> None:
        """Have it sample from other weights of the same architecture, in the place of its own; nothing may be asked of
        it meanwhile.

        Raises:
            PrefzooError: when it was not started with VLLM_SERVER_DEV_MODE=1, or cannot read them.
        """
        for method, given in (
            ("update_config", {"overrides": {"load_config": {"load_format": "auto"}}}),  # it began with none
            ("reload_weights", {"weights_path": str(folder)}),
        ):
            self._ask("/collective_rpc", {"method": method, "kwargs": given}, REQUEST_SECONDS)
        for _ in range(FORGETTING):  # keys and values of the last request may be held a moment longer
            if self._ask("/reset_prefix_cache", {})["success"]:
                return
            time.sleep(0.1)
        raise PrefzooError(f"{self.url} does not forget what it computed with the weights before these")

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        drawing: Drawing,
        progress: Callable[[int], None] = lambda done: None,
    ) -> list[list[Drawn]]:
        """Draw replies to each prompt, which is given in tokens, with a seed of its own each.

        Raises:
            NoAnswer: when the server is gone.
            PrefzooError: when it refuses a request, or answers in another form.
        """
        replies: list[list[Drawn]] = [[] for _ in prompts]
        with ThreadPoolExecutor(max(1, min(drawing.at_once, len(prompts)))) as pool:
            futures = [pool.submit(self._reply, p, s, drawing) for p, s in zip(prompts, seeds, strict=True)]
            asked = {future: i for i, future in enumerate(futures)}
            try:
                for done, future in enumerate(as_completed(asked), 1):
                    replies[asked[future]] = future.result()
                    progress(done)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return replies

    def _reply(self, prompt: Sequence[int], seed: int, drawing: Drawing) -> list[Drawn]:
        body = {
            "model": drawing.model,
            "prompt": list(prompt),
            "n": drawing.n,
            "max_tokens": drawing.max_new_tokens,
            "temperature": drawing.temperature,
            "seed": seed,
            "logprobs": 0,  # of the sampled token alone
            "stop_token_ids": list(drawing.ends),
            "ignore_eos": True,  # the model's own; ours are in `stop_token_ids`
            "return_token_ids": True,
            # What a server may have other defaults for: what is sampled is the model's own distribution.
            "top_p": 1.0,
            "top_k": 0,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": 0.0,
            "frequency_penalty": 0.0,
        }
        if drawing.temperature == 0 and drawing.n > 1:  # which vLLM refuses
            return self._reply(prompt, seed, Drawing(**{**vars(drawing), "n": 1})) * drawing.n
        answer = self._ask("/v1/completions", body, REQUEST_SECONDS)
        try:
            choices = sorted(answer["choices"], key=lambda choice: int(choice["index"]))
            drawn = [
                Drawn(tuple(choice["token_ids"]), _numbers(choice["logprobs"]), choice["finish_reason"] == "stop")
                for choice in choices
            ]
        except (KeyError, TypeError, ValueError) as error:
            what = f"{type(error).__name__}: {error}"
            raise PrefzooError(f"{self.url} answers in another form than vLLM ({what})") from None
        if len(drawn) != drawing.n or any(len(each.token_ids) != len(each.logprobs) for each in drawn):
            raise PrefzooError(
                f"{self.url} gave {len(drawn)} replies where {drawing.n} were asked for, or other numbers of tokens "
                "than of log-probabilities"
            )
        return drawn

    def _ask(self, path: str, body: dict[str, Any] | None, timeout: float = 60.0) -> Any:
        headers = {"content-type": "application/json"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers)
        try:
            with self._open(request, timeout=timeout) as answer:
                text = answer.read().decode()
        except urllib.error.HTTPError as error:
            kind = NoAnswer if error.code >= 500 else PrefzooError  # what computes has broken down behind it
            raise kind(f"{self.url}{path}: {error.code}: {_said(error)}") from None
        except (OSError, http.client.HTTPException) as error:
            raise NoAnswer(f"{self.url} does not answer: {getattr(error, 'reason', None) or error}") from None
        try:
            return json.loads(text)
        except ValueError:
            return text  # of what changes adapters


def _numbers(logprobs: dict[str, Any]) -> tuple[float, ...]:
    """Log-probabilities of sampled tokens; what the server could not tell is not a number."""
    return tuple(math.nan if p is None else float(p) for p in logprobs["token_logprobs"])


def _said(error: urllib.error.HTTPError) -> str:
    text = error.read().decode(errors="replace")
    with contextlib.suppress(ValueError, AttributeError, TypeError, KeyError):
        content = json.loads(text)
        text = str((content.get("error") or content)["message"])
    return " ".join(text.split())[:400]
