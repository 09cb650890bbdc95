"""Recipes, constitutions and templates that are damaged or hostile: each gets an error in words, soon."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.judges import constitution
from prefzoo.recipe import check_recipe as recipes

pytestmark = pytest.mark.faults

SOUND = "extends: base\nalgorithms: {dpo: {}}\n"
BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a0: &a0 {x: 1, y: 2}\n" + "".join(
    f"a{i}: &a{i} {{<<: [{', '.join([f'*a{i - 1}'] * 9)}]}}\n" for i in range(1, 12)
)
YAML = {
    "tag of a number": ("budget: {prompts: !!int x}", "'x' is no int"),
    "tag of a number with decimals": ("budget: {epochs: !!float y}", "'y' is no float"),
    "tag of a truth value": ("data: {shuffle_labels: !!bool maybe}", "'maybe' is no bool"),
    "tag of a block": ("budget: !!map [1]", "expected a mapping node"),
    "Python object": ("budget: !!python/object/apply:os.system [echo]", "'!!python/object/apply:os.system' has no"),
    "tag of one's own": ("budget: !mine 5", "'!mine' has no meaning"),
    "bytes": ("model: {path: !!binary aGVsbG8=}", "'!!binary' has no meaning"),
    "set": ("seeds: !!set {1, 2}", "'!!set' has no meaning"),
    "no date": ("model: {revision: !!timestamp 2026-99-99}", "'!!timestamp' has no meaning"),
    "5,000 digits": (f"seeds: [{'7' * 5000}]", "is no int"),
    "50 digits": (f"seeds: [{'7' * 50}]", "a whole number beyond"),
    "base 60": (f"seeds: [1{':59' * 100}]", "a whole number beyond"),
    "alias that contains itself": ("data: &a {columns: *a}", "a block that contains itself"),
    "list that contains itself": ("seeds: &a [1, *a]", "a block that contains itself"),
    "10,000 brackets": (f"seeds: {'[' * 10_000}", "more than 40 blocks in one another"),
    "10,000 braces": (f"seeds: {'{a: ' * 10_000}", "more than 40 blocks in one another"),
    "10,000 dashes": (f"seeds:\n {'- ' * 10_000}1", "more than 40 blocks in one another"),
    "indentation": ("".join(f"{' ' * i}a:\n" for i in range(500)), "more than 40 blocks in one another"),
    "alias bomb": (BOMB, "aliases repeat counted again"),
    "merge bomb": (MERGES, "aliases repeat counted again"),
    "10,000 unknown keys": ("".join(f"key{i}: {i}\n" for i in range(10_000)), "more than 6000 keys and values"),
    "2,900 unknown keys": ("".join(f"key{i}: {i}\n" for i in range(2900)), "and 2800 more"),
    "2,900 unknown keys of an algorithm": (
        "algorithms:\n  dpo:\n" + "".join(f"    key{i}: {i}\n" for i in range(2900)),
        "and 2800 more",
    ),
    "1,900 unknown fields of a trainer": (
        "algorithms:\n  dpo:\n    trainer:\n" + "".join(f"      key{i}: {i}\n" for i in range(1900)),
        "and 1800 more",
    ),
    "NUL": ("model: {path: 'a\0b'}", r"the character '\x00' is in it"),
    "NUL by its escape": (r'model: {path: "a\0b"}', r"the character '\x00' in it"),
    "half a surrogate pair": (r'model: {path: "a\ud800b"}', r"the character '\ud800' in it"),
    "terminal's control": ("model: {path: 'a\x1b[2Jb'}", r"the character '\x1b' is in it"),
    "tab": ("budget:\n\tprompts: 5", "not tabs"),
    "key that is a list": ("? [1, 2]\n: 5", "unhashable key"),
    "key given twice": ("seeds: 1\nseeds: 2", "seeds: is given twice, first in line 3"),
    "key given twice in a list": (
        "reward: {type: sum, of: [{type: random, weight: 1, weight: 2}]}",
        "reward.of.0.weight: is given twice",
    ),
    "two documents": ("---\nseeds: 1", "not readable as YAML"),
    "long path": (f"model: {{path: /{'x' * 300}}}", "model.path: cannot be looked up: File name too long"),
    "long name of data": (f"data: {{prompts: {'x' * 300}.jsonl}}", "data.prompts: cannot be looked up"),
    "long name of a judge": (f"judge: {{path: {'x/' * 3000}}}", "judge.path: cannot be looked up"),
    "long name of a reward": (f"reward: {{type: path, path: {'x' * 300}}}", "reward.path: cannot be looked up"),
    "long name of a plug-in": (f"plugins: [{'x' * 300}.py]", "File name too long"),
    "long name of a constitution": (f"constitution: {'x' * 300}", "constitution: cannot be looked up"),
    "nobody's home": ("model: {path: ~nosuchuser/model}", "model.path: begins with ~ and the name of no user"),
    "nobody's data": ("data: {preferences: ~nosuchuser/x.jsonl}", "data.preferences: begins with ~"),
    "nobody's template": ("judge: {prompt: ~nosuchuser/x}", "judge.prompt: begins with ~"),
    "nobody's function": ("gold: {path: '~nosuchuser/x.py:f'}", "gold.path: begins with ~"),
    "nobody's recipe": ("extends: ~nosuchuser/x.yaml", "begins with ~ and the name of no user"),
    "long recipe": (f"extends: {'x' * 300}", "cannot be looked up: File name too long"),
}
WHOLE = {
    "empty": ("", "algorithms: is missing"),
    "a number": ("5", "a recipe is a block of keys"),
    "a list": ("[1, 2]", "a recipe is a block of keys"),
    "Latin-1": (SOUND.encode() + b"# caf\xe9", "no text in UTF-8: "),
    "UTF-16": (SOUND.encode("utf-16"), "no text in UTF-8"),
    "2 MB": (SOUND + "# much\n" * 300_000, "is too large: "),
    "990 kB of values": (SOUND + "seeds: [" + "7, " * 300_000 + "7]", "more than 6000 keys and values"),
    "990 kB of one text": (SOUND + f"judge: {{type: {'x' * 900_000}}}", "judge.type: unknown value"),
    "990 kB of a key": (SOUND + f"{'x' * 900_000}: 1", "not readable as YAML"),
}


def said(recipe, *sets: str) -> str:
    """What is wrong with a recipe, told within two seconds."""
    began = time.process_time()
    with pytest.raises(PrefzooError) as told:
        recipes.load(str(recipe) if isinstance(recipe, Path) else recipe, sets)
    assert time.process_time() - began < 2
    assert len(str(told.value)) < 30_000
    return str(told.value)


@pytest.mark.parametrize("name", YAML)
def test_hostile_yaml(name: str, tmp_path) -> None:
    text, words = YAML[name]
    file = tmp_path / "mine.yaml"
    file.write_text(f"{'' if 'algorithms' in text else SOUND}{text}\n", encoding="utf-8")
    assert words in said(file)


@pytest.mark.parametrize("name", WHOLE)
def test_hostile_files(name: str, tmp_path) -> None:
    content, words = WHOLE[name]
    (tmp_path / "mine.yaml").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in said(tmp_path / "mine.yaml")
    (tmp_path / "other.yaml").write_text("extends: mine\nalgorithms: {dpo: {}}\n")
    if name != "empty":
        assert words in said(tmp_path / "other.yaml")


def test_a_byte_order_mark_and_windows_lines_and_dates_are_read(tmp_path) -> None:
    text = "\ufeffextends: base\nmodel: {revision: 2026-99-99}\nalgorithms: {dpo: {}}\n".replace("\n", "\r\n")
    (tmp_path / "mine.yaml").write_bytes(text.encode())
    assert recipes.load(str(tmp_path / "mine.yaml")).model.revision == "2026-99-99"


def test_what_is_no_file(tmp_path) -> None:
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "zero.yaml").symlink_to("/dev/zero")
    (tmp_path / "loop.yaml").symlink_to("loop.yaml")
    for name, words in (("folder", "is a folder"), ("pipe", "no regular file"), ("zero", "no regular file")):
        assert words in said(tmp_path / f"{name}.yaml")
        (tmp_path / "mine.yaml").write_text(f"extends: {name}.yaml\nalgorithms: {{dpo: {{}}}}\n")
        assert words in said(tmp_path / "mine.yaml")
        for key in ("judge.prompt", "constitution"):
            assert words in said("quickstart", f"{key}={tmp_path / name}.yaml")
        assert words in said("quickstart", f"plugins=[{tmp_path / name}.yaml]")
        assert "data.prompts" in said("quickstart", f"data.prompts={tmp_path / name}.yaml")
    assert "Too many levels of symbolic links" in said(tmp_path / "loop.yaml")
    for recipe in ("", "x" * 5000, "~nosuchuser/x", "a\0b", "/", "."):
        assert said(recipe)


def test_chains_of_recipes_end(tmp_path) -> None:
    for i in range(200):
        (tmp_path / f"r{i}.yaml").write_text(f"extends: r{i + 1}\nalgorithms: {{dpo: {{}}}}\n")
    assert "a chain of more than 20 recipes" in said(tmp_path / "r0.yaml")
    (tmp_path / "r5.yaml").write_text("extends: r0\n")
    assert "goes in a circle" in said(tmp_path / "r0.yaml")
    (tmp_path / "r5.yaml").write_text("extends: r5\n")
    assert "goes in a circle" in said(tmp_path / "r0.yaml")


@pytest.mark.parametrize("name", [name for name, (text, _) in YAML.items() if "\n" not in text and "\0" not in text])
def test_hostile_assignments(name: str) -> None:
    key, _, value = YAML[name][0].partition(": ")
    if key != "extends" and not key.startswith("?"):
        assert said("quickstart", f"{key}={value}")


@pytest.mark.parametrize("assignment", [".".join(["a"] * 5000) + "=1", "=", "a..b=1", "seeds=[", "\ud800=1", "a=*b"])
def test_hostile_keys_of_assignments(assignment: str) -> None:
    assert said("quickstart", assignment)


def test_hostile_recipes_from_python() -> None:
    looped: dict = {"algorithms": {"dpo": {}}}
    looped["data"] = looped
    deep: dict = {}
    for _ in range(5000):
        deep = {"a": deep}
    for content, words in (
        (looped, "more than 40 blocks"),
        ({"data": deep}, "more than 40 blocks"),
        ({"seeds": list(range(10_000))}, "more than 6000 values"),
        ({"seeds": [10**5000]}, "seeds.0': a whole number beyond"),
        ({"model": {"path": "a\0b"}}, r"model.path': a text with the character '\x00'"),
        ({"mod\0el": 1}, "a text with the character"),
        ({"algorithms": {"dpo": {"beta": float("inf")}}}, "algorithms.dpo.beta"),
        ({"algorithms": {"dpo": {"beta": float("nan")}}}, "algorithms.dpo.beta"),
    ):
        for ask in (recipes.check, said):
            if ask is said:
                assert words in said(content)
            else:
                with pytest.raises(RecipeError, match=r"recipe: \d+ mistake"):
                    ask(content)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.sampled_from([0, 1, -1, 2**31, 2**63 - 1, 0.5, 1e-30, 1e308, -0.0]),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["lab", "none", "~", "/", ".", "..", "a\0b", "\ud800", "é" * 300, "x.py:f", "{{", "1e5", "dpo"]),
    st.lists(st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=3)), max_size=3),
    st.dictionaries(st.text(max_size=5), st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=3)), max_size=3),
    st.just({"type": "trained"}),
    st.just({"algorithm": "dpo"}),
    st.just({"a": [{"b": [{"c": 1}]}]}),
)
RECIPE = recipes.load("quickstart", ["seeds=1"]).model_dump(mode="json", exclude={"plugins"})


def paths_in(content, path: tuple = ()) -> list[tuple]:
    """Every place in a recipe."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    return [path] * bool(path) + [below for key, value in items for below in paths_in(value, (*path, key))]


