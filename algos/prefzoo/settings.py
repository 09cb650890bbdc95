"""Blocks of a recipe that the trainers, the samplers and the model files are set by."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Settings(BaseModel):
    """A block of a recipe: unknown keys are refused, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Adapter(Settings):
    """Which weights are trained; the same for every algorithm of a comparison.

    `lora` is Hu et al. 2021 (https://arxiv.org/abs/2106.09685): rank `r`, scale `alpha / r`. `qlora` is the same on a
    base in 4 bits (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314): `quant_type`, and `double_quant` for
    constants that are themselves quantized; it computes in `model.dtype`. `full` trains all weights.
    """

    type: Literal["lora", "qlora", "full"] = "lora"
    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quant: bool = True

    @field_validator("quant_type", "double_quant")
    @classmethod
    def _quantization_is_used(cls, value: Any, info: ValidationInfo) -> Any:
        kind = info.data.get("type", "qlora")  # missing where it is itself wrong
        if kind != "qlora" and info.field_name and value != cls.model_fields[info.field_name].default:
            raise ValueError(f"has no meaning with type {kind!r}; allowed: qlora")
        return value

    @property
    def quantization(self) -> dict[str, Any] | None:
        """How the base is quantized; None where it is not."""
        if self.type != "qlora":
            return None
        return {"quant_type": self.quant_type, "double_quant": self.double_quant}


class Budget(Settings):
    """How much every algorithm may use: `prompts` training prompts (null: all there are), seen `epochs` times."""

    prompts: int | None = Field(1500, ge=1)
    epochs: float = Field(1.0, gt=0)


class Generation(Settings):
    """How replies are sampled, in training and in evaluation, for every policy alike.

    There is no top-p and no top-k: truncated sampling is another distribution than the one whose log-probabilities
    are measured. Temperature 0 is greedy.
    """

    max_new_tokens: int = Field(40, ge=1)
    temperature: float = Field(1.0, ge=0)
    batch_size: int = Field(128, ge=1)


class Training(Settings):
    """Training arguments that every trainer is given alike, so that no library default differs by accident.

    An algorithm's own `trainer:` block overrides them for that algorithm, and the report lists what it overrode.
    `batch_size` counts rows of an optimizer step (pairs, demonstrations, or prompts of an algorithm that samples);
    `accumulation` splits it into that many forward passes.
    `learning_rate` left out is chosen by model size and adapter (`recipe.LEARNING_RATES`), then the same for all.
    """

    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float | None = Field(None, ge=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    bf16: bool = False
    gradient_checkpointing: bool = False


class Shaping(Settings):
    """What online algorithms make of scores before they learn from them; proxy rewards are reported without it.

    `normalize` takes off the running mean of all scores so far and divides by their standard deviation; `clip` then
    cuts at plus and minus that many.
    """

    normalize: bool = False
    clip: float | None = Field(None, gt=0)
