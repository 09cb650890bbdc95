"""Tokens a second of the ways to sample on a GPU, from one policy with an adapter; run as a process of its own.

    python gpu_sampling.py SETTINGS.json

`transformers` is its own loop, as raw TRL samples; `launched` is ours, with steps one by one; `replayed` is ours with
steps that are recorded once; `vllm` is a server, where the settings name an interpreter that has it. Replies of random
weights practically never end before the length limit, so that all ways compute as many tokens.
"""

from __future__ import annotations

import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch
from gpu_use import GpuUse
from measuring import write
from models import random_texts
from peft import get_peft_model

from prefzoo.models import decoding, replayed_steps, vllm_server
from prefzoo.models.adapters import adapter_config
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.settings import Adapter, Generation, VllmServer


def main(given: dict[str, Any]) -> dict[str, Any]:
    """For each way and number of rows, the tokens a second of each repeat, and how busy the GPU was."""
    start = LanguageModelPolicy.from_start(given["start"], dtype=given["dtype"])
    torch.manual_seed(0)
    model = get_peft_model(start.model, adapter_config(Adapter(), "CAUSAL_LM", model=start.model)).eval()
    policy = LanguageModelPolicy(model, start.tokenizer, given["start"], {"dtype": given["dtype"]})
    ways = ["transformers", "launched", "replayed"]
    if given.get("vllm"):
        ways.append("vllm")
        vllm_server.hosting.folder = Path(tempfile.mkdtemp())
    found: dict[str, Any] = {}
    try:
        for rows in given["rows"]:
            texts = random_texts(rows, given["words"], rows)
            prompts = [[{"role": "user", "content": text}] for text in texts]
            found[str(rows)] = {way: timed(policy, prompts, way, given) for way in ways}
    finally:
        if "vllm" in ways:
            vllm_server.stop_servers(vllm_server.hosting.folder)
    return {"rows": found}


def timed(policy: LanguageModelPolicy, prompts: list[Any], way: str, given: dict[str, Any]) -> dict[str, Any]:
    """Tokens a second of each repeat, but for a first one that warms up, and how steps were computed."""
    generation = Generation(max_new_tokens=given["tokens"], batch_size=len(prompts))
    if way == "vllm":
        server = VllmServer(python=given["vllm"], arguments=["--gpu-memory-utilization", "0.4"])
        generation = generation.model_copy(update={"engine": "vllm", "vllm": server})
    rates, began = [], 0.0
    with GpuUse() as use, replayed_steps.noting_steps() as steps, taking(way):
        for repeat in range(given["repeats"] + 1):
            before = time.perf_counter()
            replies = policy.sample(prompts, generation, seed=repeat)
            now = time.perf_counter()
            if repeat:
                began = began or before
                rates.append(sum(len(reply.token_ids) for (reply,) in replies) / (now - before))
    return {"tokens_per_second": rates, "steps": steps, **use.busy(began, now)}


def taking(way: str) -> Any:
    """What makes `LanguageModelPolicy.sample` take this way."""
    if way == "launched":
        return mock.patch.object(replayed_steps, "DEVICES", ())
    if way == "transformers":
        return mock.patch.object(decoding, "_is_plain", lambda *_: False)
    return contextlib.nullcontext()


if __name__ == "__main__":
    settings = json.loads(Path(sys.argv[1]).read_text())
    write(Path(settings["out"]) / "found.json", main(settings))
