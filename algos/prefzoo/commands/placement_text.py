"""What `prefzoo plan --gpu` prints: tables of memory by part and by arrangement, and what their numbers stand for."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from prefzoo.commands.gpu_data import FRAGMENTED, RESERVED, UTILIZATION
from prefzoo.commands.label_memory import ASSUMED_TOKENS, lengths
from prefzoo.commands.placement import LabelPlan, Placement

GIB = 2**30
PARTS = (
    "weights", "adapter", "gradients", "optimizer", "critic", "other models", "activations", "logits", "sampling",
)  # fmt: skip


def placement_tables(plan: Placement) -> list[Table]:
    """A table of memory by part, and one of arrangements where several GPUs may train together."""
    parts = [part for part in PARTS if any(label.parts.get(part) for label in plan.labels.values())]
    memory = _table(f"GiB on one {plan.gpu.name}, of which {_gib(plan.gpu.usable)} can be used", "policy", *parts,
                    "peak", "smallest that fits", "GPU hours")  # fmt: skip
    for label in plan.labels.values():
        smallest = "none" if label.smallest is None else label.smallest.name
        if label.smallest is not None and label.smallest.processes > 1:
            smallest = f"{smallest}, {label.smallest.processes} GPUs"
        hours = "" if label.hours is None else f"{label.hours:.2g}"
        amounts = [_gib(label.parts.get(part, 0.0)) for part in parts]
        memory.add_row(Text(label.label), *amounts, _gib(label.alone), smallest, hours)
    tables = [memory]
    if any(label.together for label in plan.labels.values()):
        names = [name for label in plan.labels.values() for name in label.together]
        shown = list(dict.fromkeys(names))
        size = 2 ** (plan.gpus.bit_length() - 1)
        several = _table(f"GiB in each of {size} processes, and GiB that each sends in a step", "policy",
                         *shown, *(f"{name} sends" for name in shown), "a checkpoint")  # fmt: skip
        for label in plan.labels.values():
            cells = [_gib(label.together[name]) for name in shown] + [_gib(label.traffic[name]) for name in shown]
            several.add_row(Text(label.label), *cells, _gib(label.checkpoint))
        tables.append(several)
    return tables


def placement_sentences(plan: Placement) -> list[str]:
    """What the numbers stand for."""
    recipe, shape = plan.recipe, plan.shape
    prompt, completion, reply = lengths(recipe)
    kind = {"full": "trained whole", "lora": f"LoRA of {shape.adapter:,}", "qlora": f"QLoRA of {shape.adapter:,}"}
    said = [
        f"{recipe.model.path}: {shape.weights:,} weights, {kind[recipe.adapter.type]}; no weights were loaded. Every "
        f"row is taken to be full: {prompt} tokens of prompt, {completion} of a reply in the data, {reply} of a "
        "sampled one."
    ]
    if recipe.derives:
        said.append(f"Of {', '.join(recipe.derives)}, which are auto, {ASSUMED_TOKENS} tokens are assumed; say them.")
    said.append(
        f"Kept free: {RESERVED / 1e9:g} GB and {FRAGMENTED:.0%} of the GPU. Of what is trained, sampled and scored "
        "the largest at a time is the peak; docs/scale.md has estimates beside measured peaks."
    )
    if any(label.hours is not None for label in plan.labels.values()):
        total = sum(label.hours or 0.0 for label in plan.labels.values()) / len(plan.labels)
        said.append(
            f"GPU hours are of one trial and lower bounds: learning at {UTILIZATION:.0%} of {plan.gpu.name}'s peak, "
            f"sampling at its memory's bandwidth. The comparison has {plan.trials} trials: {total * plan.trials:.2g} "
            "hours."
        )
    elif plan.gpu.flops is None:
        said.append("Time is not estimated: of a GPU that is given by its size no speed is known.")
    else:
        said.append("Time is not estimated: budget.prompts is null, and only the data can tell how many there are.")
    on_paper = [each.label for each in plan.labels.values() if each.smallest and not each.runs]
    if on_paper:
        said.append(
            f"{', '.join(on_paper)}: what would fit divides weights or states over processes in a way that is not run "
            "here (docs/scale.md)."
        )
    for label in plan.labels.values():
        if label.smallest is None:
            said.append(f"{label.label} fits nowhere: {_advice(plan, label)}")
    return said


def _advice(plan: Placement, label: LabelPlan) -> str:
    training, largest = plan.recipe.training, max(label.parts, key=lambda part: label.parts[part])
    ways = [] if training.gradient_checkpointing else ["training.gradient_checkpointing=true"]
    if training.accumulation < training.batch_size:
        ways.append(f"training.accumulation={training.batch_size}")
    if plan.recipe.model.dtype == "float32":
        ways.append("model.dtype=bfloat16")
    if plan.recipe.adapter.type != "qlora":
        ways.append("adapter.type=" + ("lora" if plan.recipe.adapter.type == "full" else "qlora"))
    return f"most of it is {largest}. Try {', '.join(f'--set {way}' for way in ways) or 'a larger GPU'}, or --gpus."


def _table(title: str, *columns: str) -> Table:
    table = Table(*columns, box=None, title=title, title_justify="left")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def _gib(amount: float) -> str:
    return f"{amount / GIB:.3g}" if amount else "0"