PATHS = paths_in(RECIPE)


@st.composite
def damaged_recipes(draw):
    content = json.loads(json.dumps(RECIPE))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(PATHS))
        block = content
        for key in path[:-1]:
            block = block[key] if isinstance(block, dict) and key in block else {}
        if not isinstance(block, dict) or path[-1] not in block:
            continue
        what = draw(st.sampled_from(["value", "value", "value", "delete", "rename", "add", "copy"]))
        if what == "delete":
            del block[path[-1]]
        elif what == "rename":
            block[str(path[-1]) + draw(st.sampled_from(["s", "_", " ", "\0", "é"]))] = block.pop(path[-1])
        elif what == "copy":
            block[draw(st.sampled_from([*RECIPE, "path", "type", "trainer"]))] = block[path[-1]]
        else:
            key = path[-1] if what == "value" else draw(st.text(max_size=8))
            block[key] = draw(VALUES)
    return content


def told_or_sound(recipe, sets: tuple[str, ...] = ()) -> None:
    """A recipe is sound, or its mistakes are told, each beginning with a key or a place."""
    began = time.process_time()
    try:
        recipes.load(recipe, sets)
    except RecipeError as error:
        assert error.problems
        for problem in error.problems:
            assert ": " in problem and problem.partition(": ")[0].strip(), problem
            assert not any(noise in problem for noise in ("Traceback", "NoneType", "pydantic", "object at 0x")), problem
    assert time.process_time() - began < 2


