"""`prefzoo plan --gpu`: each formula against numbers by hand, against what libraries really keep, and peaks."""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
import torch
from peft import get_peft_model
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LlamaConfig, PreTrainedConfig
from typer.testing import CliRunner

from prefzoo import get, registry
from prefzoo.cli import app
from prefzoo.commands.gpu_data import Gpu, gpu_named, sampling_seconds, training_flops
from prefzoo.commands.label_memory import critic_bytes, label_parts, step_traffic, workload
from prefzoo.commands.memory_estimate import (
    ALONE,
    BYTES,
    Arrangement,
    Workload,
    autocast_copies,
    base_weights,
    block_activations,
    key_values,
    optimizer_states,
    peak,
    sampling,
    training_parts,
)
from prefzoo.commands.model_shape import ModelShape, read_shape, shape_of
from prefzoo.commands.placement import placed
from prefzoo.commands.placement_text import placement_sentences
from prefzoo.data.row_views import views_of
from prefzoo.errors import PrefzooError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.adapters import adapter_config
from prefzoo.recipe.check_recipe import load
from prefzoo.run.resources import forget_peak, peak_memory
from prefzoo.settings import Adapter, Training
from test_divided_weights import NeedsWhole

FULL, LORA = Adapter(type="full"), Adapter()
SCALE = Path(__file__).parents[1] / "docs" / "scale.md"


def llama(hidden: int, inner: int, layers: int, heads: int, kv: int, vocabulary: int, **more) -> PreTrainedConfig:
    return LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        vocab_size=vocabulary,
        **{"tie_word_embeddings": False, **more},
    )


LLAMA_8B = llama(4096, 14336, 32, 32, 8, 128256)
LLAMA_70B = llama(8192, 28672, 80, 64, 8, 128256)
SMALL = llama(256, 768, 4, 8, 2, 500)


@functools.cache
def shape_like(size: str, full: bool) -> ModelShape:
    """Of Llama 3.1; quantization changes nothing of it."""
    return shape_of({"8B": LLAMA_8B, "70B": LLAMA_70B}[size], FULL if full else LORA)


def llama_8b(adapter: Adapter) -> ModelShape:
    return shape_like("8B", adapter is FULL)


def test_weights_are_those_of_llamas_formula_and_of_what_was_published() -> None:
    """Embeddings and head 2 V h; a block h (a d + 2 k d) + a d h + 3 h i and two norms; a last norm."""
    for size, published in (("8B", 8_030_261_248), ("70B", 70_553_706_496)):
        shape = shape_like(size, True)
        h, i, d = shape.hidden, shape.inner, shape.head_width
        block = h * (shape.heads * d + 2 * shape.kv_heads * d) + shape.heads * d * h + 3 * h * i + 2 * h
        assert shape.block == block and shape.outside == 2 * shape.vocabulary * h + h
        assert shape.weights == shape.layers * block + shape.outside == published
        assert shape.head == shape.vocabulary * h
    tied = shape_of(llama(256, 768, 4, 8, 2, 500, tie_word_embeddings=True), FULL)
    assert tied.weights == shape_of(SMALL, FULL).weights - 500 * 256 and tied.head == 0


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        AutoConfig.for_model("qwen2", hidden_size=64, intermediate_size=96, num_hidden_layers=3,
                             num_attention_heads=4, num_key_value_heads=2, vocab_size=300),
        AutoConfig.for_model("gpt2", n_embd=64, n_layer=2, n_head=4, vocab_size=300),
    ],
    ids=lambda config: config.model_type,
)  # fmt: skip
@pytest.mark.parametrize("target", ["all-linear", ["q_proj", "v_proj"]], ids=str)
def test_weights_and_adapters_are_counted_as_real_ones_are(config, target) -> None:
    if config.model_type == "gpt2" and isinstance(target, list):
        target = ["c_attn"]
    adapter = Adapter(r=5, target_modules=target)
    model = AutoModelForCausalLM.from_config(config)
    shape = shape_of(config, adapter)
    assert shape.weights == sum(p.numel() for p in model.parameters())
    adapted = get_peft_model(model, adapter_config(adapter, "CAUSAL_LM", model=model))
    assert shape.adapter == adapted.get_nb_trainable_parameters()[0] > 0


