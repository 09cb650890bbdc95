"""Write a trained policy as a plain model folder, with a card that says where it comes from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from prefzoo import registry
from prefzoo.commands.sample_policies import Chosen, choose_policy
from prefzoo.errors import PrefzooError, os_errors_told
from prefzoo.lab import MODELS
from prefzoo.models.policy_kinds import POLICY_FILE
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START
from prefzoo.run.subprocesses import quiet
from prefzoo.settings import Generation

CARD = "README.md"
MEASURED = ("gold", "proxy", "kl", "length")


@os_errors_told("exporting")
def export(folder: Path, label: str, to: Path, seed: int | None = None, run_code: bool = False) -> Chosen:
    """Write the policy of a label, adapter merged, with its card and the generation settings it was measured under.

    Args:
        folder: of the comparison.
        to: where to; must be new or empty.
        seed: which trial's; None is the first.
        run_code: whether code may run that the folder names (`load_policy`).

    Returns:
        What was written.

    Raises:
        PrefzooError: before anything is loaded, when there is no such policy, it is not one model, or `to` holds
            something.
    """
    chosen = choose_policy(folder, label, seed)
    if label != START:
        kind = json.loads((chosen.stage.folder / "policy" / POLICY_FILE).read_text(encoding="utf-8"))["kind"]
        if not _is_one_model(kind):
            raise PrefzooError(
                f"{label} is not one model but a way of sampling ({kind}); export what it is made of instead, such as "
                f"its start and its reward, or what is in {chosen.stage.folder / 'policy'}"
            )
    if to.exists() and not to.is_dir():
        raise PrefzooError(f"--to {to}: is a file; choose a folder")
    if to.is_dir() and any(to.iterdir()):
        raise PrefzooError(f"--to {to}: the folder is not empty")
    quiet()
    policy: Any = chosen.load(run_code)
    policy.export(to)
    if (to / "config.json").is_file():
        _write_generation_config(to, chosen.plan.recipe.generation)
    (to / CARD).write_text(model_card(chosen), encoding="utf-8")
    return chosen


def _is_one_model(kind: str) -> bool:
    """Whether a policy of this kind can be exported; to know it of our own, none is imported."""
    if kind in registry.BUILT_IN_POLICIES:
        return kind in ("adapter", "model")
    return hasattr(registry.policy_class(kind), "export")


def _write_generation_config(folder: Path, generation: Generation) -> None:
    """Have the model sample, where nothing else is said, as the comparison sampled from it."""
    from transformers import GenerationConfig

    here = (folder / "generation_config.json").is_file()
    config = GenerationConfig.from_pretrained(folder) if here else GenerationConfig()
    sampling: dict[str, Any] = {"do_sample": False, "temperature": None, "top_k": None, "top_p": None}
    if generation.temperature > 0:
        sampling = {"do_sample": True, "temperature": generation.temperature, "top_k": 0, "top_p": 1.0}
    config.update(**sampling, max_new_tokens=generation.max_new_tokens)
    config.save_pretrained(folder)


def model_card(chosen: Chosen) -> str:
    """Markdown that says how the policy was made and what it was measured to be."""
    plan, label = chosen.plan, chosen.label
    recipe = plan.recipe
    dump = recipe.model_dump(mode="json")
    manifest = json.loads((plan.stages["data"].folder / "manifest.json").read_text(encoding="utf-8"))
    name = recipe.algorithms[label].get("algorithm", label) if label != START else recipe.start.algorithm
    algorithm = recipe.algorithm(label) if label != START else recipe.start_algorithm()
    settings = registry.settings_of(algorithm) if algorithm is not None else {}
    facts = {
        "policy": label,
        "algorithm": name,
        "seed": chosen.seed if label != START else recipe.seeds[0],
        "model": recipe.model.path + (f" (revision {recipe.model.revision})" if recipe.model.revision else ""),
        "adapter": f"{recipe.adapter.type}, merged" if recipe.adapter.type != "full" else "none: all weights trained",
        "data": f"manifest sha256 {manifest['sha256']}",
        "sampled and measured with": f"max_new_tokens {recipe.generation.max_new_tokens}, temperature "
        f"{recipe.generation.temperature:g}, no top-p, no top-k (`generation_config.json` says the same)",
        "versions": ", ".join(f"{package} {version}" for package, version in plan.versions.items()),
    }
    replies, measured = _measured(chosen)
    hub_id = recipe.model.path not in MODELS and not Path(recipe.model.path).expanduser().exists()
    front = {"library_name": "transformers", "tags": ["prefzoo", str(name)]}
    front |= {"base_model": recipe.model.path} if hub_id else {}
    lines = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {label}, seed {facts['seed']}",
        "",
        "Trained by Prefzoo in a comparison of preference-optimization algorithms.",
        "",
        *[f"- **{key}**: {value}" for key, value in facts.items()],
    ]
    if measured:
        lines += ["", f"Measured in this trial, means over {replies} test prompts:", ""]
        lines += [f"- **{key}**: {value:.4g}" for key, value in measured.items()]
    for title, content in (("Settings of the algorithm", settings), ("The recipe, with everything resolved", dump)):
        lines += ["", f"## {title}", "", "```yaml", yaml.safe_dump(content, sort_keys=False).rstrip(), "```"]
    return "\n".join(lines) + "\n"


def _measured(chosen: Chosen) -> tuple[int, dict[str, float]]:
    """How many test replies the exported trial gave, and means over them; 0 and none where it was not evaluated."""
    stage = chosen.plan.stages.get(f"evaluate {chosen.label} seed {chosen.seed}")
    if stage is None or not stage.done:
        return 0, {}
    records = read_records(stage.folder)
    numbers = {name: [record[name] for record in records if record.get(name) is not None] for name in MEASURED}
    return len(records), {name: sum(values) / len(values) for name, values in numbers.items() if values}
