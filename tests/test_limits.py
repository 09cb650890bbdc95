"""What a model cannot do is told in the data stage, before anything is trained: replies that end, and long ones."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoConfig, AutoModelForSequenceClassification

from prefzoo.commands.comparison import prepare_data
from prefzoo.data.formats import Row
from prefzoo.errors import PrefzooError
from prefzoo.lab import MODEL_DIR
from prefzoo.models.loading import load_tokenizer
from prefzoo.recipe import check_recipe as recipes
from prefzoo.recipe.recipe_schema import LAB_LENGTHS
from prefzoo.run.stages.token_lengths import Tokens, check_positions


def model(folder: Path, template: bool = True, **changes: Any) -> Path:
    """A folder with the lab's model and tokenizer, whose files say `changes` where they have such keys."""
    folder.mkdir(exist_ok=True)
    shutil.copy(MODEL_DIR / "model.safetensors", folder)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = json.loads((MODEL_DIR / name).read_text())
        kept = {key: changes.get(key, value) for key, value in content.items()}
        (folder / name).write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    if template:
        (folder / "chat_template.jinja").write_text((MODEL_DIR / "chat_template.jinja").read_text())
    return folder


def in_the_data_stage(tmp_path: Path, **blocks: Any) -> str:
    """What the data stage of a small recipe says when it stops."""
    recipe = {"budget": {"prompts": 12}, "evaluation": {"prompts": 4}, "algorithms": {"ppo": {}}, **blocks}
    with pytest.raises(PrefzooError) as told:
        prepare_data(recipe, out=tmp_path / "run")
    return str(told.value)


@pytest.mark.parametrize("template", [True, False])
def test_a_tokenizer_without_an_end_is_refused(template, tmp_path) -> None:
    path = model(tmp_path / "endless", template, eos_token=None)
    said = in_the_data_stage(tmp_path, model={"path": str(path)})
    assert f"the tokenizer in {path} has no end-of-sequence token" in said
    assert re.search(r"as eos_token in .*tokenizer_config.json; its special tokens: '<\|pad\|>'", said)
    assert load_tokenizer(str(MODEL_DIR)).eos_token == "<|end|>"


def test_a_reward_model_needs_no_end_but_a_template(tmp_path) -> None:
    path = model(tmp_path / "scores", eos_token=None)
    assert load_tokenizer(str(path), replies=False).eos_token is None
    (path / "chat_template.jinja").unlink()
    with pytest.raises(PrefzooError, match="no end-of-sequence token"):
        load_tokenizer(str(path), replies=False)


def told(rows: list[Row], path: Path, **blocks: Any) -> list[str]:
    """What is said of these rows and the model in `path`."""
    block = {"model": {"path": str(path)}, "algorithms": {"ppo": {}}, "generation": {"max_new_tokens": 40}, **blocks}
    try:
        check_positions(recipes.check(block).with_lengths(LAB_LENGTHS), str(path), rows, Tokens(str(path), False))
    except PrefzooError as error:
        return str(error).splitlines()
    return []


def test_prompts_and_replies_beyond_the_models_positions_are_refused(tmp_path, lab_rows) -> None:
    """The number that is told is the least that suffices."""
    path = model(tmp_path / "short", max_position_embeddings=48)
    sampled, given = told(lab_rows, path)
    found = re.search(
        rf"model.path: '{path}' has 48 positions, and a prompt with a reply to it takes up to (\d+). "
        r"Lower data.max_prompt_tokens \(now 512\) or generation.max_new_tokens \(now 40\).",
        sampled,
    )
    assert found is not None
    assert (
        "a prompt with the data's reply to it takes up to" in given and "data.max_completion_tokens (now 512)" in given
    )
    for positions, refused in ((int(found[1]) - 1, 1), (int(found[1]), 0)):
        enough = model(tmp_path / "short", max_position_embeddings=positions)
        assert len(told(lab_rows, enough)) == refused


def test_replies_in_the_data_count_only_where_they_are_learned_from(tmp_path, lab_rows) -> None:
    path = model(tmp_path / "short", max_position_embeddings=56)
    short = {"generation": {"max_new_tokens": 2}}
    (given,) = told(lab_rows, path, **short)
    assert "the data's reply" in given
    alone = {"start": {"algorithm": "none"}, "reward": {"type": "random"}}
    assert told(lab_rows, path, **short, **alone) == []


def test_a_reward_model_with_too_few_positions_is_refused(tmp_path) -> None:
    path = str(model(tmp_path / "scores", max_position_embeddings=48))
    config = AutoConfig.from_pretrained(path, num_labels=1)
    AutoModelForSequenceClassification.from_config(config).save_pretrained(path)
    said = in_the_data_stage(tmp_path, reward={"type": "path", "path": path})
    assert f"reward.path: '{path}' has 48 positions, and a prompt with a reply to it takes up to" in said
    assert "model.path" not in said
