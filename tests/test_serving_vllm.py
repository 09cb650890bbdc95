"""vLLM as the engine: what it is started with and asked, against a server that answers as vLLM does."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
import torch
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from peft import PeftModel
from tests.serving import running

from prefzoo.errors import PrefzooError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.models.loading import load_tokenizer
from prefzoo.serving import vllm_engine
from prefzoo.serving.generation_request import GenerationRequest, RequestError
from prefzoo.serving.vllm_engine import VllmEngine, VllmPolicies, start_vllm, vllm_policies
from prefzoo.settings import Generation

ASKED = [{"role": "user", "content": "What does the mug <|end|> cost?"}]
REPLY = [("It", -0.5), (" costs", -0.25), (" 7.", -1.0), ("", -0.125)]


def adapter(folder: Path, start: Path | str = MODEL_DIR, **config) -> Path:
    """The files of a saved adapter that say what it is."""
    folder.mkdir()
    content = {"kind": "adapter", "start": str(start), "start_is_relative": False, "loading": config.pop("loading", {})}
    (folder / "policy.json").write_text(json.dumps(content))
    (folder / "adapter_config.json").write_text(json.dumps({"r": 4, **config}))
    return folder


def fake_vllm(asked: list[dict]) -> FastAPI:
    """Answers every completion with `REPLY`, a token a chunk; refuses a model named `bad`."""
    app = FastAPI()

    @app.post("/v1/completions")
    async def _complete(request: Request):
        body = await request.json()
        asked.append({**body, "key": request.headers["authorization"]})
        if body["model"] == "bad":
            return JSONResponse({"error": {"message": "no such LoRA", "type": "NotFoundError"}}, 404)

        async def events():
            for i, (token, p) in enumerate(REPLY):
                logprobs = None
                if body.get("logprobs") is not None:
                    logprobs = {"tokens": [token], "token_logprobs": [p], "top_logprobs": [{token: p, "x": p - 1}]}
                for index in range(body["n"]):
                    last = "stop" if i == len(REPLY) - 1 else None
                    choice = {
                        "index": index,
                        "text": token,
                        "logprobs": logprobs,
                        "finish_reason": last,
                        "token_ids": [9],
                    }
                    yield f"data: {json.dumps({'id': 'c', 'object': 'text_completion', 'choices': [choice]})}\n\n"
            yield "data: [DONE]\n\n"

        return StreamingResponse(events(), media_type="text/event-stream")

    @app.get("/v1/models")
    async def _models():
        return {"object": "list", "data": []}

    return app


def test_vllm_is_given_our_tokens_and_its_pieces_are_passed_on() -> None:
    asked: list[dict] = []
    generation = {name: Generation(max_new_tokens=30, temperature=0.5) for name in ("dpo", "bad")}
    with running(fake_vllm(asked)) as url:

        async def ask():
            engine = VllmEngine(f"{url}/v1", "key", VllmPolicies(str(MODEL_DIR), None, {}), generation)
            request = GenerationRequest("dpo", ASKED, n=2, top_logprobs=1, stop=("x",), seed=3)
            tokens = await engine.check(request)
            pieces = [piece async for piece in engine.generate(request)]
            with pytest.raises(RequestError, match="vLLM: no such LoRA") as refused:
                [piece async for piece in engine.generate(GenerationRequest("bad", ASKED))]
            with pytest.raises(RequestError, match="Did you mean 'dpo'"):
                await engine.check(GenerationRequest("dpp", ASKED))
            engine.stop(10)
            with pytest.raises(RequestError, match="being stopped"):
                [piece async for piece in engine.generate(request)]
            return tokens, pieces, refused.value.status

        tokens, pieces, status = asyncio.run(ask())
    prompt = load_tokenizer(str(MODEL_DIR)).apply_chat_template(ASKED, add_generation_prompt=True, return_dict=False)
    first = asked[0]
    assert first["prompt"] == prompt and tokens == len(prompt) and first["key"] == "Bearer key" and status == 404
    said = {name: first[name] for name in ("model", "n", "max_tokens", "temperature", "seed", "stop", "logprobs")}
    wanted = {"model": "dpo", "n": 2, "max_tokens": 30, "temperature": 0.5, "seed": 3, "stop": ["x"], "logprobs": 1}
    assert said == wanted and first["stop_token_ids"] == [1]
    for index in (0, 1):
        mine = [piece for piece in pieces if piece.index == index]
        assert [(score.token, score.logprob) for piece in mine for score in piece.scores] == REPLY
        assert mine[0].scores[0].top == [("It", -0.5), ("x", -1.5)]
        assert (mine[-1].finish, mine[-1].tokens, mine[-1].whole) == ("stop", 4, "It costs 7.")


def test_a_vllm_that_is_gone_is_told() -> None:
    async def ask():
        engine = VllmEngine("http://127.0.0.1:9/v1", "k", VllmPolicies(str(MODEL_DIR), None, {}), {"a": Generation()})
        with pytest.raises(RequestError, match="vLLM does not answer") as refused:
            [piece async for piece in engine.generate(GenerationRequest("a", ASKED))]
        assert refused.value.status == 502

    asyncio.run(ask())


def test_one_vllm_serves_the_start_with_adapters_on_it(tmp_path) -> None:
    policies = {"dpo": adapter(tmp_path / "dpo"), "ppo": adapter(tmp_path / "ppo", r=20), "start": None}
    command = vllm_policies(policies, str(MODEL_DIR), {"dtype": "bfloat16"}).command(1234)
    told = " ".join(command[2:])
    assert f"--model {MODEL_DIR} --served-model-name start --host 127.0.0.1 --port 1234 --dtype float32" in told
    assert "--enable-lora --max-loras 2 --max-lora-rank 32" in told
    assert f"--lora-modules dpo={tmp_path / 'dpo'} ppo={tmp_path / 'ppo'}" in told


def test_the_start_beside_adapters_is_an_adapter_that_changes_nothing(tmp_path) -> None:
    alone = VllmPolicies(str(MODEL_DIR), "start", {})
    assert alone.beside_adapters(tmp_path / "none") is alone and not (tmp_path / "none").exists()
    dpo = adapter(tmp_path / "dpo")
    beside = VllmPolicies(str(MODEL_DIR), "start", {"dpo": dpo}).beside_adapters(tmp_path / "zero")
    assert beside.model_name is None and beside.adapters == {"dpo": dpo, "start": tmp_path / "zero"}
    start = LanguageModelPolicy.from_start(str(MODEL_DIR))
    ids = torch.arange(8)[None]
    with torch.inference_mode():
        before = start.model(ids).logits
        assert torch.equal(PeftModel.from_pretrained(start.model, str(tmp_path / "zero"))(ids).logits, before)


def test_what_one_vllm_cannot_serve_is_told_before_it_is_started(tmp_path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    (whole / "policy.json").write_text(json.dumps({"kind": "model", "start": ".", "start_is_relative": True}))
    dora = adapter(tmp_path / "dora", use_dora=True, loading={"quantization": {"load_in_4bit": True}})
    with pytest.raises(PrefzooError) as refused:
        vllm_policies({"dora": dora, "whole": whole, "start": None}, str(MODEL_DIR), {})
    for words in ("dora was trained with adapter.use_dora", "quantized base", "several whole models"):
        assert words in str(refused.value)


def test_a_child_that_answers_is_used_and_one_that_ends_is_told(monkeypatch, tmp_path) -> None:
    serving = (
        "import json, sys\nfrom http.server import BaseHTTPRequestHandler, HTTPServer\n"
        "class H(BaseHTTPRequestHandler):\n"
        "    def do_GET(self):\n"
        "        self.send_response(200); self.send_header('content-type', 'application/json'); self.end_headers()\n"
        "        self.wfile.write(json.dumps({'object': 'list', 'data': []}).encode())\n"
        "HTTPServer(('127.0.0.1', int(sys.argv[1])), H).serve_forever()\n"
    )
    policies = VllmPolicies(str(MODEL_DIR), "start", {})
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(PrefzooError, match="vLLM is not installed here; give --vllm-python"):
        start_vllm(policies, {})
    with pytest.raises(PrefzooError, match=f"--vllm-python: '{sys.executable}' has no vllm"):
        start_vllm(policies, {}, sys.executable)
    monkeypatch.setattr(vllm_engine.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(VllmPolicies, "command", lambda self, port, python: [sys.executable, "-c", serving, str(port)])
    engine = start_vllm(policies, {"start": Generation()})
    assert engine._child.poll() is None
    engine.stop(0.0)
    assert engine._child.poll() is not None
    monkeypatch.setattr(
        VllmPolicies, "command", lambda self, port, python: [sys.executable, "-c", "raise SystemExit(3)"]
    )
    with pytest.raises(PrefzooError, match="ended with exit code 3"):
        start_vllm(policies, {"start": Generation()})
