"""What lies beside a report is what the stages wrote, or the report is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from prefzoo.commands.comparison import rebuild
from prefzoo.errors import PrefzooError
from prefzoo.run import integrity
from prefzoo.run.integrity import SEAL, refuse_edited, seal, unsealed
from prefzoo.run.stage_graph import load_plan


@pytest.fixture
def run(small_run, tmp_path) -> Path:
    shutil.copytree(small_run[1], tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def only(run: Path, pattern: str) -> Path:
    (file,) = run.glob(pattern)
    return file


def without_seals(run: Path) -> None:
    for file in run.rglob(SEAL):
        file.unlink()


@pytest.mark.parametrize(
    "pattern",
    [
        "trials/evaluate-dpo-seed-1-*/replies.jsonl",
        "trials/evaluate-dpo-seed-1-*/ledger.json",
        "trials/train-dpo-seed-1-*/policy/adapter_model.safetensors",
        "trials/train-dpo-seed-1-*/policy/adapter_config.json",
        "trials/train-dpo-seed-1-*/details.json",
        "stages/reward-*/reward/adapter_model.safetensors",
    ],
)
def test_one_byte_more_is_refused_by_the_name_of_its_file(run, pattern) -> None:
    file = only(run, pattern)
    file.write_bytes(file.read_bytes() + b" ")
    with pytest.raises(PrefzooError, match=f"{file.name} is not what was written") as raised:
        rebuild(run)
    assert len(str(raised.value).splitlines()) == 2


def test_replies_that_are_gone_are_told_and_weights_may_go(run) -> None:
    shutil.rmtree(only(run, "trials/train-dpo-seed-1-*[!g]/policy"))
    assert rebuild(run).algorithms["dpo"].status == "ok"
    only(run, "trials/evaluate-dpo-seed-1-*/replies.jsonl").unlink()
    with pytest.raises(PrefzooError, match=r"replies\.jsonl is gone"):
        rebuild(run)
    shutil.rmtree(only(run, "trials/evaluate-dpo-seed-1-*[!g]"))
    told = rebuild(run).algorithms["dpo"].error or ""
    assert "is gone, and was finished; compare again" in told


def test_runs_without_hashes_are_reported_and_that_is_noted(run) -> None:
    assert unsealed(load_plan(run)) == []
    without_seals(run)
    assert any("kept no hashes" in note for note in rebuild(run).notes)
    only(run, "trials/evaluate-dpo-seed-1-*/replies.jsonl").unlink()
    found = rebuild(run).algorithms
    assert "replies.jsonl is gone" in (found["dpo"].error or "") and found["sft"].status == "ok"


@pytest.mark.parametrize(("label", "field", "value"), [("dpo", "gold", "NaN"), ("start", "proxy", "-Infinity")])
def test_a_measurement_that_is_no_number_fails_its_label_alone(run, label, field, value) -> None:
    without_seals(run)
    file = only(run, f"trials/evaluate-{label}-seed-1-*/replies.jsonl")
    first, *rest = file.read_text().splitlines()
    file.write_text("\n".join([json.dumps({**json.loads(first), field: float(value)}), *rest]))
    found = rebuild(run)
    assert found.algorithms[label].status == "failed"
    assert f"no finite number: {field} of 1 of 16 replies" in (found.algorithms[label].error or "")
    assert found.algorithms["sft"].status == "ok" and "gold" in found.algorithms["sft"].summary
    assert any(v.a == "sft" for v in found.verdicts) == (label != "start")


def test_labels_are_hashed_row_by_row(run) -> None:
    """A run whose rows were labelled: the data's rows, and after them those that the labelling added."""
    from dataclasses import replace

    from prefzoo.data import splits
    from prefzoo.run.stage_graph import LABEL_STAGE, Stage

    plan = load_plan(run)
    data = plan.stages["data"].folder
    parts = {name: splits.load_split(data, name) for name in splits.SPLITS}
    added = {name: [replace(row, id=f"{row.id} labelled") for row in parts[name][:4]] for name in ("train", "test")}
    folder = run / "stages" / "label"
    folder.mkdir()
    splits.save_splits({name: [*rows, *added.get(name, [])] for name, rows in parts.items()}, folder)
    noted = {name: {"sha256": splits.sha256_of(rows)} for name, rows in added.items()}
    (folder / "labels.json").write_text(json.dumps({"splits": noted}))
    plan.stages[LABEL_STAGE] = Stage(LABEL_STAGE, "label", folder)
    refuse_edited(plan)
    seal(folder)
    for line in (-1, 0):
        rows = (folder / "train.jsonl").read_text().splitlines()
        row = json.loads(rows[line])
        rows[line] = json.dumps({**row, "chosen": row["rejected"], "rejected": row["chosen"]})
        before = (folder / "train.jsonl").read_text()
        (folder / "train.jsonl").write_text("\n".join(rows) + "\n")
        with pytest.raises(PrefzooError, match=r"labels of train: .*\n.*label: .*train\.jsonl is not what"):
            refuse_edited(plan)
        (folder / "train.jsonl").write_text(before)


def test_large_files_are_known_by_their_size_and_checkpoints_not_at_all(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(integrity, "LARGE", 8)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "state.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"12345678")
    (tmp_path / "ledger.json").write_text("{}")
    (tmp_path / "events.out").write_text("a tracker's, which writes when it likes")
    seal(tmp_path)
    marks = json.loads((tmp_path / SEAL).read_text())
    assert marks["model.safetensors"] == "8 bytes" and len(marks["ledger.json"]) == 64
    assert set(marks) == {"model.safetensors", "ledger.json"}


def test_an_evaluation_writes_no_measurement_that_is_no_number(tmp_path) -> None:
    from prefzoo.ledger import Ledger
    from prefzoo.run.stages.evaluate_stage import Measure
    from prefzoo.settings import Generation
    from prefzoo.types import Completion

    class Says:
        def sample(self, prompts, *given, **more):
            return [[Completion("yes", (1, 2), True)] for _ in prompts]

    def measure(proxy: float) -> None:
        prompts = [[{"role": "user", "content": text}] for text in "ab"]
        told = Measure(
            prompts,
            {},
            Generation(),
            0,
            lambda prompts, texts: [{"gold": 1.0}] * len(texts),
            lambda prompts, texts: [0.5, proxy],
            lambda what, done, total: None,
            start=lambda: pytest.fail("a policy without log-probabilities has no KL"),
        )
        told(Says(), Ledger(), tmp_path)

    with pytest.raises(PrefzooError, match="no finite number: proxy of 1 of 2 replies"):
        measure(float("nan"))
    assert not (tmp_path / "replies.jsonl").exists()
    measure(0.25)
    assert len((tmp_path / "replies.jsonl").read_text().splitlines()) == 2