def test_an_adapter_by_hand() -> None:
    """Rank 16 on the 8B model: of a block q and o 16 (4096 + 4096) each, k and v 16 (4096 + 1024), gate, up and down
    16 (4096 + 14336)."""
    block = 2 * 16 * 8192 + 2 * 16 * 5120 + 3 * 16 * 18432
    shape = llama_8b(LORA)
    assert shape.adapter == 32 * block == 41_943_040
    assert shape.adapter_inputs == 6 * 4096 + 14336 and shape.adapter_layers == 7


@pytest.mark.parametrize("double", [True, False])
def test_a_base_in_4_bits_takes_what_bitsandbytes_takes(double) -> None:
    functional = pytest.importorskip("bitsandbytes.functional")
    weight = torch.randn(2048, 512)
    packed, state = functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=double)
    constants = state.absmax.nbytes + (state.state2.absmax.nbytes if double else 0)
    shape = ModelShape(weight.numel(), weight.numel(), 2048, 0, weight.numel(), 0, 0, 0, 0, 1, 512, 1, 1, 512, 1, 1)
    found = base_weights(shape, Adapter(type="qlora", double_quant=double), "bfloat16")
    assert found == packed.nbytes + constants
    # 4.127 bits a weight in the paper, 4.5 without double quantization
    assert found * 8 / weight.numel() == pytest.approx(4.127 if double else 4.5, abs=5e-4)


def test_optimizer_states_are_what_adamw_keeps() -> None:
    for dtype in (torch.float32, torch.bfloat16):
        weight = torch.nn.Parameter(torch.randn(64, 8, dtype=dtype))
        optimizer = torch.optim.AdamW([weight])
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        kept = sum(state.nbytes for state in optimizer.state[weight].values() if state.dim())
        assert optimizer_states(weight.numel(), weight.element_size(), "adamw_torch_fused") == kept
    assert optimizer_states(2560, 4, "adamw_8bit") == 2 * (2560 + 4 * 10)


def test_keys_and_values_by_hand_and_in_a_real_cache() -> None:
    assert key_values(llama_8b(FULL), "bfloat16") == 2 * 32 * 8 * 128 * 2 == 131_072
    model, cache = AutoModelForCausalLM.from_config(SMALL), DynamicCache(config=SMALL)
    model(input_ids=torch.ones(3, 7, dtype=torch.long), past_key_values=cache, use_cache=True)
    kept = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kept == 3 * 7 * key_values(shape_of(SMALL, FULL), "float32")


def kept_for_backward(config, adapter, dtype: str, training: Training, rows: int, length: int) -> int:
    """Bytes of all that a forward pass of the blocks saves, but for weights; each storage once."""
    model = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))
    if (lora := adapter_config(adapter, "CAUSAL_LM", model=model)) is not None:
        model = get_peft_model(model, lora)
        for weight in model.parameters():
            weight.data = weight.data.float() if weight.requires_grad else weight.data
    inner = model.base_model.model if lora else model
    if training.gradient_checkpointing:
        model.train().gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        inner.enable_input_require_grads()
    weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    storages: dict[int, int] = {}
    alive = []

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            storages[storage.data_ptr()] = storage.nbytes()
            alive.append(tensor)  # so that no other takes its address
        return tensor

    ids = torch.randint(5, 500, (rows, length))
    mask = torch.ones_like(ids)
    mask[0, -3:] = 0
    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=training.bf16),
    ):
        inner.base_model(input_ids=ids, attention_mask=mask, use_cache=False)
    return sum(storages.values())


