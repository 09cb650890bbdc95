"""Blocks of a recipe that the trainers, the samplers and the model files are set by."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from prefzoo.atomic_files import usable_path
from prefzoo.errors import did_you_mean
from prefzoo.types import Completion


def _can_be_looked_up(text: str) -> str:
    usable_path(text)
    return text


PathText = Annotated[str, AfterValidator(_can_be_looked_up)]
"""A path, or a name that may be one; the system can look there, whether or not something is there."""


class Settings(BaseModel):
    """A block of a recipe: unknown keys are refused, values never change once read."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Adapter(Settings):
    """Which weights are trained, and on what base; the same for every algorithm of a comparison.

    `lora` is Hu et al. 2021 (https://arxiv.org/abs/2106.09685): rank `r`, scale `alpha / r`. `qlora` is the same on a
    quantized base (Dettmers et al. 2023, https://arxiv.org/abs/2305.14314). `full` trains all weights. Keys that have
    no meaning beside the others are refused.

    Attributes:
        dropout: of the adapter, while training; replies that are learned from are sampled and scored without it.
        target_modules: `all-linear`, a regular expression that fits whole paths of layers, or a list of names of
            layers, all of which the model must have. The head of a language model is none of them.
        use_dora: weights decomposed into direction and magnitude (Liu et al. 2024, https://arxiv.org/abs/2402.09353).
        use_rslora: the scale is `alpha / sqrt(r)` (Kalajdzievski 2023, https://arxiv.org/abs/2312.03732).
        init_lora_weights: how the first factor is drawn: True is Kaiming-uniform, `gaussian` a normal distribution. The
            second is 0 in both, so that a new adapter changes nothing; what begins otherwise is refused.
        modules_to_save: names of modules that are trained whole beside the adapter and saved with it. The head of a
            reward model always is.
        quant_type: `nf4` and `fp4` are 4 bits, `int8` is LLM.int8() (Dettmers et al. 2022,
            https://arxiv.org/abs/2208.07339) without its outlier columns: those are a batch's, and a reply's
            log-probability would depend on the replies beside it.
        double_quant: the constants of quantization are quantized too.
        compute_dtype: what weights in 4 bits are multiplied in; None is `model.dtype`.
        storage_dtype: what weights in 4 bits are kept as; a floating type is what FSDP needs to shard them.
    """

    type: Literal["lora", "qlora", "full"] = "lora"
    r: int = Field(16, ge=1)
    alpha: float = Field(32, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    target_modules: str | list[str] = "all-linear"
    use_dora: bool = False
    use_rslora: bool = False
    init_lora_weights: bool | str = True
    modules_to_save: list[str] = Field([])
    quant_type: Literal["nf4", "fp4", "int8"] = "nf4"
    double_quant: bool = True
    compute_dtype: Literal["float32", "bfloat16", "float16"] | None = None
    storage_dtype: Literal["uint8", "float32", "bfloat16", "float16"] = "uint8"

    @field_validator("target_modules")
    @classmethod
    def _names_layers(cls, value: str | list[str]) -> str | list[str]:
        allowed = "allowed: all-linear, a regular expression, or names of layers in a list"
        if not value:
            raise ValueError(f"{value!r} names no layer, and an adapter on none learns nothing; {allowed}")
        if isinstance(value, list):
            if "all-linear" in value:
                raise ValueError(f"{value!r}: 'all-linear' stands by itself, not in a list; {allowed}")
            return value
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"{value!r} is no regular expression ({error}); {allowed}") from None
        return value

    @field_validator("init_lora_weights")
    @classmethod
    def _leaves_the_start_unchanged(cls, value: bool | str) -> bool | str:
        name = value.partition("_niter_")[0] if isinstance(value, str) else value
        if name in (True, "gaussian"):
            return value
        if name in CHANGE_THE_BASE:
            why = "changes the weights of the base, so that with the adapter off the policy is no longer the start"
        elif name == "orthogonal":
            why = (
                "begins at 0 to rounding only: on a base in bfloat16 the policy would not begin as the start, and on a "
                "quantized one peft cannot draw it"
            )
        elif name is False:
            why = "does not begin at 0, so that with a new adapter the policy is not exactly the start"
        elif name == "eva":
            why = "is drawn from data before training, which is not done here"
        else:
            why = "is not offered here"
        problem = f"{str(value).lower()!r} {why}; allowed: true, gaussian."
        raise ValueError(problem + did_you_mean(value, ["gaussian"]))

    @field_validator("*")
    @classmethod
    def _applies_to_the_type(cls, value: Any, info: ValidationInfo) -> Any:
        name, kind = info.field_name, info.data.get("type")  # missing where it is itself wrong
        if name is None or name == "type" or kind is None or value == cls.model_fields[name].get_default():
            return value
        if kind == "full":
            raise ValueError("has no meaning with type 'full', which trains all weights; allowed: lora, qlora")
        if name in QUANTIZATION and kind != "qlora":
            raise ValueError(f"has no meaning with type {kind!r}; allowed: qlora")
        if info.data.get("quant_type") == "int8" and name in FOUR_BITS:
            raise ValueError("has no meaning with quant_type 'int8'; allowed: nf4, fp4")
        if name == "quant_type" and value == "int8" and info.data.get("use_dora"):
            raise ValueError("'int8' cannot be combined with use_dora, which peft does on nf4 and fp4 only")
        return value

    @property
    def quantization(self) -> dict[str, Any] | None:
        """How the base is quantized; None where it is not."""
        if self.type != "qlora":
            return None
        used = ("quant_type",) if self.quant_type == "int8" else QUANTIZATION
        return {name: getattr(self, name) for name in used}

    @property
    def settings(self) -> dict[str, Any]:
        """The keys that have a meaning here, with their values."""
        lora = [name for name in type(self).model_fields if name != "type" and name not in QUANTIZATION]
        used = {} if self.type == "full" else {name: getattr(self, name) for name in lora}
        return {"type": self.type, **used, **(self.quantization or {})}


