"""A server that answers as vLLM does, from the lab's model in this process, and misbehaves as a test tells it to."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import torch
from peft import PeftModel

from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import load_model
from prefzoo.models.sampling_batches import SampledModel
from prefzoo.settings import Generation


class FakeVllm:
    """Samples from the lab's model with the adapters that it is given.

    Attributes:
        asked: bodies of completions, in the order in which they came.
        loaded: every adapter that was ever loaded; `adapters` are those that still are.
        shift: is added to each log-probability.
        dies_after: it breaks off every completion after so many; None never does.
        tokens_off: is added to the tokens that it says a text has.
        takes_adapters: whether it was started with --enable-lora.
        takes_weights: whether it was started with VLLM_SERVER_DEV_MODE=1; `replaced` counts the models that it took.
        forgets: how often it is asked to forget keys and values before it does.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.loaded: list[str] = []
        self.adapters: dict[str, LanguageModelPolicy] = {}
        self.shift, self.tokens_off, self.takes_adapters = 0.0, 0, True
        self.takes_weights, self.replaced, self.forgets = True, 0, 1
        self.dies_after: int | None = None
        self.url = ""
        self._base = self._model = LanguageModelPolicy.from_start(str(MODEL_DIR))
        self._remembers = 0
        self._lock = threading.Lock()

    def get(self, path: str) -> tuple[int, Any]:
        if path == "/version":
            return 200, {"version": "0.0"}
        named = [{"id": "base", "parent": None}, *({"id": name, "parent": "base"} for name in self.adapters)]
        return 200, {"data": named}

    def post(self, path: str, body: dict[str, Any]) -> tuple[int, Any]:
        with self._lock:
            if path == "/tokenize":
                ids = self._base.tokenizer(body["prompt"], add_special_tokens=False)["input_ids"]
                return 200, {"tokens": [i + self.tokens_off for i in ids]}
            if path == "/v1/load_lora_adapter":
                if not self.takes_adapters:
                    return 404, {"detail": "Not Found", "message": "Not Found"}
                self.loaded.append(body["lora_name"])
                start = LanguageModelPolicy.from_start(str(MODEL_DIR))
                adapted = PeftModel.from_pretrained(start.model, body["lora_path"]).eval()
                self.adapters[body["lora_name"]] = LanguageModelPolicy(adapted, start.tokenizer, start.start)
                return 200, "Success"
            if path == "/v1/unload_lora_adapter":
                del self.adapters[body["lora_name"]]
                return 200, "Success"
            if path == "/collective_rpc" and self.takes_weights and body["method"] == "update_config":
                return 200, {"results": [None]}
            if path == "/collective_rpc" and self.takes_weights:
                weights = load_model(body["kwargs"]["weights_path"]).eval()
                self._model = LanguageModelPolicy(weights, self._base.tokenizer, str(MODEL_DIR))
                self.replaced, self._remembers = self.replaced + 1, self.forgets
                return 200, {"results": [None]}
            if path == "/reset_prefix_cache" and self.takes_weights:
                self._remembers -= 1
                return 200, {"success": self._remembers <= 0}
            if not path.startswith("/v1/"):
                return 404, {"detail": "Not Found"}
            if self.dies_after is not None and len(self.asked) >= self.dies_after:
                return 0, None
            return self._complete(body)

    def _complete(self, body: dict[str, Any]) -> tuple[int, Any]:
        self.asked.append(body)
        whole = body["model"] == "base" and self.replaced
        if not whole and body["model"] not in self.adapters:
            return 404, {"error": {"message": f"The model `{body['model']}` does not exist."}}
        assert not whole or self._remembers <= 0, "what it computed before is of other weights"
        policy, heat = self._model if whole else self.adapters[body["model"]], body["temperature"]
        generation = Generation(max_new_tokens=body["max_tokens"], temperature=heat)
        choices = []
        for k in range(body["n"]):
            with torch.random.fork_rng(), torch.inference_mode():
                sampled = SampledModel(policy.model, policy.tokenizer, policy.eos_ids, "padded")
                ((ids,),) = sampled.replies([body["prompt"]], generation, body["seed"] + k)
                reply = policy.completion(body["prompt"], ids)
                (logs,) = policy.tokens_log_probabilities([body["prompt"]], [reply.token_ids], heat or 1.0)
            choices.append(
                {
                    "index": k,
                    "token_ids": list(reply.token_ids),
                    "logprobs": {"token_logprobs": [p + self.shift for p in logs]},
                    "finish_reason": "stop" if reply.finished else "length",
                }
            )
        return 200, {"choices": choices[::-1]}


@contextmanager
def running_vllm() -> Iterator[FakeVllm]:
    """Such a server on a free port of this machine."""
    fake = FakeVllm()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(*fake.get(self.path))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            self._send(*fake.post(self.path, body))

        def _send(self, status: int, content: Any) -> None:
            if not status:  # it broke off
                self.close_connection = True
                return
            text = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler, bind_and_activate=False)
    server.request_queue_size = 1024  # a whole batch may come at once, and a busy machine takes a while
    server.server_bind()
    server.server_activate()
    server.handle_error = lambda *args: None  # type: ignore[method-assign]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
