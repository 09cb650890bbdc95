"""A server in this process, and policies whose adapters are drawn, not trained."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def drawn_adapter(folder: Path, seed: int, start: str | None = None, spread: float = 0.02) -> Path:
    """Save a policy on this start, or the lab model, with an adapter that changes what it says."""
    import torch
    from peft import get_peft_model

    from prefzoo.lab import MODEL_DIR
    from prefzoo.models.adapters import adapter_config
    from prefzoo.models.language_model import LanguageModelPolicy
    from prefzoo.settings import Adapter

    start = start or str(MODEL_DIR)
    base = LanguageModelPolicy.from_start(start, dtype="float32")
    torch.manual_seed(seed)
    model = get_peft_model(base.model, adapter_config(Adapter(r=4, alpha=8), "CAUSAL_LM", model=base.model))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=spread)
    LanguageModelPolicy(model.eval(), base.tokenizer, start, base.loading).save(folder)
    return folder


@contextlib.contextmanager
def running(app: Any) -> Iterator[str]:
    """Serve an app on a free port, in a thread; gives its address."""
    import uvicorn

    from prefzoo.serving.run_server import address_of, listen

    listener = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield address_of(listener)
    finally:
        server.should_exit = True
        thread.join(20)
