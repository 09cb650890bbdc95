"""A policy that is a causal language model: a base, with an adapter on it or fully fine-tuned."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from transformers import PreTrainedModel

from prefzoo.interface import Bench
from prefzoo.ledger import Ledger
from prefzoo.models import shared_base, vllm_sampling
from prefzoo.models.adapters import read_adapter
from prefzoo.models.batch_invariance import Batching, is_attention_only, sampling_batches
from prefzoo.models.chat_rendering import EncodedAgain
from prefzoo.models.checkpoint import check_token_ids
from prefzoo.models.dropout import own_dropout
from prefzoo.models.loading import (
    count_parameters,
    end_of_turn,
    load_model,
    load_tokenizer,
    tokenizer_arguments,
)
from prefzoo.models.padding import padded
from prefzoo.models.policy_kinds import EXTRA, write_policy_file
from prefzoo.models.reply_likelihoods import ReplyLikelihoods
from prefzoo.models.sampling_batches import SampledModel, derived_seed
from prefzoo.models.score_head import backbone
from prefzoo.models.weight_counts import BACKBONE, HEAD, gathered_weights, weights_of
from prefzoo.settings import Generation
from prefzoo.types import Completion, Progress, Prompt

RENDERED = 10_000
"""Of how many prompts a policy remembers the tokens."""

ADAPTER_CARD = """\
# An adapter trained by Prefzoo

It belongs on the start policy of its comparison, `{base}`, which `adapter_config.json` names too:
`peft.AutoPeftModelForCausalLM.from_pretrained(THIS_FOLDER)` loads both, from any folder.

Where the run was moved since, that place is gone. `prefzoo.load_policy(THIS_FOLDER)`, `prefzoo sample` and
`prefzoo export` go by `policy.json`, which has the start's place relative to this folder; peft is told it by hand:
`peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(START), THIS_FOLDER)`.
"""
"""Takes the place of peft's card, which is a form that nobody has filled in."""


