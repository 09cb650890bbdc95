"""A finished run whose files were cut, emptied or filled with garbage, and folders that cannot be written: the report
and the next comparison repair it or say in words what is wrong, and touch nothing of anybody else's."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import prefzoo
from conftest import SMALL
from prefzoo import atomic_files
from prefzoo.atomic_files import write_whole
from prefzoo.commands.comparison import prepare_data, rebuild
from prefzoo.errors import PrefzooError
from prefzoo.results import results_file
from prefzoo.run.executor import OUTCOMES
from prefzoo.run.stage_graph import PLAN_FILE

pytestmark = pytest.mark.faults

BOOKKEEPING = (PLAN_FILE, OUTCOMES, "calls.jsonl", "workers.json", "results.json", "recipe.resolved.yaml")
DAMAGES = {
    "cut": lambda content: content[: len(content) // 2],
    "emptied": lambda content: b"",
    "garbage": lambda content: b"\xff\x00garbage",
    "other JSON": lambda content: b"[1, 2]",
    "a number": lambda content: b"7",
    "an empty block": lambda content: b"{}",
    "other blocks": lambda content: b'{"recipe": 1, "stages": {"a": 2}, "versions": [], "data": {"status": 1}, "x": 5}',
    "deep": lambda content: b"[" * 100_000,
}


def compare(out: Path):
    return prefzoo.compare("quickstart", ["sft"], seeds=1, sets=[*SMALL, "tracking.wandb.mode=disabled"], out=out)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "finished"
    compare(out)
    return out


@pytest.fixture
def run(finished, tmp_path) -> Path:
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_bookkeeping_is_rebuilt(damage: str, run) -> None:
    before = results_file.load(run).algorithms
    for name in BOOKKEEPING:
        if name != PLAN_FILE:
            (run / name).write_bytes(DAMAGES[damage]((run / name).read_bytes()))
    notes = "".join(rebuild(run).notes)
    assert ("outcomes.json" in notes) == (damage not in ("an empty block", "other blocks"))
    assert ("workers.json" in notes) == (damage != "other JSON")
    for name in BOOKKEEPING:
        (run / name).write_bytes(DAMAGES[damage]((run / name).read_bytes()))
    with pytest.raises(PrefzooError, match=r"plan\.json.*; compare again with the same recipe"):
        rebuild(run)
    assert compare(run).algorithms == before
    lines = (run / "calls.jsonl").read_bytes().splitlines()
    assert "recipe" in json.loads(lines[-1])


def test_bookkeeping_that_is_gone_or_a_folder(run) -> None:
    before = results_file.load(run).algorithms
    for name in BOOKKEEPING:
        (run / name).unlink()
    assert compare(run).algorithms == before
    (run / "estimate.json").write_text("{")
    assert "left out: estimate.json" in "".join(rebuild(run).notes)
    for name in ("calls.jsonl", OUTCOMES):
        (run / name).unlink()
        (run / name).mkdir()
        with pytest.raises(PrefzooError, match=f"{name}: .*directory"):
            compare(run)
        (run / name).rmdir()


def test_damaged_results_of_stages_are_told_and_those_of_a_start_too(finished, tmp_path_factory) -> None:
    files = [
        file.relative_to(finished)
        for file in sorted(finished.rglob("*"))
        if file.is_file() and file.suffix in (".json", ".jsonl", ".txt", ".safetensors") and len(file.parts) > 2
        and file.parent != finished and "figures" not in file.parts and "model" not in file.parts
    ]  # fmt: skip
    assert len(files) > 15

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.sampled_from(files), st.sampled_from(sorted(DAMAGES)), st.booleans())
    def damaged(file: Path, damage: str, resume: bool) -> None:
        run = tmp_path_factory.mktemp("damaged") / "run"
        shutil.copytree(finished, run)
        (run / file).write_bytes(DAMAGES[damage]((run / file).read_bytes()))
        try:
            results = compare(run) if resume else rebuild(run)
        except PrefzooError as error:
            assert str(run) in str(error) and file.name in str(error)
        else:
            assert set(results.algorithms) == {"start", "sft"}
        shutil.rmtree(run)

    damaged()


def full(monkeypatch, name: str, code: int = errno.ENOSPC) -> None:
    """Let writing a file of this name fail."""

    def write(path: Path, content: str | bytes) -> None:
        if path.name == name:
            raise OSError(code, os.strerror(code), str(path))
        write_whole(path, content)

    for module_name, module in list(sys.modules.items()):
        if module_name.startswith("prefzoo.") and hasattr(module, "write_whole"):
            monkeypatch.setattr(module, "write_whole", write)


@pytest.mark.parametrize(
    ("name", "code"),
    [(name, errno.ENOSPC) for name in (*BOOKKEEPING, "results.csv", "report.html", "report.md", "written.json")]
    + [(PLAN_FILE, code) for code in (errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT)],
)
def test_a_disk_that_is_full_or_read_only(name: str, code: int, run, monkeypatch) -> None:
    before = results_file.load(run).algorithms
    if name == "workers.json":  # nothing is counted where nothing is to be run
        shutil.rmtree(next(path for path in run.glob("trials/evaluate-sft*") if path.is_dir()))
    full(monkeypatch, name, code)
    with pytest.raises(PrefzooError, match=f"{name}: {os.strerror(code)} .while comparing.; "):
        compare(run)
    monkeypatch.undo()
    if name in (OUTCOMES, "report.html"):
        assert compare(run).algorithms == before


def test_folders_that_cannot_be_made(tmp_path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    for out, words in (
        ("file", "a file, or a link that leads nowhere, stands"),
        ("file/under", "a file, or a link that leads nowhere, stands"),
        ("loop", "a file, or a link that leads nowhere, stands"),
        ("x" * 300, "choose a shorter name"),
        ("x/" * 3000, "choose a shorter name"),
    ):
        for command in (compare, lambda out: prepare_data("quickstart", out=out)):
            with pytest.raises(PrefzooError, match=words):
                command(tmp_path / out)
        with pytest.raises(PrefzooError, match=r"holds no prefzoo run|choose a shorter name"):
            rebuild(tmp_path / out)


def test_a_folder_that_is_removed_midway(tmp_path, monkeypatch) -> None:
    out = tmp_path / "run"

    def remove(runner):
        shutil.rmtree(out)
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(out / "stages"))

    monkeypatch.setattr("prefzoo.run.executor.Runner.run", remove)
    with pytest.raises(PrefzooError, match=r"stages: No such file .*; was it removed or moved meanwhile\?"):
        compare(out)


@pytest.mark.parametrize("name", ["figures", "stages", "trials", "wandb", "report.html", "results.json", "stages/data"])
def test_nothing_is_written_through_links(name: str, run, tmp_path) -> None:
    other = tmp_path / "other"
    if (run / name).exists():
        (run / name).rename(other)
    else:
        other.mkdir()
    kept = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file() and file.name != ".lock"}
    (run / name).symlink_to(other)
    for command in (compare, rebuild):
        if command is compare or "/" not in name:
            with pytest.raises(PrefzooError, match=f"{name}: a symbolic link, and nothing is written through one"):
                command(run)
    assert all(file.read_bytes() == content for file, content in kept.items())


def test_a_run_that_is_reached_through_a_link(run, tmp_path) -> None:
    (tmp_path / "link").symlink_to(run)
    assert rebuild(tmp_path / "link").algorithms["sft"].status == "ok"


def test_pictures_of_others_stay(tmp_path, monkeypatch) -> None:
    from prefzoo.report.report_files import _save_pictures
    from prefzoo.report.sections import Picture

    figures, elsewhere = tmp_path / "figures", tmp_path / "elsewhere.svg"
    drawn = {name: Picture(name, "", "", f"<svg>{name}</svg>", b"png") for name in ("score", "frontier", "edited")}
    _save_pictures(drawn, figures)
    (figures / "mine.png").write_bytes(b"mine")
    (figures / "edited.svg").write_text("changed by hand")
    elsewhere.write_text("elsewhere")
    (figures / "linked.svg").symlink_to(elsewhere)
    (figures / "score.svg").unlink()
    (figures / "score.svg").symlink_to(elsewhere)
    hashes = json.loads((figures / "written.json").read_text())
    (figures / "written.json").write_text(
        json.dumps({**hashes, "../elsewhere.svg": atomic_files.file_sha256(elsewhere)})
    )
    _save_pictures({"score": drawn["score"]}, figures)
    left = {file.name for file in figures.iterdir()}
    assert left == {"score.svg", "score.png", "mine.png", "edited.svg", "linked.svg", "written.json"}
    assert elsewhere.read_text() == "elsewhere" and (figures / "score.svg").read_text() == "<svg>score</svg>"
    (figures / "written.json").write_text("[")
    _save_pictures({}, figures)
    assert (figures / "score.svg").exists()


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch) -> None:
    file, other = tmp_path / "a.json", tmp_path / "other"
    other.write_text("other")
    (tmp_path / "a.json.partial").symlink_to(other)
    write_whole(file, "old")
    assert other.read_text() == "other" and file.read_text() == "old"

    def fail(*paths: Path) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space"):
        write_whole(file, "new")
    assert file.read_text() == "old" and sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "other"]
