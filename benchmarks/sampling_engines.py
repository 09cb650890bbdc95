"""Tokens a processor second of the sampling engines, one after the other, several times over, in one run.

    python benchmarks/sampling_engines.py --python /path/to/vllm/bin/python --out FILE [--model FOLDER --prompts 32]

Each samples the same prompts from the same start with the same adapter: transformers as rollouts and evaluation do,
transformers' own loop with a cache of fixed size and the adapter left apart (`cache_implementation="static"`, which no
recipe offers), and vLLM. A processor second is one of all threads and processes that sample: this one, and with vLLM
its server's. What counts is the ratio; a machine that does other work has few seconds to give, but a token costs about
as many of them. What is found is added to FILE under the model's name.
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
from measuring import machine, write
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
    """Measure, and write what is found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default=str(MODEL_DIR))
    parser.add_argument("--prompts", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    asked = parser.parse_args()

    torch.set_num_threads(1)
    about = machine()
    start = LanguageModelPolicy.from_start(asked.model, dtype="float32")
    torch.manual_seed(0)
    model = get_peft_model(start.model, adapter_config(Adapter(), "CAUSAL_LM", model=start.model)).eval()
    policy = LanguageModelPolicy(model, start.tokenizer, asked.model, {"dtype": "float32"})
    prompts = [[{"role": "user", "content": pair["prompt"]}] for pair in lab.preferences("train", asked.prompts, 1)]
    vllm_server.hosting.folder = Path(tempfile.mkdtemp())
    here = Generation(max_new_tokens=asked.tokens)
    engines = {
        "transformers": (here, None),
        "static cache": (here, "static"),
        "vllm": (Generation(max_new_tokens=asked.tokens, engine="vllm", vllm=VllmServer(python=asked.python)), None),
    }
    rates: dict[str, list[float]] = {name: [] for name in engines}
    try:
        for repeat in range(asked.repeats + 1):
            for name, (generation, cache) in engines.items():
                model.generation_config.cache_implementation = cache
                before = processor_seconds()
                replies = policy.sample(prompts, generation, seed=repeat)
                seconds = processor_seconds() - before
                if repeat:  # the first starts the server and warms up
                    rates[name].append(sum(len(reply.token_ids) for (reply,) in replies) / seconds)
                print(name, rates[name], flush=True)
    finally:
        vllm_server.stop_servers(vllm_server.hosting.folder)
    middle = {name: statistics.median(values) for name, values in rates.items()}
    found = json.loads(asked.out.read_text()) if asked.out.is_file() else {}
    found["lab" if asked.model == str(MODEL_DIR) else Path(asked.model).name] = {
        "machine": about,
        "weights with adapter": policy.parameters,
        "prompts": asked.prompts,
        "tokens": asked.tokens,
        "tokens a processor second": rates,
        "ratio to transformers": {name: rate / middle["transformers"] for name, rate in middle.items()},
    }
    write(asked.out, found)


if __name__ == "__main__":
    main()
