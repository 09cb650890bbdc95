"""vLLM servers that sample for a comparison: found, or started where its stages need them, and stopped at its end.

All stages on a machine share one server for each base model. It belongs to the process that runs the comparison, and
ends with it however that ends (`vllm_watch`); where a stage has no such parent, to the stage.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import multiprocessing
import os
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import psutil
from filelock import FileLock

from prefzoo.errors import PrefzooError
from prefzoo.machine import may_have_gpu
from prefzoo.models.vllm_client import VllmClient
from prefzoo.models.vllm_watch import is_alive
from prefzoo.settings import VllmServer

READY_SECONDS = 1800.0
"""Within which vLLM must have loaded the model."""
ANSWERS_SECONDS = 60.0
"""Within which a server that runs already must say what it serves."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as the highest rank of an adapter."""
ADAPTERS_AT_ONCE = 4
"""Of how many adapters one server samples side by side; requests for others wait."""
SERVERS = "servers"
"""Folder of a comparison with the logs of its servers, and while they run how they are reached."""
LOG_LINES = 12
"""Of a server's log, in an error."""
ON_CPU = ["--enforce-eager", "--no-enable-chunked-prefill"]
"""Compiling takes minutes. vLLM (0.32) breaks down on a seeded request of which only a part is read at a time: it sets
back the offset of a generator, which those of torch for a CPU do not have."""
UNTIED = ["--hf-overrides", '{"tie_word_embeddings": false}']
"""On a CPU vLLM (0.32) packs the output layer, and where that is the embedding, keeps the old pack when the weights are
replaced."""
NOT_FOR_VLLM = (
    "PYTHONPATH",
    "PYTHONHOME",
    "RANK",
    "LOCAL_RANK",
    "WORLD_SIZE",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
)
"""Of this process's environment: another interpreter's packages, and a launcher's processes."""


@dataclass
class Hosting:
    """What stages say of the servers that they may need: the folder of records and logs, the rank of adapters, and
    whether policies are whole models, which take the place of a server's own weights."""

    folder: Path | None = None
    rank: int = 16
    whole: bool = False


hosting = Hosting()


@dataclass(frozen=True)
class Server:
    """A server that answers.

    Attributes:
        client: asks it.
        said: the lines that it printed last; empty for one that others started.
        started: whether it was started for this comparison.
        turn: is held by the process whose weights the server has; None where it samples from several adapters at once.
    """

    client: VllmClient
    said: Callable[[], str] = field(default=lambda: "")
    started: bool = False
    turn: FileLock | None = None


def serving(model: str, dtype: str, settings: VllmServer, progress: Callable[[str, int, int], None]) -> Server:
    """A server with this model's weights as its base.

    Args:
        model: folder of the base.
        dtype: of its weights.
        settings: which server, or how one is started.
        progress: is told while it is waited for.

    Raises:
        PrefzooError: when it does not answer, or ends before it does.
    """
    if settings.url is not None:
        return _running_already(settings.url)
    record = _record_file(model, dtype, settings)
    record.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(record.with_suffix(".lock")):
        if (found := _read(record)) is not None:
            with contextlib.suppress(PrefzooError):  # it has just ended
                return _answering(found, record, progress)
        return _answering(_start(model, dtype, settings, record), record, progress)


def _answering(content: dict[str, Any], record: Path, progress: Callable[[str, int, int], None]) -> Server:
    client, log = VllmClient(content["url"], content["key"]), Path(content["log"])
    _wait(client, content, log, progress)
    turn = FileLock(record.with_suffix(".turn.lock")) if hosting.whole else None
    return Server(client, lambda: last_lines(log), started=True, turn=turn)


def stop_servers(folder: Path) -> None:
    """End the servers with records in a folder that belong to this process."""
    for record in folder.glob(f"{_owner_name(os.getpid())}-*.json"):
        if (content := _read(record)) is not None:
            with contextlib.suppress(psutil.Error):
                watch = psutil.Process(content["pid"])
                watch.send_signal(signal.SIGTERM)
                watch.wait(30)
    for lock in folder.glob(f"{_owner_name(os.getpid())}-*.lock"):
        lock.unlink(missing_ok=True)


def last_lines(log: Path) -> str:
    """The end of a server's log, without what vLLM puts before each line."""
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return "\n".join(line.strip() for line in lines[-LOG_LINES:])


def _running_already(url: str) -> Server:
    client = VllmClient(url, os.environ.get("VLLM_API_KEY"))
    deadline = time.monotonic() + ANSWERS_SECONDS
    while (problem := client.problem()) is not None:
        if time.monotonic() > deadline:
            raise PrefzooError(
                f"generation.vllm.url: {url} does not answer within {ANSWERS_SECONDS:g} seconds ({problem}). Start it "
                "and run the same command again, or give generation.vllm.python to have servers started"
            )
        time.sleep(1)
    return Server(client)