FOUR_BITS = ("double_quant", "compute_dtype", "storage_dtype")
QUANTIZATION = ("quant_type", *FOUR_BITS)
CHANGE_THE_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
"""Initialisations of peft that take what they put into the adapter off the base's weights."""


class Budget(Settings):
    """How much every algorithm may use: `prompts` training prompts (null: all there are), seen `epochs` times."""

    prompts: int | None = Field(1500, ge=1)
    epochs: float = Field(1.0, gt=0)


class VllmServer(Settings):
    """Where vLLM answers, with `engine: vllm`: a server that runs already, or one that the comparison starts for each
    base model that it samples from, and stops at its end.

    Attributes:
        url: of a running `vllm serve`, without `/v1`. It must hold the start's weights, take adapters at run time
            (`--enable-lora`, VLLM_ALLOW_RUNTIME_LORA_UPDATING=True), read the folders that this machine writes, and run
            with `--logprobs-mode processed_logprobs`. Its key, where it wants one, is in VLLM_API_KEY.
        python: the interpreter of an environment with vllm that starts servers. Default: this one's.
        arguments: further ones of `vllm serve` for servers that are started, such as `[--gpu-memory-utilization, 0.4]`.
    """

    url: str | None = None
    python: PathText | None = None
    arguments: list[str] = Field([])

    @field_validator("url")
    @classmethod
    def _is_the_root(cls, url: str | None) -> str | None:
        if url is None:
            return None
        if not re.fullmatch(r"https?://[^/\s]+(/\S*)?", url):
            raise ValueError(f"{url!r} is no address; write it as http://localhost:8000")
        return url.rstrip("/").removesuffix("/v1")

    @field_validator("arguments", mode="before")
    @classmethod
    def _as_text(cls, value: Any) -> Any:
        return [str(part) for part in value] if isinstance(value, list) else value

    @field_validator("python", "arguments")
    @classmethod
    def _of_a_server_that_is_started(cls, value: Any, info: ValidationInfo) -> Any:
        if value and info.data.get("url"):
            raise ValueError("has no meaning beside url, which names a server that runs already; say one of them")
        return value


class Generation(Settings):
    """How replies are sampled, in training and in evaluation, for every policy alike.

    `engine` is what samples: `transformers`, in the stage's own process; `vllm`, a server (docs/sampling-engines.md).
    `auto` becomes `vllm` where a recipe is checked on a machine with a GPU and vllm is installed beside this package,
    and vLLM can serve all of the recipe's policies; else it is `transformers`.

    There is no top-p and no top-k: truncated sampling is another distribution than the one whose log-probabilities
    are measured. Temperature 0 is greedy.

    Replies that are cut at `max_new_tokens` are not learned from where an algorithm imitates or compares replies, and
    `missing_eos_penalty` is taken off them (`unfinished: drop`). With `keep` a cut reply is as good as any: it is
    learned from in the tokens that were sampled, without an end, and nothing is taken off.
    """

    max_new_tokens: int = Field(40, ge=1)
    temperature: float = Field(1.0, ge=0)
    batch_size: int = Field(128, ge=1)
    unfinished: Literal["drop", "keep"] = "drop"
    engine: Literal["auto", "transformers", "vllm"] = "auto"
    vllm: VllmServer = VllmServer()

    @field_validator("vllm")
    @classmethod
    def _is_used(cls, server: VllmServer, info: ValidationInfo) -> VllmServer:
        if info.data.get("engine") == "transformers" and server != VllmServer():
            raise ValueError("has no meaning with engine 'transformers'; allowed: vllm, auto")
        return server

    def counts(self, reply: Completion) -> bool:
        """Whether a reply is one to learn from: it came to its end, or needs not."""
        return reply.finished or self.unfinished == "keep"


