"""What is shipped: a complete wheel, and a README whose commands exist."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from prefzoo.run.cache import source_hash

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "docs" / "algorithms.md"]


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line]


def test_the_wheel_holds_recipes_lab_and_templates_and_works_in_an_empty_folder(tmp_path) -> None:
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    for needed in (
        "prefzoo/recipes/quickstart.yaml",
        "prefzoo/lab/model/model.safetensors",
        "prefzoo/lab/model/tokenizer.json",
        "prefzoo/lab/model/chat_template.jinja",
        "prefzoo/lab/bilingual_model/model.safetensors",
        "prefzoo/report/templates/report.html.jinja",
        "prefzoo/report/templates/style.css",
        "prefzoo/report/templates/filter.js",
        "prefzoo/report/templates/replies.html.jinja",
        "prefzoo/report/prose.yaml",
        "prefzoo/py.typed",
    ):
        assert needed in names
    assert not [n for n in names if n.startswith(("tests", "recipes", "shared"))]
    (tmp_path / "empty").mkdir()
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import prefzoo; assert prefzoo.__file__.startswith(sys.argv[1]);"
        "from prefzoo.recipe import check_recipe, recipe_files; from prefzoo.lab import MODEL_DIR;"
        "from prefzoo.run.cache import source_hash; assert source_hash() == sys.argv[2];"
        "assert check_recipe.load('quickstart').algorithms;"
        "assert all(str(p).startswith(sys.argv[1]) for p in [MODEL_DIR, *recipe_files.shipped().values()])"
    )
    site = str(tmp_path / "site")
    subprocess.run([sys.executable, "-c", code, site, source_hash()], check=True, cwd=tmp_path / "empty")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_of_the_docs_exists(page: Path, tmp_path, monkeypatch) -> None:
    from prefzoo.cli import app

    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    monkeypatch.chdir(tmp_path)
    found = commands(page)
    assert found
    for line in found:
        words = line.split()
        if words[0] == "make":
            assert set(words[1:]) <= targets, line
        elif words[0] == "prefzoo":
            assert CliRunner().invoke(app, [words[1], "--help"]).exit_code == 0, line
            options = [w for w in words if w.startswith("--")]
            shown = CliRunner().invoke(app, [words[1], "--help"], terminal_width=200).output
            assert all(option in shown for option in options), line
        else:
            assert words[0] in ("git", "cd", "pip", "bash"), line


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)


def test_the_chinese_readme_says_the_same_to_a_computer() -> None:
    """Its commands, recipes, Python, tables, pictures and links are those of the English one, comments aside."""
    sides = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]
    code = [re.findall(r"```(\w+)\n(.*?)```", side, re.DOTALL) for side in sides]
    plain = [[(kind, re.sub(r" *# .*", "", text)) for kind, text in found] for found in code]
    assert plain[0] == plain[1]
    tables = [[line for line in side.splitlines() if line.startswith("|")] for side in sides]
    assert tables[0] == tables[1]
    links = [set(re.findall(r"\]\(([^)]+)\)", side)) for side in sides]
    assert links[0] - {"README.zh.md"} == links[1] - {"README.md"}


def test_the_python_of_the_readme_runs(tmp_path) -> None:
    """As a script without a main guard, which is what people write; with a smaller budget."""
    algorithm, script = blocks("python")
    assert len(algorithm.splitlines()) < 60
    (tmp_path / "short_sft.py").write_text(algorithm)
    small = "seeds=1, sets=['budget.prompts=16', 'evaluation.prompts=4', 'generation.max_new_tokens=8']"
    (tmp_path / "script.py").write_text(script.replace('compare("quickstart"', f'compare("quickstart", {small}'))
    done = subprocess.run([sys.executable, "script.py"], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "mean=" in done.stdout


def test_the_recipe_of_the_readme_compares_two_algorithms_on_a_file_of_ones_own(tmp_path, monkeypatch) -> None:
    from prefzoo import compare

    (recipe,) = [block for block in blocks("yaml") if "pairs.jsonl" in block]
    (tmp_path / "mine.yaml").write_text(recipe)
    rows = [{"prompt": f"Is {i} even?", "chosen": f"{'yn'[i % 2]}, surely", "rejected": f"{i}?"} for i in range(60)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.chdir(tmp_path)
    found = compare(
        "mine.yaml", seeds=1, sets=["model.path=lab", "evaluation.prompts=4", "generation.max_new_tokens=8"]
    )
    assert {label: each.status for label, each in found.algorithms.items()} == dict.fromkeys(
        ["start", "dpo", "sft"], "ok"
    )


def test_recipes_open_with_what_they_are() -> None:
    for path in (ROOT / "recipes").glob("*.yaml"):
        assert path.read_text(encoding="utf-8").startswith("# "), path
