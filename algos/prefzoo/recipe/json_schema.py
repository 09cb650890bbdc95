"""The JSON schema of a recipe, for editors that complete and check YAML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter

from prefzoo import registry
from prefzoo.config_fields import OWNED, annotated_type, config_fields, config_help
from prefzoo.recipe.check_recipe import LABEL_PATTERN, REWARD_CONFIG
from prefzoo.recipe.key_descriptions import about, describe_keys, hyper_parameters
from prefzoo.recipe.recipe_schema import Recipe


def recipe_schema() -> dict[str, Any]:
    """The schema (draft 2020-12) of a recipe file, with the settings of every algorithm that is known here.

    It is a help while writing; `prefzoo validate` knows more (what does not fit together, what does not exist).
    """
    schema = Recipe.model_json_schema()
    describe_keys(schema, Recipe)
    properties = schema["properties"]
    names = list(registry.sound())
    blocks = {f"algorithm:{name}": _algorithm(name, names) for name in names}
    schema["$defs"] |= blocks
    properties["extends"] = {"type": "string", "description": "A recipe that this one changes; by path or name."}
    properties["seeds"] = {
        "description": properties["seeds"]["description"],
        "anyOf": [{"type": "integer", "minimum": 1}, {"type": "array", "items": {"type": "integer", "minimum": 0}}],
    }
    start = properties["start"].pop("description")
    properties["start"] = {
        "description": start,
        "anyOf": [{"enum": ["none", "sft"]}, {"type": "null"}, properties["start"]],
    }
    for name in ("RewardSettings", "RewardPart"):
        trainer = schema["$defs"][name]["properties"]["trainer"]
        schema["$defs"][name]["properties"]["trainer"] = {
            **_trainer(REWARD_CONFIG),
            "description": trainer["description"],
        }
    chosen = [{"if": _is(name), "then": {"$ref": f"#/$defs/algorithm:{name}"}} for name in names]
    properties["algorithms"] = {
        "type": "object",
        "description": "A label and its settings; the label is the algorithm unless `algorithm:` says otherwise.",
        "properties": {
            name: {
                "description": blocks[f"algorithm:{name}"]["description"],
                "anyOf": [{"type": "null"}, {"$ref": f"#/$defs/algorithm:{name}"}],
            }
            for name in names
        },
        "propertyNames": {"pattern": f"^{LABEL_PATTERN.pattern}$"},
        "additionalProperties": {"type": "object", "required": ["algorithm"], "allOf": chosen},
    }
    # A recipe that others extend may name no algorithm.
    schema["required"] = []
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "Prefzoo recipe"}


def _is(name: str) -> dict[str, Any]:
    return {"properties": {"algorithm": {"const": name}}, "required": ["algorithm"]}


def _algorithm(name: str, names: list[str]) -> dict[str, Any]:
    cls = registry.load(name)
    schema = TypeAdapter(cls).json_schema(ref_template=f"#/$defs/algorithm:{name}/$defs/{{model}}")
    properties = schema["properties"]
    if cls.config is not None:
        properties["trainer"] = _trainer(cls.config, cls.owned)
    else:
        properties.pop("trainer", None)
    for setting in hyper_parameters(cls):
        if setting.meaning:
            source = f" The default is from: {setting.source}." if setting.source else ""
            properties[setting.name].setdefault("description", setting.meaning + source)
    properties["algorithm"] = {"enum": names, "description": "The algorithm; the label itself where this is left out."}
    properties["tune"] = {
        "description": "What tuning tries of each setting: [low, high], [low, high, log] or a list of choices; false "
        "keeps a setting, or the whole label, as it is.",
        "anyOf": [{"type": "boolean"}, {"type": "object"}],
    }
    properties["seed_offset"] = {"type": "integer", "description": "Moves the seeds of this label's trials."}
    return {**schema, "description": " ".join(about(cls).split("\n\n")[0].split()), "additionalProperties": False}


def _trainer(config: str, owned: Mapping[str, str] | None = None) -> dict[str, Any]:
    taken = {*OWNED, *(owned or {})}
    annotations = {name: text for name, text in config_fields(config).items() if name not in taken}
    cls, help_of = config.partition(":")[2], config_help(config)
    return {
        "type": "object",
        "description": f"Any field of {cls} that the comparison does not set itself.",
        "properties": {
            name: {**TypeAdapter(annotated_type(text)).json_schema(), "description": help_of[name] or f"See {cls}."}
            for name, text in annotations.items()
        },
        "additionalProperties": False,
    }
