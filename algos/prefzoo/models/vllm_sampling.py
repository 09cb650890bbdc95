"""Replies of a language model policy, sampled by a vLLM server: weights are handed over, held against the policy's own
probabilities, and then sampled from."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import torch
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from transformers.utils import SAFE_WEIGHTS_NAME

from prefzoo.errors import PrefzooError
from prefzoo.machine import may_have_gpu
from prefzoo.models import vllm_server
from prefzoo.models.vllm_client import Drawing, Drawn, NoAnswer
from prefzoo.models.weight_counts import gathered_weights
from prefzoo.settings import Generation, VllmServer
from prefzoo.types import Completion

PROBES, PROBE_TOKENS = 2, 16
"""Replies, and tokens of each, by which the server's weights are held against the policy's."""
TOLERANCE, TOLERANCE_16_BIT = 1e-3, 0.15
"""How far log-probabilities of tokens may be from the policy's own on average, in nats, with weights in float32 and in
16 bits. In float32 they are 1e-6 away."""

_servers: dict[tuple[str, str, str, bool], vllm_server.Server] = {}
_notes: list[tuple[dict[str, Any], str]] = []


@contextlib.contextmanager
def noting_servers(report: dict[str, Any], key: str) -> Iterator[None]:
    """While the block runs, keep in the list `report[key]` how replies were drawn by vLLM, each way once, by the
    recipe's names; greedy ones are no sampling."""
    _notes.append((report, key))
    try:
        yield
    finally:
        _notes.pop()


class ServedPolicy(Protocol):
    """What is needed of a policy whose weights a server samples from; `LanguageModelPolicy` is one."""

    model: Any
    tokenizer: Any
    start: str
    loading: dict[str, Any]
    eos_ids: list[int]
    adapter_off: bool

    @property
    def adapted(self) -> bool: ...

    def save_model(self, folder: Path) -> None: ...

    def tokens_log_probabilities(
        self, prompts: Sequence[Sequence[int]], replies: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]: ...

    def completion(self, prompt: list[int], ids: list[int]) -> Completion: ...