def test_a_million_seeds_of_many_labels_are_checked_in_time() -> None:
    told_or_sound({"extends": "quickstart", "seeds": 1_000_000})


EXAMPLES = settings(
    max_examples=int(os.environ.get("PREFZOO_DAMAGED", "250")),
    deadline=None,
    database=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)


@EXAMPLES
@given(damaged_recipes())
def test_damaged_recipes_are_told(content) -> None:
    told_or_sound(content)


TEXT = yaml.safe_dump(RECIPE, sort_keys=False)
PIECES = st.sampled_from(
    [
        *"[]{}'\"#|>%@,\t\n\0\x1b\ufeff\u2028é",
        *(": ", "- ", "? ", "&a ", "*a ", "!!int ", "!x ", "<<: ", "---\n", "...\n"),
        *(".inf", ".nan", "0x", "2026-99-99", "9" * 30),
    ]
)


@EXAMPLES
@given(st.data())
def test_damaged_files_are_told(tmp_path_factory, data) -> None:
    text = TEXT
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(text)))
        end = at + data.draw(st.sampled_from([0, 0, 1, 5, 40]))
        text = text[:at] + data.draw(PIECES) + text[end:]
    file = tmp_path_factory.getbasetemp() / "damaged.yaml"
    file.write_bytes(text.encode("utf-8"))
    told_or_sound(str(file))


