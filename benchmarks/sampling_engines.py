"""Tokens a processor second of the two sampling engines, one after the other, several times over, in one run.

    python benchmarks/sampling_engines.py --python /path/to/vllm/bin/python [--model FOLDER]

Each samples the same prompts from the same start with the same adapter. A processor second is one of all threads and
processes that sample: this one, and with vLLM its server's. What counts is the ratio; a machine that does other work
has few seconds to give, but a token costs about as many of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
from pathlib import Path

import psutil
import torch
from peft import get_peft_model

from prefzoo import lab
from prefzoo.lab import MODEL_DIR
from prefzoo.models import vllm_server
from prefzoo.models.adapters import adapter_config
from prefzoo.models.language_model import LanguageModelPolicy
from prefzoo.settings import Adapter, Generation, VllmServer


def processor_seconds() -> float:
    """Of this process and all that it has started, which live as long as the measurement."""
    own = psutil.Process(os.getpid())
    return sum(p.cpu_times().user + p.cpu_times().system for p in [own, *own.children(recursive=True)])


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", required=True)
    parser.add_argument("--model", default=str(MODEL_DIR))
    parser.add_argument("--prompts", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()

    torch.set_num_threads(1)
    start = LanguageModelPolicy.from_start(asked.model, dtype="float32")
    torch.manual_seed(0)
    model = get_peft_model(start.model, adapter_config(Adapter(), "CAUSAL_LM", model=start.model)).eval()
    policy = LanguageModelPolicy(model, start.tokenizer, asked.model, {"dtype": "float32"})
    prompts = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("train", asked.prompts, 1)]
    vllm_server.hosting.folder = Path(tempfile.mkdtemp())
    engines = {
        "transformers": Generation(max_new_tokens=asked.tokens),
        "vllm": Generation(max_new_tokens=asked.tokens, engine="vllm", vllm=VllmServer(python=asked.python)),
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    try:
        for repeat in range(asked.repeats + 1):
            for name, generation in engines.items():
                before = processor_seconds()
                replies = policy.sample(prompts, generation, seed=repeat)
                seconds = processor_seconds() - before
                if repeat:  # the first starts the server and warms up
                    rates[name].append(sum(len(reply.token_ids) for (reply,) in replies) / seconds)
    finally:
        vllm_server.stop_servers(vllm_server.hosting.folder)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    print(json.dumps({"rates": rates, "vllm / transformers": middle["vllm"] / middle["transformers"]}, indent=1))


if __name__ == "__main__":
    main()
