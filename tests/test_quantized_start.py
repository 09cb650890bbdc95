"""The start is quantized once in a comparison, and what reads the copy reads the same bits."""

from __future__ import annotations

import json

import pytest
import torch

pytest.importorskip("bitsandbytes")

from conftest import SMALL
from prefzoo import compare
from prefzoo.lab import MODEL_DIR
from prefzoo.models import loading
from prefzoo.models.policy_kinds import load_policy
from prefzoo.models.score_head import load_score_model
from prefzoo.run.evaluation_records import read_records
from prefzoo.run.stage_graph import START, load_plan
from prefzoo.run.stages import recipe_inputs, start_stage
from prefzoo.run.stages.shared_work import _weights
from prefzoo.settings import Adapter, Generation

ADAPTERS = {
    "nf4": {"type": "qlora"},
    "single": {"type": "qlora", "double_quant": False},
    "stored as bfloat16": {"type": "qlora", "quant_type": "fp4", "storage_dtype": "bfloat16"},
    "int8": {"type": "qlora", "quant_type": "int8"},
}


@pytest.fixture(autouse=True)
def no_copies(monkeypatch) -> None:
    monkeypatch.setattr(loading, "_copies", {})


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_copy_holds_the_same_bits(tmp_path, adapter: str, dtype: str) -> None:
    how = {"dtype": dtype, "quantization": Adapter(**ADAPTERS[adapter]).quantization}
    path, ids = str(MODEL_DIR), torch.arange(5, 45, device=loading.device()).reshape(2, 20)

    def read():
        torch.manual_seed(0)
        policy, scorer = loading.load_model(path, **how), load_score_model(path, **how)
        with torch.inference_mode():
            return policy, policy.eval()(ids).logits, scorer.eval()(ids).logits

    policy, logits, scores = read()
    policy.save_pretrained(str(tmp_path))
    loading.use_quantized_copy(path, tmp_path, **how)
    assert loading.source(path, **how)[0] == str(tmp_path)
    again, same_logits, same_scores = read()
    assert _weights(loading.load_model(path, **how)) == _weights(loading.load_model(str(tmp_path), dtype=dtype))
    assert again.config.quantization_config == policy.config.quantization_config
    assert torch.equal(logits, same_logits) and torch.equal(scores, same_scores)


def test_only_who_asks_for_the_same_gets_the_copy(tmp_path) -> None:
    how = {"dtype": "float32", "trust_remote_code": False, "quantization": Adapter(type="qlora").quantization}
    loading.use_quantized_copy(str(MODEL_DIR), tmp_path, **how)
    for other in ({"quantization": None}, {"dtype": "bfloat16"}, {"quantization": {"quant_type": "int8"}}):
        assert loading.source(str(MODEL_DIR), **{**how, **other})[0] == str(MODEL_DIR)
    assert loading.source(str(tmp_path), **how)[0] == str(tmp_path)
    assert "quantization_config" not in loading.source(str(MODEL_DIR), **how)[1]


@pytest.fixture(scope="module")
def quantized_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("quantized")
    sets = [*SMALL, "adapter.type=qlora", "start.trainer={optim: adamw_8bit}"]
    found = compare("quickstart", ["sft"], seeds=1, sets=sets, out=out)
    return found, out


def test_a_comparison_reads_the_copy_that_its_start_stage_made(quantized_run) -> None:
    found, out = quantized_run
    assert found.algorithms["sft"].status == "ok"
    plan = load_plan(out)
    folder = plan.stages[START].folder / start_stage.QUANTIZED
    how = loading_of(plan)
    assert loading.source(start_stage.start_path(plan), **how)[0] == start_stage.start_path(plan), "nobody knows it yet"
    start_stage.use_quantized_copy(plan)
    assert loading.source(start_stage.start_path(plan), **how)[0] == str(folder)


def test_what_the_start_was_trained_with_is_reported_too(quantized_run) -> None:
    found, out = quantized_run
    model = found.algorithms[START].seeds["0"].details["model"]
    assert (model["asked"]["optim"], model["asked"]["adapter"]["type"]) == ("adamw_8bit", "qlora")
    (said,) = model["differs"]  # the lab's adapter is too small for moments in 8 bits
    assert [n for n in found.notes if "model of" in n] == [f"The model of start: {said}."]
    written = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert written["algorithms"][START]["seeds"]["0"]["details"]["model"] == model
    assert said in (out / "report.html").read_text(encoding="utf-8").replace("&#39;", "'")


def test_its_replies_are_those_of_a_base_that_is_quantized_anew(quantized_run) -> None:
    _, out = quantized_run
    plan = load_plan(out)
    trained, measured = (plan.stages[f"{what} sft seed 0"].folder for what in ("train", "evaluate"))
    lines = read_records(measured)
    policy = load_policy(trained / "policy")
    assert not loading._copies
    again = policy.sample([line["prompt"] for line in lines], Generation(**plan.recipe.generation.model_dump()), 10_000)
    assert [each[0].text for each in again] == [line["reply"] for line in lines]


def test_an_edited_copy_is_refused(quantized_run) -> None:
    _, out = quantized_run
    plan = load_plan(out)
    config = plan.stages[START].folder / start_stage.QUANTIZED / "config.json"
    before = config.read_text(encoding="utf-8")
    config.write_text(before.replace('"nf4"', '"fp4"'), encoding="utf-8")
    try:
        with pytest.raises(Exception, match="no longer the one that was made"):
            start_stage.start_path(plan)
    finally:
        config.write_text(before, encoding="utf-8")


def loading_of(plan):
    return recipe_inputs.loading(plan.recipe, plan.recipe.adapter)