CONSTITUTION = """
critique_prompt: '{{ principle.critique }}'
revision_prompt: '{{ principle.revision }}'
principles: [{id: a, critique: x, revision: y, preference: z}]
"""


@pytest.mark.parametrize("name", YAML)
def test_hostile_constitutions(name: str, tmp_path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(f"{CONSTITUTION}{YAML[name][0]}\n", encoding="utf-8")
    began = time.process_time()
    with pytest.raises(RecipeError) as told:
        constitution.load(str(file))
    assert (
        time.process_time() - began < 2 and "constitution: " in str(told.value) and "Traceback" not in str(told.value)
    )


ENDLESS = {
    "one long loop": ("{% for i in range(10**9) %}{% endfor %}", "cannot be filled in: OverflowError"),
    "loops in loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "takes more"),
    "large number": ("{{ 10 ** (10 ** 9) }}", "takes more than"),
    "large text": ("{{ 'x' * 10 ** 11 }}", "takes more than"),
    "wide text": ("{{ 'x' | center(10 ** 11) }}", "takes more than"),
    "doubled text": (
        "{% set n = namespace(a='x') %}{% for i in range(99) %}{% set n.a = n.a ~ n.a %}{% endfor %}",
        "takes more than",
    ),
    "macro that calls itself": ("{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}", "RecursionError"),
    "10,000 brackets": ("{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}", "RecursionError"),
    "blocks in blocks": ("{% for i in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested"),
    "a megabyte": ("x" * 300_000, "is too long"),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_templates_that_do_not_end(name: str, tmp_path) -> None:
    text, words = ENDLESS[name]
    (tmp_path / "mine.jinja").write_text("{{ first }}{{ second }}" + text)
    assert words in said("quickstart", f"judge.prompt={tmp_path / 'mine.jinja'}", "judge.path=none/such")
    file = tmp_path / "mine.yaml"
    file.write_text(CONSTITUTION.replace("{{ principle.critique }}", text.replace("'", "''")))
    assert words in "".join(constitution.problems(str(file)))


def test_chat_templates_that_do_not_end(tmp_path) -> None:
    loops = ENDLESS["loops in loops"][0]
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"chat_template": loops}))
    assert "model.path: " in (words := said("quickstart", f"model.path={tmp_path}"))
    assert "its chat template takes more than 1 s" in words
    (tmp_path / "tokenizer_config.json").write_text("[" * 10_000)
    (tmp_path / "chat_template.jinja").write_text("{% generation %}" + loops + "{% endgeneration %}")
    assert "its chat template takes more than" in said("quickstart", f"judge.path={tmp_path}")


def test_templates_see_no_python(tmp_path) -> None:
    text = "{{ prompt.__class__.__mro__ }}"
    (tmp_path / "mine.yaml").write_text(CONSTITUTION.replace("{{ principle.critique }}", text))
    assert "access to attribute '__class__'" in "".join(constitution.problems(str(tmp_path / "mine.yaml")))


def test_loops_over_long_prompts_end() -> None:
    from jinja2 import TemplateError

    from prefzoo.bounded_template import fill_in

    text = "{% for a in x %}{% for b in x %}{% if loop.last %}{{ loop.length }}{% endif %}{% endfor %}{% endfor %}"
    assert fill_in(text, x="ab") == "22"
    with pytest.raises(TemplateError, match="its loops go round more than 100000 times"):
        fill_in(text, x="a" * 10_000)