class LanguageModelPolicy(ReplyLikelihoods):
    """A model that samples and scores replies.

    Args:
        model: a transformers model, or a `PeftModel` over the start.
        tokenizer: as `load_tokenizer` prepares it.
        start: folder of the start policy that `model` came from.
        loading: how the start's files are read (dtype, trust_remote_code, quantization).
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        tokenizer: Any,
        start: str,
        loading: dict[str, Any] | None = None,
    ) -> None:
        self.model, self.tokenizer, self.start = model, tokenizer, start
        self.loading = dict(loading or {})
        check_token_ids(tokenizer, model, start)
        ends = model.generation_config.eos_token_id
        listed = ends if isinstance(ends, list) else [ends]
        candidates = (*listed, tokenizer.eos_token_id, end_of_turn(tokenizer))
        self.eos_ids = sorted({i for i in candidates if i is not None})
        model.generation_config.eos_token_id = self.eos_ids  # for trainers that sample by themselves

    @classmethod
    def from_start(cls, start: str, **loading: Any) -> LanguageModelPolicy:
        """Load the start policy; within `shared_base.shared` its weights are shared with other models."""
        tokenizer = load_tokenizer(start, **tokenizer_arguments(loading))
        return cls(shared_base.load_with_shared_weights(start, **loading).eval(), tokenizer, start, loading)

    @classmethod
    def start_of(cls, bench: Bench) -> LanguageModelPolicy:
        """The start policy of a bench."""
        return cls.from_start(bench.start, **bench.loading)

    @classmethod
    def load(cls, folder: Path, start: str, content: dict[str, Any]) -> LanguageModelPolicy:
        """Load what `save` wrote, on its start; `content` is that of `policy.json`."""
        loading = content.get("loading", {})
        if content["kind"] == "adapter":
            policy = cls.from_start(start, **loading)
            adapted = read_adapter(policy.model, str(folder)).eval()
            return cls(adapted, policy.tokenizer, start, loading)
        tokenizer = load_tokenizer(str(folder), **tokenizer_arguments(loading))
        return cls(load_model(str(folder), **loading).eval(), tokenizer, start, loading)

    @property
    def adapted(self) -> bool:
        """True where the weights that differ from the start are an adapter, so that the policy with its adapter off is
        the start."""
        return isinstance(self.model, PeftModel)

    adapter_off = False

    @property
    def parameters(self) -> int:
        """How many weights a token passes through, the adapter's included where it is on."""
        return weights_of(self.model).start if self.adapter_off else count_parameters(self.model)

    @cached_property
    def attention_only(self) -> bool:
        """Whether all layers are attention."""
        return is_attention_only(self.model)

    @cached_property
    def _batching(self) -> Batching:
        """Which prompts are sampled side by side."""
        return "padded" if self.attention_only else sampling_batches(self.model)

    @cached_property
    def _rendered(self) -> dict[str, list[int]]:
        """Tokens of prompts that were rendered already."""
        return {}

    def save(self, folder: Path) -> None:
        """Write the adapter, or the whole model with its tokenizer, in safetensors, and `policy.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        if self.adapted:  # beside this adapter may be a critic's
            self.model.save_pretrained(str(folder), selected_adapters=["default"])
            (folder / "README.md").write_text(ADAPTER_CARD.format(base=self.start), encoding="utf-8")
        else:
            self.save_model(folder)
        if not self.adapted:
            self.tokenizer.save_pretrained(str(folder))
        write_policy_file(folder, "adapter" if self.adapted else "model", self.start, loading=self.loading)

    def merged(self) -> LanguageModelPolicy:
        """Return the same policy without an adapter: its weights are added to the base. This policy's model changes and
        must not be used afterwards.

        A quantized base is read again in full precision for that: rounding the sum to 4 bits would change the policy.
        """
        if not self.adapted:
            return self
        adapted = self.model
        if self.loading.get("quantization"):
            whole = load_model(self.start, **{**self.loading, "quantization": None})
            adapted = get_peft_model(whole, self.model.peft_config["default"])
            set_peft_model_state_dict(adapted, get_peft_model_state_dict(self.model))
        model = adapted.merge_and_unload()
        return LanguageModelPolicy(model.eval(), self.tokenizer, self.start, self.loading)

    def export(self, folder: Path) -> None:
        """Write a plain transformers folder, adapter merged, that `AutoModelForCausalLM` and any server load."""
        whole = self.merged()
        folder.mkdir(parents=True, exist_ok=True)
        whole.save_model(folder)
        whole.tokenizer.save_pretrained(str(folder))

    def save_model(self, folder: Path) -> None:
        """Write the whole language model, without a critic or what else an algorithm put on it."""
        critic = [name for name in (HEAD, BACKBONE) if hasattr(self.model, name)]
        own = tuple(f"{name}." for name in (*getattr(self.model, EXTRA, ()), *critic))
        weights = gathered_weights(self.model)
        if own:
            weights = {n: w for n, w in (weights or self.model.state_dict()).items() if not n.startswith(own)}
        with own_dropout(self.model):
            self.model.save_pretrained(str(folder), state_dict=weights)

    def render(self, prompt: Prompt) -> list[int]:
        """Return the token ids of a prompt, up to where the assistant's reply begins."""
        key = json.dumps(prompt)
        if key not in self._rendered:  # asked for by sampling, log-probabilities of both policies, and for the text
            if len(self._rendered) >= RENDERED:
                self._rendered.clear()
            ids = self.tokenizer.apply_chat_template(list(prompt), add_generation_prompt=True, return_dict=False)
            self._rendered[key] = list(ids)
        return list(self._rendered[key])

    @torch.inference_mode()
    def sample(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        seed: int,
        n: int = 1,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """Return `n` replies to each prompt, generated in batches sorted by prompt length. The same seed gives the same
        replies. Recurrent models that would answer otherwise beside other prompts are given those of one length, or
        one at a time."""
        rendered = [self.render(prompt) for prompt in prompts]
        if generation.engine == "vllm":
            seeds = [derived_seed("replies", seed, i) for i in range(len(rendered))]
            replies = vllm_sampling.sample(self, rendered, generation, seeds, n, progress)
            return self._charged(ledger, rendered, replies)
        order = sorted((i for i in range(len(prompts)) for _ in range(n)), key=lambda i: (-len(rendered[i]), i))
        replies, done = [[] for _ in prompts], 0
        sampled = SampledModel(self.model, self.tokenizer, self.eos_ids, self._batching)
        for rows in sampled.replies([rendered[i] for i in order], generation, seed):
            for i, ids in zip(order[done:], rows, strict=False):
                replies[i].append(self.completion(rendered[i], ids))
            done += len(rows)
            if progress is not None:
                progress("sampling", done, len(order))
        return self._charged(ledger, rendered, replies)

    def _charged(
        self, ledger: Ledger | None, rendered: Sequence[Sequence[int]], replies: list[list[Completion]]
    ) -> list[list[Completion]]:
        if ledger is not None:
            ledger.generated(sum(len(reply.token_ids) for samples in replies for reply in samples), self.parameters)
            ledger.forwarded(
                sum(len(samples) * len(ids) for samples, ids in zip(replies, rendered, strict=True)), self.parameters
            )
        return replies

    def completion(self, prompt: list[int], ids: list[int]) -> Completion:
        """The reply that sampled tokens are, up to the first one that ends it."""
        end = next((i for i, token in enumerate(ids) if token in self.eos_ids), None)
        reply = ids if end is None else ids[: end + 1]
        return Completion(self._text(prompt, reply), tuple(reply), end is not None)

    def reply_text(self, prompt: Prompt, ids: Sequence[int]) -> str:
        """The text of a sampled reply, without special tokens."""
        return self._text(self.render(prompt) if self.tokenizer.continuation else [], ids)

    def _text(self, before: list[int], ids: Sequence[int]) -> str:
        if self.tokenizer.continuation:  # the space before its first word included
            return str(self.tokenizer.text_after(before, ids))
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def encoded_again(self, prompt: Prompt, reply: Completion) -> EncodedAgain:
        """What the text of a sampled reply becomes in this policy's tokens; see `ChatRendering.encoded_again`."""
        return self.tokenizer.encoded_again(prompt, reply, self.eos_ids)

    @contextlib.contextmanager
    def as_start(self) -> Iterator[LanguageModelPolicy]:
        """Give this policy with its adapter off, which is exactly the start; for a fully tuned policy, the start,
        loaded."""
        if self.adapted:
            self.adapter_off = True
            try:
                with self.model.disable_adapter():
                    yield self
            finally:
                self.adapter_off = False
        else:
            yield LanguageModelPolicy.from_start(self.start, **self.loading)

    def last_hidden_states(
        self, prompts: Sequence[Prompt], replies: Sequence[Sequence[Completion]], ledger: Ledger | None = None
    ) -> torch.Tensor:
        """The last layer's state at the end of each of the replies to each prompt, all prompts with equally many:
        (prompts, replies, hidden size), float32."""
        rendered = [(self.render(prompt), samples) for prompt, samples in zip(prompts, replies, strict=True)]
        rows = [[*prompt, *reply.token_ids] for prompt, samples in rendered for reply in samples]
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i]))
        states: list[torch.Tensor] = [torch.empty(0)] * len(rows)
        for begin in range(0, len(order), 64):
            batch = order[begin : begin + 64]
            inputs = padded([rows[i] for i in batch], self.tokenizer, "right", self.model.device)
            batch_states = last_hidden_states(self.model, **inputs, ledger=ledger)
            for i, state in zip(batch, batch_states, strict=True):
                states[i] = state
        return torch.stack(states).reshape(len(prompts), -1, states[0].shape[-1])


@torch.no_grad()
def last_hidden_states(
    model: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor, ledger: Ledger | None = None
) -> torch.Tensor:
    """The last layer's state at the last attended token of each row, (rows, hidden size), float32, without a gradient.

    Args:
        model: a language model, with an adapter or without.
        input_ids, attention_mask: (rows, tokens), padded on the right.
        ledger: is charged for the pass.
    """
    if ledger is not None:
        ledger.forwarded(int(attention_mask.sum()), weights_of(model).passed)
    states = backbone(model)(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
    return states[torch.arange(len(states), device=states.device), attention_mask.sum(1) - 1].float()
