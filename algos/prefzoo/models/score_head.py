"""A model that scores texts: a language model's own backbone with one scalar head, for every architecture alike."""

from __future__ import annotations

import copy
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput

from prefzoo.errors import PrefzooError
from prefzoo.models.dropout import without_dropout
from prefzoo.models.loading import keep_differentiable, source

SCORE = "score.weight"
"""The head's weights (1, hidden width)."""


class ScoreHead:
    """Mixed into an architecture's `PreTrainedModel`: the backbone under its own name, and `score` on it.

    A row's score is the head's value at its last attended token. transformers' own classifiers look for the last token
    that is not the pad token, and miss the end of a text where the pad token also ends it.
    """

    causal_class: type[PreTrainedModel]

    def __init__(self: Any, config: PreTrainedConfig) -> None:
        super().__init__(config)  # type: ignore[call-arg]
        causal = self.causal_class(config)
        setattr(self, _backbone_name(causal), backbone(causal))
        self.score = nn.Linear(hidden_width(config), 1, bias=False)
        self.post_init()

    def forward(
        self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, **_: Any
    ) -> SequenceClassifierOutput:
        """Return scores as `logits` (B, 1).

        Args:
            input_ids: (B, T).
            attention_mask: (B, T), padded on either side; None attends to all.
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        hidden = backbone(self)(
            input_ids=input_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state  # (B, T, H)
        places = torch.arange(mask.shape[1], device=mask.device)
        last = (places * mask).argmax(-1).to(hidden.device)
        return SequenceClassifierOutput(logits=self.score(hidden[torch.arange(len(last), device=hidden.device), last]))


def backbone(model: nn.Module) -> Any:
    """The transformer of a language model or a `ScoreHead`, adapted or not, without its head; itself where it has
    none."""
    inner: Any = model.get_base_model() if isinstance(model, PeftModel) else model
    return getattr(inner, _backbone_name(inner), inner)


def hidden_width(config: PreTrainedConfig) -> int:
    """The width of the backbone's last hidden states, which OPT-350m projects to that of its embeddings."""
    text = config.get_text_config()
    return int(getattr(text, "word_embed_proj_dim", None) or text.hidden_size)


def load_score_model(path: str, draw_head: bool = True, **loading: Any) -> PreTrainedModel:
    """The backbone of the language model in `path` with a scalar head, or the whole that was saved of one.

    Args:
        draw_head: whether a head that `path` does not have is drawn, on the CPU and from torch's current random state,
            so that it is the same on every device.
        loading: as `from_pretrained_arguments` takes it.

    Raises:
        PrefzooError: when `path` lacks other weights than those of a head that is drawn.
    """
    place, settings = source(path, **loading)
    config = AutoConfig.from_pretrained(place, trust_remote_code=settings["trust_remote_code"])
    with torch.device("meta"):
        causal = AutoModelForCausalLM.from_config(config, trust_remote_code=settings["trust_remote_code"])
    with torch.random.fork_rng(range(torch.cuda.device_count())):
        loaded = _class_for(causal).from_pretrained(
            place, config=_one_label(causal.config), output_loading_info=True, **settings
        )
    model, info = loaded
    if missing := sorted(set(info["missing_keys"]) - ({SCORE} if draw_head else set())):
        raise PrefzooError(f"{path} has no weights for {', '.join(missing[:5])}{' and others' * (len(missing) > 5)}")
    if SCORE in info["missing_keys"]:
        std = getattr(causal.config.get_text_config(), "initializer_range", 0.02)
        model.score.weight.data.copy_(torch.empty(model.score.weight.shape).normal_(0.0, std))
    return without_dropout(keep_differentiable(model))


def with_score_head(causal: PreTrainedModel) -> PreTrainedModel:
    """The model that `load_score_model` gives, on the weights of this language model, with a head of zeros: it is for
    an adapter that brings its own."""
    with torch.device("meta"):
        made: Any = _class_for(causal)(_one_label(causal.config))
    setattr(made, _backbone_name(causal), backbone(causal))
    made.score.to_empty(device=causal.device).to(causal.dtype)
    nn.init.zeros_(made.score.weight)
    for name, value in vars(causal).items():  # that it is quantized, and how
        vars(made).setdefault(name, value)
    return made


def _backbone_name(model: Any) -> str:
    """Where a model has its backbone; `base_model_prefix` names what some of them have only inside another model."""
    return model.base_model_prefix if hasattr(model, model.base_model_prefix) else "model"


def _class_for(causal: PreTrainedModel) -> Any:
    """The class of a scorer on this architecture, named as transformers names its own."""
    cls = type(causal)
    bases = [base for base in cls.__mro__[1:] if issubclass(base, PreTrainedModel) and "PreTrained" in base.__name__]
    name = cls.__name__.removesuffix("ForCausalLM").removesuffix("LMHeadModel").removesuffix("ForConditionalGeneration")
    members = {"causal_class": cls, "base_model_prefix": causal.base_model_prefix, "__module__": cls.__module__}
    return type(f"{name}ForSequenceClassification", (ScoreHead, bases[0]), members)


def _one_label(config: PreTrainedConfig) -> PreTrainedConfig:
    config = copy.deepcopy(config)
    config.num_labels = 1
    return config
