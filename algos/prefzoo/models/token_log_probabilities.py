"""Log-probabilities of sampled tokens without the logits of all of them at once, where TRL has no kernel for it.

On a GPU TRL's fused head is a kernel. On a CPU it scores the prompts too, holds several copies of tiles of the whole
vocabulary by thousands of tokens, and computes them again in the backward pass. Here tiles are small, and the gradient
is computed with them in the forward pass: that of log p(token) with respect to the hidden state is w[token] - E_p[w].
"""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn

PLAIN = frozenset(
    {"gpt2", "gpt_neo", "gpt_neox", "llama", "mistral", "olmo", "olmo2", "phi", "phi3", "qwen2", "qwen3", "smollm3"}
)
"""Model types whose logits are the head's output as it is; others scale or cap it."""
TILE = 2**22
"""How many logits are held at a time."""


class _TokenLogProbabilities(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor | None, tokens: Tensor, temperature: float
    ) -> tuple[Tensor, Tensor]:
        log_probabilities = hidden.new_empty(len(tokens), dtype=torch.float32)
        entropy = torch.empty_like(log_probabilities)
        gradient = torch.empty_like(hidden) if ctx.needs_input_grad[0] else None
        size = max(1, TILE // len(weight))
        for begin in range(0, len(tokens), size):
            part = slice(begin, begin + size)
            chosen = tokens[part, None]
            logits = nn.functional.linear(hidden[part], weight, bias).float()
            if temperature != 1:
                logits.div_(temperature)
            p = logits.softmax(-1)
            total = logits.amax(-1) - p.amax(-1).log()  # log of the sum of exp(logits), for the largest p is not small
            log_probabilities[part] = logits.gather(1, chosen)[:, 0] - total
            entropy[part] = total - torch.linalg.vecdot(p, logits)
            if gradient is not None:
                # Before the product: where a token is nearly certain, the difference of two products is rounding.
                p.scatter_add_(1, chosen, p.new_full(chosen.shape, -1.0))
                gradient[part] = (p @ weight.to(p.dtype)).div_(-temperature)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(entropy)
        return log_probabilities, entropy

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return gradients[0][:, None].to(gradient.dtype) * gradient, None, None, None, None


def plain_head(model: nn.Module) -> nn.Linear | None:
    """Return the head of a language model on a CPU, if it is a plain linear layer that is not trained; else None."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    head = inner.get_output_embeddings()
    plain = type(head) is nn.Linear and not any(weight.requires_grad for weight in head.parameters())
    return head if plain and inner.config.model_type in PLAIN and head.weight.device.type == "cpu" else None


def states_before(backbone: Any, ids: Tensor, attention: Tensor, width: int) -> Tensor:
    """Return the last layer's state before each of the last `width` tokens, (B, width, H); where `attention` is 0 it
    has no meaning.

    Rows that are padded on both sides go through the model padded on the right alone, which makes them shorter.

    Args:
        backbone: a language model without its head.
        ids, attention: (B, L); of the columns before the last `width` the padding is on the left, of those after it on
            the right.
    """
    padding = attention.shape[1] - width - attention[:, :-width].sum(1)  # of each row, on the left
    length = int(attention.sum(1).max())
    places = (torch.arange(length, device=ids.device) + padding[:, None]).clamp(max=ids.shape[1] - 1)
    mask = attention.gather(1, places) * (torch.arange(length, device=ids.device) < attention.sum(1, keepdim=True))
    hidden = backbone(input_ids=ids.gather(1, places), attention_mask=mask, use_cache=False).last_hidden_state
    before = torch.arange(ids.shape[1] - width - 1, ids.shape[1] - 1, device=ids.device) - padding[:, None]
    return hidden.gather(1, before.clamp(max=length - 1)[..., None].expand(-1, -1, hidden.shape[-1]))


def token_log_probabilities(
    model: nn.Module,
    head: nn.Linear,
    ids: Tensor,
    attention: Tensor,
    width: int,
    temperature: float,
    states: list[tuple[Tensor, Tensor]] | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the log-probability of each of the last `width` tokens, and the entropy of the distribution it is from.

    Args:
        model: a language model, its adapters switched on or off as wanted.
        head: its `plain_head`.
        ids, attention: (B, L).
        temperature: what logits are divided by.
        states: is given `ids` and the `states_before` each of the tokens, (B, width, H).

    Returns:
        Both (B, width), in nats, 0 where `attention` is 0. The entropy has no gradient.
    """
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    hidden = states_before(inner.base_model, ids, attention, width)
    if states is not None:
        states.append((ids, hidden))
    attended = attention[:, -width:].bool()
    values = _TokenLogProbabilities.apply(
        hidden[attended], head.weight, head.bias, ids[:, -width:][attended], temperature
    )
    log_probabilities, entropy = (v.new_zeros(attended.shape).masked_scatter(attended, v) for v in values)
    return log_probabilities, entropy
