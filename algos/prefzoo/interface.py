"""The one contract: what an algorithm is, what it is given, and what it gives back.

Everything here is light: importing this module imports neither torch nor TRL.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

if TYPE_CHECKING:
    from prefzoo.data.views import Views

Message = dict[str, str]
"""One turn of a conversation: `{"role": "user" | "assistant" | "system", "content": text}`."""

Prompt = Sequence[Message]
"""A conversation that waits for the assistant's next turn."""

Progress = Callable[[str, int, int], None]
"""Is told `(what, done, total)` while something long goes on."""

NEEDS = ("preferences", "prompts", "demonstrations", "reward")
"""What an algorithm may declare in `needs`."""


CHECKPOINTS = "checkpoints"
"""Folder inside `Bench.out` that outlives a trial that was killed."""


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


@dataclass(frozen=True)
class Completion:
    """One sampled reply, exactly as it was generated.

    Attributes:
        text: the reply without special tokens; this is what every reward and judge sees.
        token_ids: the generated tokens, end-of-sequence included; this is what log-probabilities are taken of.
        finished: whether the policy ended the reply itself; False when it was cut at `max_new_tokens`.
    """

    text: str
    token_ids: tuple[int, ...]
    finished: bool


class Policy(Protocol):
    """What `train` returns: something that answers prompts and can be kept."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        generation: Generation,
        seed: int,
        n: int = 1,
        ledger: Ledger | None = None,
        progress: Progress | None = None,
    ) -> list[list[Completion]]:
        """`n` replies to each prompt, in the order of `prompts`; the same seed gives the same replies.

        What is sampled is charged to `ledger`; `progress("sampling", done, all)` is called on the way.
        """
        ...

    def save(self, folder: Path) -> None:
        """Write all that `prefzoo.policies.load_policy` needs to bring this policy back."""
        ...


class Reward(Protocol):
    """Scores replies: higher is better, any real number, one for each pair of prompt and reply."""

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]: ...

    def spec(self, folder: Path) -> dict[str, Any]:
        """What `prefzoo.feedback.rewards.load_reward(spec, folder)` turns back into this reward; paths in it are
        relative to `folder`."""
        ...


@dataclass
class Ledger:
    """What a trial used. Costs of measuring (scoring test replies, KL) are not charged to it.

    Attributes:
        generated_tokens: tokens sampled in training and to answer the test prompts.
        inference_tokens: the part of `generated_tokens` that answering the test prompts took.
        trained_tokens: tokens that passed through a forward and a backward pass, prompt tokens included.
        reward_calls: replies scored by the reward, in training and (best-of-n) to choose an answer.
        judge_calls: questions put to a judge.
        flops: floating-point operations by the usual count of 2 a parameter and token forward, and 4 more backward.
        seconds: wall-clock time of training and of answering the test prompts.
        peak_memory_bytes: the largest resident memory of the trial's process (of its GPU where it has one).
    """

    generated_tokens: int = 0
    inference_tokens: int = 0
    trained_tokens: int = 0
    reward_calls: int = 0
    judge_calls: int = 0
    flops: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def generated(self, tokens: int, parameters: int) -> None:
        """Charge sampled tokens."""
        self.generated_tokens += tokens
        self.flops += 2.0 * parameters * tokens

    def scored(self, reward: Reward, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """Score replies and charge that; a reward that counts its operations does so in an attribute `flops`."""
        before = getattr(reward, "flops", 0.0)
        scores = reward(prompts, completions)
        self.reward_calls += len(completions)
        self.flops += getattr(reward, "flops", 0.0) - before
        return scores

    def trained(self, tokens: int, parameters: int) -> None:
        """Charge tokens that were trained on."""
        self.trained_tokens += tokens
        self.flops += 6.0 * parameters * tokens


CHARGES = ("generated_tokens", "inference_tokens", "trained_tokens", "reward_calls", "judge_calls", "flops")
"""What of a ledger adds up over processes that work together."""


@dataclass(frozen=True)
class Bench:
    """All that an algorithm may draw on; the same for every algorithm of a comparison.

    Attributes:
        start: folder of the start policy, a plain transformers model; also the reference.
        data: views of the sealed training split: `prompts`, `preferences`, `demonstrations`.
        reward: what to learn from, for algorithms that declare they need it; charged to the ledger by `score`.
        adapter, budget, generation, training: the recipe's blocks of those names.
        seed: seeds data order, adapter initialisation and sampling.
        out: a folder of this trial's own.
        ledger: what has been used so far.
        progress: called as `progress(what, done, total)`.
        loading: how model files are read (dtype, trust_remote_code, quantization).
        reporting: where the trainers log their curves, as training arguments (`report_to`, `run_name`, `project`).
        shaping: what online algorithms make of scores; used by `prefzoo.policies.online`.
        memory: plain values that a killed training needs again; checkpoints keep them.
        report: what the algorithm wants said about this trial; it ends up in `results.json` under `details`.
        latest: the policy to go on from in a later round; None for the start.
    """

    start: str
    data: Views
    reward: Reward | None
    adapter: Adapter
    budget: Budget
    generation: Generation
    training: Training
    seed: int
    out: Path
    ledger: Ledger = field(default_factory=Ledger)
    progress: Progress = lambda what, done, total: None
    loading: Mapping[str, Any] = field(default_factory=dict)
    reporting: Mapping[str, Any] = field(default_factory=dict)
    shaping: Shaping = field(default_factory=Shaping)
    memory: dict[str, Any] = field(default_factory=dict)
    report: dict[str, Any] = field(default_factory=dict)
    latest: Policy | None = None

    def replace(self, **changes: Any) -> Bench:
        """A bench that differs only in `changes`; ledger and report stay shared. This is how one algorithm hands
        data that it made to another."""
        return dataclasses.replace(self, **changes)

    def sample(self, policy: Policy, prompts: Sequence[Prompt], n: int, seed: int) -> list[list[Completion]]:
        """`n` replies of `policy` to each prompt with the comparison's sampling settings, charged to the ledger."""
        return policy.sample(prompts, self.generation, seed, n=n, ledger=self.ledger, progress=self.progress)

    def score(self, prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
        """The reward of each reply, charged to the ledger."""
        assert self.reward is not None, "an algorithm scores replies only if 'reward' is in its needs"
        return self.ledger.scored(self.reward, prompts, completions)


@dataclass(frozen=True)
class Algorithm(ABC):
    """One way to turn a start policy into a better one.

    A subclass is a frozen dataclass of its own hyper-parameters, says in `needs` what it draws from the bench
    (any of `NEEDS`), and implements `train`. Its docstring opens with the paper.

    What every algorithm promises; `prefzoo check NAME` tries each promise in the lab:

    - *Budget.* It takes its prompts from `bench.data` alone. A row of the view that it learns from (a pair, a
      demonstration, a prompt) contributes at most `replies_per_row` sequences to an epoch of training, so that at
      most rows x `replies_per_row` x `bench.budget.epochs` sequences pass through a forward and a backward pass,
      however they are divided among rounds. What was trained on, sampled and scored is charged to `bench.ledger`
      (`prefzoo.policies.fitting.fit`, `bench.sample` and `bench.score` do that).
    - *Base.* The files in `bench.start` stay as they are; what is trained is what `bench.adapter` says, and with its
      adapter off the policy is the start.
    - *Seed.* The same seed gives the same policy again, and another seed another one.
    - *Saving.* `policy.save(bench.out / "policy")` is called, and what is loaded from there answers like the policy
      that was returned.
    - *Learning.* With the lab's preferences gold rises; with shuffled labels or a random reward it does not.

    Attributes:
        trainer: settings for the trainer behind it, checked against the trainer's own config class `config`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()
    config: ClassVar[str | None] = None
    """`"module:Class"` of the config whose fields `trainer` may set; None when there is no such trainer."""

    owned: ClassVar[Mapping[str, str]] = {}
    """Fields of `config` that `train` itself sets, so that `trainer` may not: field -> the hyper-parameter that says it
    here, or words for what to do instead. (`config_fields.OWNED` are those of every algorithm.)"""

    trains: ClassVar[bool] = True
    """False for one that leaves the start's weights as they are and only samples from it in another way."""

    trainer: dict[str, Any] = field(default_factory=dict, kw_only=True)

    @property
    def replies_per_row(self) -> int:
        """How many sequences a row of the data contributes to an epoch of training: both replies of a pair, else one.

        An algorithm that trains on more (several samples of a prompt, several passes over one sample) overrides it.
        """
        return 2 if "preferences" in self.needs else 1

    @abstractmethod
    def train(self, bench: Bench) -> Policy:
        """Learn within the bench's budget and return the policy."""