@pytest.mark.parametrize(
    ("adapter", "dtype", "more"),
    [
        (FULL, "float32", {}),
        (FULL, "float32", {"bf16": True}),
        (FULL, "bfloat16", {}),
        (Adapter(r=8), "float32", {}),
        (Adapter(r=8), "float32", {"bf16": True}),
        (Adapter(r=8), "bfloat16", {}),
        (Adapter(r=8), "bfloat16", {"bf16": True}),
        (Adapter(r=8), "float32", {"gradient_checkpointing": True}),
        (FULL, "float32", {"eager": True}),
    ],
    ids=lambda value: getattr(value, "type", str(value)),
)
def test_activations_are_what_autograd_saves(adapter, dtype, more) -> None:
    eager = more.pop("eager", False)
    training, rows, length = Training(**more), 4, 96
    config = llama(256, 768, 4, 8, 2, 500, attn_implementation="eager" if eager else "sdpa")
    shape = shape_of(config, adapter)
    one = block_activations(shape, adapter, dtype, training, Workload(rows, length, eager=eager))
    kept = shape.hidden * BYTES[dtype] if training.gradient_checkpointing else one
    last_norm = 4 * shape.hidden
    expected = rows * length * (shape.layers * kept + last_norm) + autocast_copies(shape, adapter, dtype, training)
    found = kept_for_backward(config, adapter, dtype, training, rows, length)
    assert found == pytest.approx(expected, rel=0.05)


