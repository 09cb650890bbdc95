"""The commands as a user types them."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prefzoo.cli import app

PREFZOO = str(Path(sys.executable).with_name("prefzoo"))


def prefzoo(*arguments: str, cwd=None) -> subprocess.CompletedProcess:
    return subprocess.run([PREFZOO, *arguments], capture_output=True, text=True, cwd=cwd)


def test_ls_shows_algorithms_and_recipes_at_once_and_without_torch() -> None:
    times = []
    for _ in range(3):
        began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        shown = prefzoo("ls")
        times.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began)
    assert shown.returncode == 0
    for word in ("dpo", "rejection_sampling", "preferences", "quickstart", "hh_harmless"):
        assert word in shown.stdout
    assert min(times) < 1.0, "seconds of processor time, which other work on the machine does not change"
    code = (
        "import sys\nfrom prefzoo.cli import app\n"
        "try: app(['ls'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_validate_says_everything_and_exits_with_2() -> None:
    assert prefzoo("validate", "quickstart").returncode == 0
    wrong = prefzoo("validate", "quickstart", "--set", "algorithms.dpo.bta=1", "--set", "seeds=0")
    assert wrong.returncode == 2
    assert "2 mistakes" in wrong.stderr and "Did you mean 'beta'" in wrong.stderr
    assert len(wrong.stderr.splitlines()) == 3, "a line each, however wide the terminal"
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["compare", "quikstart"], "Did you mean 'quickstart'"),
        (["compare", "quickstart", "--algorithms", "dpoo"], "Did you mean 'dpo'"),
        (["compare", "quickstart", "--set", "data.preferences=missing.jsonl"], "neither a file"),
        (["run", "quickstart", "--algorithm", "sftt"], "Did you mean 'sft'"),
        (["report", "nowhere"], "no prefzoo run"),
        (["sample", "nowhere", "hi"], "no prefzoo run"),
    ],
)
def test_mistakes_are_told_in_words(tmp_path, arguments, says: str) -> None:
    done = prefzoo(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert says in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr


def test_compare_report_sample_and_export(small_run, tmp_path) -> None:
    _, out = small_run
    shown = prefzoo("report", str(out))
    assert shown.returncode == 0, shown.stderr
    assert "rejection_sampling" in shown.stdout and "held-out pairs" in shown.stdout
    prompt = "Facts: lamp 32 euros. How much is the lamp?"
    answers = prefzoo("sample", str(out), prompt, "--algorithms", "start,dpo")
    assert answers.returncode == 0, answers.stderr
    assert "dpo" in answers.stdout and "start" in answers.stdout
    assert "%|" not in answers.stderr and "Warning" not in answers.stderr
    exported = prefzoo("export", str(out), "dpo", "--to", str(tmp_path / "dpo"))
    assert exported.returncode == 0, exported.stderr
    assert "%|" not in exported.stderr and "Warning" not in exported.stderr
    assert (tmp_path / "dpo" / "model.safetensors").is_file()
    assert "not empty" in prefzoo("export", str(out), "dpo", "--to", str(tmp_path / "dpo")).stderr
    assert "Did you mean 'dpo'" in prefzoo("export", str(out), "dop", "--to", str(tmp_path / "x")).stderr


def test_report_exits_as_compare_does_when_a_label_did_not_finish(small_run, tmp_path) -> None:
    shutil.copytree(small_run[1], tmp_path / "run", symlinks=True)
    again = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert again.exit_code == 0, again.output
    for folder in (tmp_path / "run" / "trials").glob("train-dpo-*"):
        if folder.is_dir():  # beside it is its log
            shutil.rmtree(folder)
    partial = CliRunner().invoke(app, ["report", str(tmp_path / "run")])
    assert partial.exit_code == 1 and "report.html" in partial.output


def test_run_trains_one_algorithm(tmp_path) -> None:
    small = ["budget.prompts=16", "evaluation.prompts=4", "generation.max_new_tokens=8"]
    sets = [part for each in small for part in ("--set", each)]
    done = prefzoo("run", "quickstart", "--algorithm", "dpo", *sets, "--out", str(tmp_path / "run"))
    assert done.returncode == 0, done.stderr
    assert "One seed" in done.stdout
    assert "[1/" in done.stderr and "train dpo seed 0" in done.stderr
