"""The commands as a user types them."""

from __future__ import annotations

import dataclasses
import json
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prefzoo import registry
from prefzoo.cli import app
from prefzoo.recipe.key_descriptions import hyper_parameters
from prefzoo.version import __version__

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
    families = shown.stdout.split("Recipes")[0]
    assert re.search(r"\n +preference pairs *\n(   +\w+ +preferences .*\n)+ +\w", families)
    assert min(times) < 1.0, "seconds of processor time, which other work on the machine does not change"
    code = (
        "import sys\nfrom prefzoo.cli import app\n"
        "try: app(['ls'])\nexcept SystemExit: pass\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def asked(*arguments: str) -> str:
    """What a command prints, its lines joined; it must end well."""
    done = CliRunner().invoke(app, list(arguments), env={"COLUMNS": "300"})
    assert done.exit_code == 0, done.output
    return " ".join(done.output.split())


def test_every_command_has_help_and_the_program_a_version() -> None:
    assert asked("--version") == f"prefzoo {__version__}"
    commands = [each.callback.__name__.replace("_", "-") for each in app.registered_commands]
    assert {"compare", "ls", "export"} <= {*commands}
    for command in ([], *([name] for name in commands)):
        text = asked(*command, "-h")
        assert text == asked(*command, "--help") and "Usage" in text
        assert not re.search(r"[a-z] [.,;:]( |$)", text), f"something is left out: {text}"


@pytest.mark.parametrize("name", registry.names())
def test_ls_of_an_algorithm_shows_every_setting_with_meaning_default_range_and_source(name: str) -> None:
    text, cls = asked("ls", name), registry.load(name)
    settings = hyper_parameters(cls)
    named = {field.name for field in dataclasses.fields(cls)} - ({"trainer"} if cls.config is None else set())
    assert {each.name for each in settings} == named
    for each in settings:
        assert all(each), f"{each.name} of {name} lacks something"
        assert each.name in text and each.default.split()[0] in text
    assert "http" in text


def test_ranges_and_defaults_are_those_of_the_code() -> None:
    of_dpo, of_ppo = ({each.name: each for each in hyper_parameters(registry.load(n))} for n in ("dpo", "ppo"))
    assert of_dpo["beta"][1:3] == ("0.1", "a number above 0") and of_dpo["beta"].source == "Rafailov et al. 2023"
    assert of_dpo["label_smoothing"].allowed == "a number at least 0, below 1"
    assert of_ppo["kl_target"][1:3] == ("null", "a number above 0 or null")
    assert of_ppo["lam"].allowed == "a number at least 0, at most 1" and "trace decay" in of_ppo["lam"].meaning


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["export", "bogus", "--to", "x"], "unknown policy 'bogus'"),
        (["export", "dpo", "--to", "x", "--seed", "7"], "seed 7 was not run"),
        (["export", "dpo", "--to", "."], "is not empty"),
        (["sample", "hi", "--algorithms", "dpo,dop"], "unknown policy 'dop'. Did you mean 'dpo'"),
    ],
)
def test_names_are_checked_before_anything_heavy_is_imported(small_run, arguments, says, tmp_path) -> None:
    command, *rest = arguments
    (tmp_path / "file").write_text("")
    code = (
        "import sys\nfrom prefzoo.cli import main\n"
        f"sys.argv = ['prefzoo', {command!r}, {str(small_run[1])!r}, *{rest!r}]\n"
        "try: main()\nexcept SystemExit as ended: assert ended.code == 2\n"
        "assert not {'torch', 'transformers', 'scipy', 'matplotlib'} & {*sys.modules}"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and says in done.stderr, done.stderr


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
        (["ls", "nash_md"], "unknown algorithm 'nash_md'. It is not built in; docs/algorithms.md"),
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
    assert exported.stdout.strip() == f"dpo, seed 0 of 0, 1: {tmp_path / 'dpo'}"
    sampling = json.loads((tmp_path / "dpo" / "generation_config.json").read_text())
    measured = {"do_sample": True, "temperature": 1.0, "max_new_tokens": 24, "top_k": 0, "top_p": 1.0}
    assert {key: sampling[key] for key in measured} == measured
    card = (tmp_path / "dpo" / "README.md").read_text()
    manifest = json.loads((out / "results.json").read_text())["manifest"]["sha256"]
    for fact in ("# dpo, seed 0", "beta: 0.5", f"sha256 {manifest}", "temperature 1", "torch ", "prompts: 48"):
        assert fact in card, fact
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