def test_the_peak_of_a_real_training(make_bench, lab_rows, tmp_path) -> None:
    """28 million weights in float32, all trained: what the process holds beyond what it held before."""
    shipped = AutoConfig.from_pretrained(MODEL_DIR)
    special = {key: getattr(shipped, key) for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    config = llama(512, 1536, 8, 8, 8, shipped.vocab_size, **special)
    start = tmp_path / "start"
    AutoModelForCausalLM.from_config(config).save_pretrained(start)
    for file in MODEL_DIR.glob("*"):
        if file.name not in ("config.json", "model.safetensors"):
            (start / file.name).write_bytes(file.read_bytes())
    bench = make_bench("full", batch_size=4).replace(data=views_of(lab_rows[:8]))
    get("sft").train(bench)  # so that libraries are imported
    forget_peak()
    before = peak_memory()
    get("sft").train(bench.replace(start=str(start)))
    grown = peak_memory() - before
    parts = training_parts(shape_of(config, FULL), FULL, "float32", bench.training, Workload(4, 40))
    assert parts["weights"] == parts["gradients"] == parts["optimizer"] / 2 == 28_320_256 * 4
    assert 0.75 < grown / peak(parts) < 1.35


def test_what_is_divided_over_processes() -> None:
    shape, training, work = llama_8b(FULL), Training(gradient_checkpointing=True), Workload(1, 1024)
    count = shape.weights
    alone = training_parts(shape, FULL, "bfloat16", training, work, ALONE)
    copied = training_parts(shape, FULL, "bfloat16", training, work, Arrangement("data parallel", 8))
    states = training_parts(shape, FULL, "bfloat16", training, work, Arrangement("ZeRO-2", 8))
    all_of_it = training_parts(shape, FULL, "bfloat16", training, work, Arrangement("FSDP", 8))
    assert alone["optimizer"] == copied["optimizer"] == 8 * states["optimizer"] == 8 * all_of_it["optimizer"]
    assert copied["gradients"] == 2 * alone["gradients"] == 2 * 2 * count, "with the buckets"
    assert states["weights"] == alone["weights"] == 2 * count
    gathered = 2 * (2 * shape.block + shape.outside)
    assert all_of_it["weights"] == 2 * count / 8 + gathered
    assert alone["activations"] == all_of_it["activations"], "each has rows of its own"
    for checkpointing, share in ((False, 1), (True, shape.layers)):
        training = Training(bf16=True, gradient_checkpointing=checkpointing)
        whole = autocast_copies(shape, FULL, "float32", training)
        assert whole == 2 * shape.linear
        assert autocast_copies(shape, FULL, "float32", training, Arrangement("FSDP", 8)) == whole / share


def test_what_is_sent_by_hand() -> None:
    """LoRA of 41,943,040 weights in float32: a ring's all-reduce among 8 sends 2 x 7/8 of 167,772,160 bytes."""
    frozen = "algorithms.frozen={algorithm: ppo, epochs: 2, value_model: frozen}"
    names = ["grpo", "ppo", "frozen"]
    recipe = load("quickstart", ["model.dtype=bfloat16", "training.accumulation=2", frozen], names)
    shape = llama_8b(LORA)
    adapter, head = 4 * 41_943_040, 4 * 4096 * 4098
    assert step_traffic(shape, recipe, Arrangement("data parallel", 8)) == 1.75 * adapter
    assert step_traffic(shape, recipe, Arrangement("ZeRO-2", 8)) == 1.75 * adapter
    whole = 2 * 8_030_261_248 + adapter
    assert step_traffic(shape, recipe, Arrangement("FSDP", 8)) == 7 / 8 * 2 * (2 * whole + adapter)
    sent = {name: step_traffic(shape, recipe, Arrangement("FSDP", 8), recipe.algorithm(name)) for name in names}
    # Four replies to a prompt are eight passes, after a rollout of its own.
    assert sent["grpo"] == 7 / 8 * (8 * (2 * whole + adapter) + whole)
    # PPO's critic passes through the base, too, with an adapter of its own; a rollout is learned from in two epochs.
    assert sent["ppo"] == 7 / 8 * (2 * (2 * 2 * whole + adapter + 3 * adapter) + (whole + adapter) / 2)
    assert sent["frozen"] == 7 / 8 * (2 * (2 * whole + adapter + 3 * head) + whole / 2)


def test_what_is_whole_while_a_process_samples() -> None:
    names = ["grpo", "ppo", "frozen", "dpo"]
    frozen = "algorithms.frozen={algorithm: ppo, value_model: frozen}"
    recipe = load("quickstart", ["model.dtype=bfloat16", frozen], names)
    shape, eight = llama_8b(LORA), Arrangement("FSDP", 8)
    gathered = 2 * (2 * shape.block + shape.outside)
    parts = {name: label_parts(recipe, shape, recipe.algorithm(name), eight) for name in names}
    work = {name: workload(recipe, recipe.algorithm(name), 8) for name in parts}
    whole = {name: each["sampling"] - sampling(shape, "bfloat16", work[name]) for name, each in parts.items()}
    assert whole["grpo"] == 2 * shape.weights + 4 * shape.adapter - gathered
    assert whole["ppo"] == whole["grpo"] + 4 * shape.adapter and whole["dpo"] == 0
    assert whole["frozen"] == whole["grpo"] + 4 * 4096 * 4098
    whole_models = load("quickstart", ["adapter={type: full}", "training.bf16=true"], ["best_of_n_distillation", "sac"])
    for name in whole_models.algorithms:
        beside = label_parts(whole_models, llama_8b(FULL), whole_models.algorithm(name))["other models"]
        assert beside == 2 * 4 * llama_8b(FULL).weights, f"{name}: the reward model and the start"
    assert parts["grpo"]["other models"] == 2 * shape.weights + 4 * shape.adapter, "a reward model on a base of its own"
    assert label_parts(recipe, shape, recipe.algorithm("grpo"))["weights"] == 2 * shape.weights


def test_time_by_hand() -> None:
    assert training_flops(100, 100, False) == 600 and training_flops(100, 0, True) == 600
    gpu = Gpu("one", 80e9, 1e15, 2e12)
    assert sampling_seconds(16e9, 8e9, 100, gpu) == pytest.approx(100 * 20e9 / 2e12)
    assert sampling_seconds(16e9, 8e9, 100, gpu_named("48")) is None


def test_what_labels_hold_beside_the_policy() -> None:
    sets = ["model.dtype=bfloat16", "training.batch_size=8", "training.accumulation=2", "generation.max_new_tokens=100"]
    names = ["sft", "dpo", "kto", "ppo", "grpo", "ilql"]
    recipe = load("quickstart", sets, names)
    shape = llama_8b(LORA)
    work = {name: workload(recipe, recipe.algorithm(name)) for name in names}
    assert [work[n].rows for n in names] == [4, 8, 8, 4, 4, 8], "two replies of a pair, two unpaired for one"
    assert work["ppo"].samples == 8 and work["grpo"].samples == 4 * 8 and not work["dpo"].samples
    assert work["ppo"].length == 512 + 100 and work["dpo"].length == 1024
    parts = {name: label_parts(recipe, shape, recipe.algorithm(name)) for name in names}
    assert parts["ppo"]["critic"] == 16 * shape.adapter and parts["grpo"]["critic"] == 0
    assert parts["ppo"]["other models"] == 4 * shape.adapter, "a reward model on the same base"
    assert parts["ilql"]["logits"] == 3 * 4 * 8 * 1024 * shape.vocabulary
    more = {"frozen": "", "free": ", kl_coefficient: 0", "moving": ", reference_decay: 0.9"}
    critics = [f"algorithms.{each}={{algorithm: ppo, value_model: frozen{setting}}}" for each, setting in more.items()]
    of_ppo = ["ppo", *more]
    whole = load("quickstart", ["adapter={type: full}", "training.bf16=true", *critics], [*names, *of_ppo[1:]])
    shape = llama_8b(FULL)
    held = {name: label_parts(whole, shape, whole.algorithm(name)) for name in of_ppo}
    separate = critic_bytes(shape, "separate", "adamw_torch_fused")
    assert held["ppo"]["critic"] == 16 * (shape.weights - shape.head) == separate
    assert {held[name]["critic"] for name in more} == {16 * 4096 * 4098}
    models = [held[name]["other models"] / (4 * shape.weights) for name in of_ppo]
    assert models == [2, 2, 2, 3], "the reward model, the reference, a start where that is no reference"
    for name, alone, divided in (("sft", 0, 0), ("dpo", 0, 1 / 8), ("kto", 1, 1 / 8)):
        both = [label_parts(whole, shape, whole.algorithm(name), each) for each in (ALONE, Arrangement("FSDP", 8))]
        assert [each["other models"] for each in both] == [n * 4 * shape.weights for n in (alone, divided)], name


def test_the_smallest_arrangement(monkeypatch) -> None:
    """Trained whole, 8B in float32 are 16 bytes a weight, 128 GB: divided by two they leave 11 of the 75 GB that can be
    used of an H100, enough for what is gathered, but not for half of DPO's reference, 16 GB, beside it. PPO's reward
    model is whole in each process, 32 GB, and so is the policy while it samples: beside 64 GB there is room for small
    shares of the rest alone. Of 70B even the 4 bytes a weight are too many for one process, which answers test prompts.
    """
    monkeypatch.setattr(registry, "_registered", {"needs_whole": NeedsWhole})
    sets = ["adapter={type: full}", "training={bf16: true, gradient_checkpointing: true, accumulation: 16}"]
    recipe = load("quickstart", ["algorithms={sft: {}, dpo: {}, ppo: {}, needs_whole: {}}", *sets])
    plan = placed(recipe, llama_8b(FULL), gpu_named("h100"), 32)
    smallest = {label: (each.smallest, each.runs) for label, each in plan.labels.items()}
    assert smallest == {
        "sft": (Arrangement("FSDP", 2), True),
        "dpo": (Arrangement("FSDP", 4), True),
        "ppo": (Arrangement("FSDP", 32), True),
        "needs_whole": (Arrangement("FSDP", 2), False),
    }
    assert any("needs_whole: what would fit" in sentence for sentence in placement_sentences(plan))
    assert plan.labels["sft"].alone > 16 * 8.03e9
    plan = placed(recipe, shape_like("70B", True), gpu_named("H100"), 512)
    assert plan.labels["sft"].smallest is None
    assert any("fits nowhere" in sentence and "adapter.type=lora" in sentence for sentence in placement_sentences(plan))


@pytest.mark.parametrize("name", ["H1000", "0", "-3", "big"])
def test_an_unknown_gpu_is_refused(name) -> None:
    with pytest.raises(PrefzooError, match="A100-80"):
        gpu_named(name)
    assert gpu_named("a100 80").name == "A100-80" and gpu_named("48GiB").memory == 48 * 2**30


def test_the_command(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    shown = CliRunner().invoke(app, ["plan", "quickstart", "--gpu", "L4", "--gpus", "2"], env={"COLUMNS": "200"})
    assert shown.exit_code == 0 and "ppo" in shown.output and "no weights were loaded" in shown.output
    assert not list(tmp_path.iterdir()), "nothing is tried"
    with pytest.raises(PrefzooError, match="--gpu NAME"):
        CliRunner().invoke(app, ["plan", "quickstart", "--gpus", "2"], catch_exceptions=False)
    with pytest.raises(PrefzooError, match=r"model\.path.*in the cache"):
        read_shape(load("hh_qlora"))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def scale_rows() -> dict[str, list[str]]:
    """The rows of the tables in docs/scale.md that are computed: memory, what moves, and 100 trials."""
    kinds = {"QLoRA": ["adapter={type: qlora}"], "LoRA": ["adapter={type: lora}"]}
    kinds["full"] = ["adapter={type: full}", "model.dtype=float32"]
    rows: dict[str, list[str]] = {"memory": [], "moved": [], "trials": []}
    for model in ("8B", "70B"):
        for kind, sets in kinds.items():
            recipe = load("hh_qlora", sets, ["dpo", "grpo", "ppo"])
            shape = shape_like(model, kind == "full")
            plan = placed(recipe, shape, gpu_named("H100"), 64)
            for label in plan.labels.values():
                p, best, hours = label.parts, label.smallest, label.hours or 0.0
                trained, others = p["adapter"] + p["gradients"] + p["optimizer"], p["critic"] + p["other models"]
                learning = p["activations"] + p["logits"]
                amounts = [p["weights"], trained, others, learning, p["sampling"], label.alone]
                where = "none" if best is None else best.name if best == ALONE else f"{best.name}, {best.processes}"
                cells = " | ".join(f"{amount / 2**30:.1f}" for amount in amounts)
                rows["memory"].append(f"| {model} {kind} | {label.label} | {cells} | {where} |")
                if not label.runs:
                    continue
                at_once = [gpus // best.processes for gpus in (8, 64, 512)]
                waves = [_short(-(-100 // n) * hours / best.processes) if n else "none" for n in at_once]
                days = " | ".join(waves)
                took = f"{_short(hours)} | {_short(100 * hours)}"
                rows["trials"].append(f"| {model} {kind} | {label.label} | {took} | {days} |")
            sent = [step_traffic(shape, recipe, Arrangement(name, 8)) for name in ("data parallel", "FSDP")]
            read = base_weights(shape, recipe.adapter, recipe.model.dtype)
            moved = " | ".join(_short(amount / 1e9) for amount in (read, *sent, plan.labels["dpo"].checkpoint))
            rows["moved"].append(f"| {model} {kind} | {moved} |")
    return rows


def test_the_page_on_scale_has_the_numbers_of_the_code() -> None:
    page = SCALE.read_text(encoding="utf-8")
    missing = [row for rows in scale_rows().values() for row in rows if row not in page]
    assert not missing, "\n".join(missing)
