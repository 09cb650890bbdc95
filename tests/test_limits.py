"""What a model cannot do is told in the data stage, before anything is trained: replies that end, and long ones."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from prefzoo.comparison.compare import prepare_data
from prefzoo.errors import PrefzooError
from prefzoo.lab import MODEL_DIR
from prefzoo.policies.loading import load_tokenizer

SMALL = {"budget": {"prompts": 12}, "evaluation": {"prompts": 4}}


def model(folder: Path, template: bool = True, **changes: Any) -> Path:
    """A folder with the lab's config and tokenizer, whose files say `changes` where they have such keys."""
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        content = json.loads((MODEL_DIR / name).read_text())
        kept = {key: changes.get(key, value) for key, value in content.items()}
        (folder / name).write_text(json.dumps({key: value for key, value in kept.items() if value is not None}))
    if template:
        (folder / "chat_template.jinja").write_text((MODEL_DIR / "chat_template.jinja").read_text())
    return folder


@pytest.mark.parametrize("template", [True, False])
def test_a_tokenizer_without_an_end_is_refused(template, tmp_path) -> None:
    path = model(tmp_path / "endless", template, eos_token=None)
    recipe = {**SMALL, "algorithms": {"ppo": {}}, "model": {"path": str(path)}}
    with pytest.raises(PrefzooError) as told:
        prepare_data(recipe, out=tmp_path / "run")
    assert f"the tokenizer in {path} has no end-of-sequence token" in str(told.value)
    assert re.search(r"as eos_token in .*tokenizer_config.json; its special tokens: '<\|pad\|>'", str(told.value))
    assert load_tokenizer(str(MODEL_DIR)).eos_token == "<|end|>"


def test_a_reward_model_needs_no_end_but_a_template(tmp_path) -> None:
    path = model(tmp_path / "scores", eos_token=None)
    assert load_tokenizer(str(path), replies=False).eos_token is None
    (path / "chat_template.jinja").unlink()
    with pytest.raises(PrefzooError, match="no end-of-sequence token"):
        load_tokenizer(str(path), replies=False)