class Training(Settings):
    """Training arguments that every trainer is given alike, so that no library default differs by accident.

    An algorithm's own `trainer:` block overrides them for that algorithm, and the report lists what it overrode.
    `batch_size` counts rows of an optimizer step (pairs, demonstrations, or prompts of an algorithm that samples; two
    unpaired replies count as one);
    `accumulation` splits it into that many forward passes.
    `warmup_ratio` is a share of the steps, rounded up, in which the rate rises from 0; where that is one step, which
    would change nothing, there is none, and a later round of a method begins above 0 (`trainers.first_step`).
    `learning_rate` left out is chosen by model size and adapter (`check_recipe.LEARNING_RATES`), then the same for all.
    `optim` is an AdamW: `adamw_8bit` keeps its moments in 8 bits (Dettmers et al. 2022,
    https://arxiv.org/abs/2110.02861), a `paged` one moves them to the CPU's memory when a GPU's is full.
    `bf16` and `fp16` compute in 16 bits what `model.dtype` float32 keeps in 32; `fp16` and paging need a GPU.
    """

    batch_size: int = Field(16, ge=1)
    accumulation: int = Field(1, ge=1)
    learning_rate: float | None = Field(None, ge=0)
    lr_scheduler_type: Literal["linear", "cosine", "constant", "constant_with_warmup"] = "linear"
    warmup_ratio: float = Field(0.1, ge=0, le=1)
    weight_decay: float = Field(0.0, ge=0)
    max_grad_norm: float = Field(1.0, gt=0)
    optim: Literal["adamw_torch_fused", "adamw_8bit", "paged_adamw_32bit", "paged_adamw_8bit"] = "adamw_torch_fused"
    bf16: bool = False
    fp16: bool = False
    gradient_checkpointing: bool = False

    @field_validator("fp16")
    @classmethod
    def _one_precision(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("bf16"):
            raise ValueError("true, and training.bf16 is true as well; a training computes in one of them")
        return value


class Shaping(Settings):
    """What online algorithms make of scores before they learn from them; proxy rewards are reported without it.

    `normalize` takes off the running mean of all scores so far and divides by their standard deviation; `clip` then
    cuts at plus and minus that many.
    """

    normalize: bool = False
    clip: float | None = Field(None, gt=0)


class RewardShaping(Settings):
    """What one online algorithm adds to the reward of each reply that it learns from, each block on its own; the score
    itself, `reward.normalize` and `reward.clip` are alike for all algorithms (`Shaping`).

    Attributes:
        length: taken off for each generated token, its end included; in units of the score.
        overlong: the share of `generation.max_new_tokens`, at its end, in which up to 1 is taken off in proportion: 0
            where that share begins, 1 at the limit (soft overlong punishment, Yu et al. 2025,
            https://arxiv.org/abs/2503.14476, equation 13). 0 takes off nothing, and so does `generation.unfinished:
            keep`.
        potential: `prefix_scores` adds gamma F(s') - F(s) to the reward of each token, where F(s) is the score of the
            reply up to there, 0 beyond its end (potential-based shaping, Ng et al. 1999). Which policy is best does not
            change: over a reply it adds up to what depends on the prompt alone.
        every: tokens between two scores of one reply; between them F stays the last one.
    """

    length: float = Field(0.0, ge=0)
    overlong: float = Field(0.0, ge=0, lt=1)
    potential: Literal["prefix_scores"] | None = None
    every: int = Field(1, ge=1)

    @field_validator("every")
    @classmethod
    def _potential_is_used(cls, every: int, info: ValidationInfo) -> int:
        if every != 1 and info.data.get("potential", "prefix_scores") is None:
            raise ValueError(f"{every} has no meaning without potential; it must be 'prefix_scores'")
        return every


NO_SHAPING = RewardShaping()