class VllmSampler:
    """Samples from a policy's weights on a vLLM server.

    Args:
        policy: whose model is the start, with or without a LoRA adapter.
        settings: which server.
        progress: is told while the server is waited for.

    Raises:
        PrefzooError: when there is no server, or it has other tokens.
    """

    def __init__(
        self,
        policy: ServedPolicy,
        settings: VllmServer,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> None:
        self.policy, self.settings = policy, settings
        self.dtype = str(policy.loading.get("dtype") or "float32")
        self.progress = progress or (lambda what, done, total: None)
        key = (policy.start, self.dtype, settings.model_dump_json(), vllm_server.hosting.whole)
        if key not in _servers or (_servers[key].started and _servers[key].client.problem()):
            server = vllm_server.serving(policy.start, self.dtype, settings, self.progress)
            if not server.started:
                self._check_tokens(server)
            _servers[key] = server
        self.server = _servers[key]

    @contextlib.contextmanager
    def weights(self) -> Iterator[str]:
        """Hand the policy's weights to the server, and give the name that they have there while the block runs."""
        with self._told(), tempfile.TemporaryDirectory(prefix="prefzoo-weights-") as folder:
            hand_over = self._adapter if self.server.turn is None else self._whole_model
            with hand_over(Path(folder)) as name:
                yield name

    @contextlib.contextmanager
    def _adapter(self, folder: Path) -> Iterator[str]:
        """The start is handed over as an adapter of zeros: on a CPU vLLM (0.32) adds the adapter in its last place to
        requests for the base."""
        policy, client = self.policy, self.server.client
        name = f"policy-{uuid.uuid4().hex[:12]}"
        if policy.adapted and not policy.adapter_off:
            weights = gathered_weights(policy.model)
            policy.model.save_pretrained(str(folder), selected_adapters=["default"], state_dict=weights)
        else:
            save_zero_adapter(policy.model, folder)
        try:
            client.load_adapter(name, folder)
        except NoAnswer:
            raise
        except PrefzooError as error:
            raise PrefzooError(
                f"vLLM does not take the policy's adapter: {error}. A server that runs already must be started "
                "with --enable-lora, a --max-lora-rank that is high enough and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True, and read this machine's folders"
            ) from None
        try:
            yield name
        finally:
            client.unload_adapter(name)

    @contextlib.contextmanager
    def _whole_model(self, folder: Path) -> Iterator[str]:
        """It takes the place of the one that the server has, and the server is nobody else's while the block runs."""
        assert self.server.turn is not None
        if self.policy.adapted:
            raise PrefzooError(
                f"vLLM holds whole models here (adapter.type: full), and a policy on {self.policy.start} is an adapter"
            )
        with _written_by_each_process(self.policy.model):
            self.policy.save_model(folder)
        if not may_have_gpu():
            untie(self.policy.model, folder / SAFE_WEIGHTS_NAME)
        with self.server.turn:
            self.server.client.replace_weights(folder)
            yield self.server.client.base()

    def check(self, name: str, prompts: Sequence[Sequence[int]], temperature: float) -> None:
        """Draw a few tokens and hold their log-probabilities against the policy's own.

        Raises:
            PrefzooError: when they are others: the server has another model, or gives them at another temperature.
        """
        asked = list({tuple(prompt): None for prompt in prompts})[:PROBES]
        drawing = Drawing(name, PROBE_TOKENS, temperature, self.policy.eos_ids, at_once=PROBES)
        drawn = [replies[0] for replies in self.server.client.draw(asked, range(len(asked)), drawing)]
        theirs = [p for reply in drawn for p in reply.logprobs]
        ours = self.policy.tokens_log_probabilities(asked, [r.token_ids for r in drawn], temperature or 1.0)
        away = sum(abs(a - b) for a, b in zip(theirs, (p for row in ours for p in row), strict=True)) / len(theirs)
        most = TOLERANCE if self.dtype == "float32" else TOLERANCE_16_BIT
        if not away <= most:
            raise PrefzooError(
                f"vLLM at {self.server.client.url} does not sample from this policy: the log-probabilities of "
                f"{len(theirs)} tokens are {away:.3g} nats away from the policy's own on average, and {most:g} is "
                f"allowed. It must serve {self.policy.start} in {self.dtype}, with --logprobs-mode processed_logprobs"
            )

    def draw(
        self,
        prompts: Sequence[Sequence[int]],
        seeds: Sequence[int],
        generation: Generation,
        n: int = 1,
        progress: Callable[[int], None] = lambda done: None,
        checked: bool = True,
    ) -> list[list[Drawn]]:
        """Draw `n` replies to each prompt, given in tokens; `checked` holds the server's weights against the policy's
        first. A seed gives the same replies again as far as vLLM computes the same probabilities again, which depend
        on what else it samples, to rounding."""
        with self.weights() as name:
            if checked:
                self.check(name, prompts, generation.temperature)
            size = max(1, generation.batch_size // n)
            drawing = Drawing(name, generation.max_new_tokens, generation.temperature, self.policy.eos_ids, n, size)
            replies = self.server.client.draw(prompts, seeds, drawing, progress)
            version = self.server.client.version()
        facts = {f"generation.{name}": getattr(generation, name) for name in ("temperature", "max_new_tokens")}
        facts |= {"generation.engine": "vllm", "vllm": version}
        for report, key in _notes:
            if generation.temperature > 0 and facts not in report.setdefault(key, []):
                report[key].append(facts)
        return replies

    def _check_tokens(self, server: vllm_server.Server) -> None:
        text = "What does the mug cost? <|end|> Zwölf €."
        theirs, ours = server.client.tokenize(text), self.policy.tokenizer(text, add_special_tokens=False)["input_ids"]
        if theirs != list(ours):
            raise PrefzooError(
                f"generation.vllm.url: {server.client.url} has another tokenizer than the start, {self.policy.start}: "
                f"it divides a text into {len(theirs)} tokens where the start has {len(ours)}, or into others"
            )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Say what a server that is gone has printed last, and that nothing is lost."""
        try:
            yield
        except NoAnswer as error:
            said = self.server.said()
            lines = f" Its last lines:\n{said}" if said else ""
            raise PrefzooError(
                f"vLLM was lost while it sampled: {error}. What is finished stays; the same command goes on from there."
                f"{lines}"
            ) from None


@contextlib.contextmanager
def _written_by_each_process(model: Any) -> Iterator[None]:
    """Within this block every process of a training writes a model that it saves, where transformers would have the
    first one write alone."""
    decides = "should_save_on_this_rank"
    with mock.patch.object(type(model), decides, lambda *_: True) if hasattr(model, decides) else nullcontext():
        yield


def untie(model: Any, file: Path) -> None:
    """Write the output layer into a file of weights that has it as the embedding only; see `vllm_server.UNTIED`."""
    output = model.get_output_embeddings().weight.detach()
    save_file({"lm_head.weight": output, **load_file(file)}, file)


def save_zero_adapter(model: Any, folder: Path) -> None:
    """Write an adapter on one layer that changes nothing."""
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    head = inner.get_output_embeddings()
    path, layer = next(
        (name.removesuffix(".base_layer"), module)
        for name, module in inner.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head and "lora_" not in name
    )
    LoraConfig(r=1, lora_alpha=1, target_modules=[path.rpartition(".")[2]], task_type="CAUSAL_LM").save_pretrained(
        folder
    )
    sizes = {"A": (1, layer.in_features), "B": (layer.out_features, 1)}
    zeros = {f"base_model.model.{path}.lora_{side}.weight": torch.zeros(size) for side, size in sizes.items()}
    save_file(zeros, folder / "adapter_model.safetensors")


def sample(
    policy: ServedPolicy,
    rendered: Sequence[Sequence[int]],
    generation: Generation,
    seeds: Sequence[int],
    n: int,
    progress: Callable[[str, int, int], None] | None,
) -> list[list[Completion]]:
    """`n` replies of a policy to each prompt, given in tokens; see `Policy.sample`."""
    sampler = VllmSampler(policy, generation.vllm, progress)

    def told(done: int) -> None:
        if progress is not None:
            progress("sampling", done * n, len(rendered) * n)

    drawn = sampler.draw(rendered, seeds, generation, n, told)
    return [
        [policy.completion(list(prompt), list(reply.token_ids)) for reply in replies]
        for prompt, replies in zip(rendered, drawn, strict=True)
    ]