def _owner() -> tuple[int, float]:
    """The process that servers belong to, and when it began."""
    parent = multiprocessing.parent_process()
    pid = os.getpid() if parent is None or parent.pid is None else parent.pid
    return pid, psutil.Process(pid).create_time()


def _owner_name(pid: int) -> str:
    return f"{socket.gethostname()}-{pid}"


def _record_file(model: str, dtype: str, settings: VllmServer) -> Path:
    """Where a server says how it is reached, named after all that it depends on."""
    if hosting.folder is None:
        hosting.folder = Path(tempfile.mkdtemp(prefix="prefzoo-vllm-"))
    about = [str(Path(model).resolve()), dtype, settings.model_dump(mode="json"), hosting.rank, hosting.whole]
    name = hashlib.sha256(json.dumps(about).encode()).hexdigest()[:12]
    return hosting.folder / f"{_owner_name(_owner()[0])}-{name}.json"


def _read(record: Path) -> dict[str, Any] | None:
    """What a record says; None where there is none, or its server is gone."""
    try:
        content: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if is_alive(content["pid"], content["began"]) else None


def what_the_device_needs() -> list[str]:
    """Arguments without which vLLM is slow to start, or breaks down, where there is no GPU."""
    return [] if may_have_gpu() else ON_CPU


def command(model: str, dtype: str, settings: VllmServer, port: int) -> list[str]:
    """How vLLM is started: with adapters at run time unless policies are whole models, and log-probabilities at the
    temperature of each request."""
    python = settings.python or sys.executable
    if hosting.whole:  # real weights come with each policy
        policies = ["--load-format", "dummy", *([] if may_have_gpu() else UNTIED)]
    else:
        most = next(each for each in RANKS if each >= hosting.rank)
        policies = ["--enable-lora", "--max-lora-rank", str(most), "--max-loras", str(ADAPTERS_AT_ONCE)]
    return [
        # What `vllm serve` runs; the command itself is not there where vllm is built under another name.
        *(python, "-m", "vllm.entrypoints.openai.api_server", "--model", str(Path(model).resolve())),
        *("--served-model-name", "base", "--host", "127.0.0.1", "--port", str(port)),
        *("--dtype", dtype, "--generation-config", "vllm", "--logprobs-mode", "processed_logprobs"),
        *("--max-model-len", "auto", "--no-enable-log-requests", "--disable-uvicorn-access-log"),
        *policies,
        *what_the_device_needs(),
        *settings.arguments,
    ]


def launch(server: list[str], key: str, record: Path, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
    """Run a vLLM as long as the process lives that servers here belong to.

    Args:
        server: how vLLM is started.
        key: which it wants.
        record: a file that is deleted at its end.
        output: where it prints; None is where this process does.
    """
    kept = {name: value for name, value in os.environ.items() if name not in NOT_FOR_VLLM}
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        **kept,
        "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
        "VLLM_API_KEY": key,
        **({"VLLM_SERVER_DEV_MODE": "1"} if hosting.whole else {}),  # without which it takes no other weights
    }
    pid, began = _owner()
    watch = [sys.executable, "-m", "prefzoo.models.vllm_watch", str(pid), repr(began), str(record)]
    # The watch needs this package, the server must not see its path.
    paths = os.pathsep.join(path for path in sys.path if path)
    run = [*watch, "/usr/bin/env", "-u", "PYTHONPATH", *server] if os.name == "posix" else [*watch, *server]
    return subprocess.Popen(
        run, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        env={**environment, "PYTHONPATH": paths},
    )  # fmt: skip


def _start(model: str, dtype: str, settings: VllmServer, record: Path) -> dict[str, Any]:
    """Start a server, and write how it is reached where only this user can read it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key, log = secrets.token_urlsafe(24), record.with_suffix(".log")
    with log.open("wb") as file:
        child = launch(command(model, dtype, settings, port), key, record, file)
    content = {
        "url": f"http://127.0.0.1:{port}",
        "key": key,
        "log": str(log),
        "pid": child.pid,
        "began": psutil.Process(child.pid).create_time(),
    }
    with open(os.open(record, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        json.dump(content, file)
    return content


def _wait(client: VllmClient, content: dict[str, Any], log: Path, progress: Callable[[str, int, int], None]) -> None:
    began = time.monotonic()
    while (problem := client.problem()) is not None:
        waited = time.monotonic() - began
        if not is_alive(content["pid"], content["began"]):
            raise PrefzooError(f"vLLM ended before it answered ({log}). Its last lines:\n{last_lines(log)}")
        if waited > READY_SECONDS:
            psutil.Process(content["pid"]).send_signal(signal.SIGTERM)
            raise PrefzooError(
                f"vLLM does not answer within {READY_SECONDS:g} seconds: {problem} ({log}). Its last lines:\n"
                f"{last_lines(log)}"
            )
        progress("waiting for vLLM", 0, 1)
        time.sleep(0.5)
