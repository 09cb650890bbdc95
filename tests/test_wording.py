"""The templates that judges are asked by, and what a recipe may say of judges."""

from __future__ import annotations

import hashlib

import pytest

from prefzoo.errors import PrefzooError, RecipeError
from prefzoo.judges.chat import Response
from prefzoo.judges.judge_settings import JudgeSettings
from prefzoo.judges.prompt_templates import judge_templates, load_template, shipped_templates
from prefzoo.judges.text_judge import TextJudge
from prefzoo.lab import tasks
from prefzoo.recipe import check_recipe as recipes
from prefzoo.run.stage_graph import make_plan

PROMPT = [{"role": "user", "content": "Hi {{ 1 }}?"}]


def told(judge: dict, model: str = "owner/name") -> list[str]:
    recipe = {"model": {"path": model}, "algorithms": {"dpo": {}}, "judge": judge}
    try:
        recipes.check(recipe)
    except RecipeError as error:
        return error.problems
    return []


def test_every_shipped_template_shows_what_it_is_given() -> None:
    pairwise = {f"pairwise-{name}" for name in ("1", "lab", "reasoning-2", "chinese-1", "lab-chinese")}
    assert {*pairwise, "grading-1", "grading-reasoning-2"} == set(shipped_templates())
    for name in shipped_templates():
        if name.startswith("grading"):
            assert "THE REPLY" in load_template(name, "grading_prompt").render(prompt=PROMPT, reply="THE REPLY")
            continue
        template, values = load_template(name, "prompt"), {"prompt": PROMPT, "first": "ONE", "second": "TWO"}
        text = template.render(**values, question=None)
        assert 0 <= text.index("Hi {{ 1 }}?") < text.index("ONE") < text.index("TWO"), "text in data is no template"
        asked = template.render(**values, question="WHICH IS KINDER?")
        assert "WHICH IS KINDER?" in asked and asked != text


def test_the_lab_is_asked_in_the_words_that_it_was_taught() -> None:
    words = judge_templates(JudgeSettings(), lab=True)
    said = words.comparing.render(prompt=PROMPT, first="x", second="y", question=None)
    assert said == tasks.judge_prompt("Hi {{ 1 }}?", "x", "y") and words.grading is None


def test_results_say_which_wording_was_used(tmp_path) -> None:
    mine = tmp_path / "mine.jinja"
    mine.write_text("{{ prompt[-1].content }} {{ first }} or {{ second }}? {{ question }}")
    judge = TextJudge(lambda asked, _: [Response("A")] * len(asked), judge_templates(JudgeSettings(prompt=str(mine))))
    digest = hashlib.sha256(mine.read_bytes()).hexdigest()[:12]
    said = judge.report()["wording"]
    assert said["comparing"] == f"mine.jinja@{digest}" and said["grading"].startswith("grading-1.jinja@")
    assert judge_templates(JudgeSettings(prompt="pairwise-lab")).comparing.name == "pairwise-lab.jinja"
    assert judge_templates(JudgeSettings(verdict="generated", reasoning=True)).report().keys() == {
        "comparing",
        "grading",
    }


def test_a_principle_that_a_template_has_no_place_for_is_an_error(tmp_path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ first }} or {{ second }}?")
    words = judge_templates(JudgeSettings(prompt=str(tmp_path / "mine.jinja")))
    judge = TextJudge(lambda asked, _: [Response("A")] * len(asked), words)
    assert judge([[]], ["x"], ["y"]) == [0.5]
    with pytest.raises(PrefzooError, match=r"mine\.jinja.* does not use {{ question }}"):
        judge([[]], ["x"], ["y"], ["Which is kinder?"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{{ first }} {{ second }} {{ questoin }}", "unknown variable 'questoin'. Did you mean 'question'? Allowed: first, prompt, question, second"),  # noqa: E501
        ("{{ first }} {{ reply }} {{ second }}", "unknown variable 'reply'. Allowed: first, prompt, question, second"),
        ("{{ prompt }} {{ first }}", "it does not show {{ second }}"),
        ("{{ first }\n{{ second }}", "is no Jinja template"),
        (None, "there is no such file, and unknown template"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_template_is_told_when_the_recipe_is_checked(tmp_path, text, says) -> None:
    path = tmp_path / "mine.jinja"
    if text is not None:
        path.write_text(text)
    (problem,) = told({"prompt": str(path)})
    assert problem.startswith("judge.prompt: ") and says in problem and "mine.jinja" in problem


def test_a_grading_template_has_variables_of_its_own(tmp_path) -> None:
    (tmp_path / "mine.jinja").write_text("{{ first }} {{ second }}")
    (problem,) = told({"grading_prompt": str(tmp_path / "mine.jinja")})
    assert "unknown variable 'first'" in problem and "Allowed: prompt, reply" in problem and "{{ reply }}" in problem
    (problem,) = told({"prompt": "pairwise-l"})
    assert "Did you mean 'pairwise-1'?" in problem or "Did you mean 'pairwise-lab'?" in problem


@pytest.mark.parametrize(
    ("judge", "says"),
    [
        ({"type": "gold", "path": "x"}, "judge.path: 'x' has no meaning with judge.type 'gold'. Allowed there: local"),
        ({"type": "random", "verdict": "generated"}, "judge.verdict: 'generated' has no meaning with judge.type"),
        ({"type": "gold", "prompt": "pairwise-1"}, "judge.prompt: 'pairwise-1' has no meaning with judge.type 'gold'"),
        ({"reasoning": True}, "judge.reasoning: True has no meaning with verdict 'probabilities'; it must be "),
        ({"max_new_tokens": 9}, "judge.max_new_tokens: 9 has no meaning with verdict 'probabilities'"),
        ({"verdict": "generated", "max_new_tokens": 0}, "judge.max_new_tokens: must be at least 1 (got 0)"),
        ({"verdict": "generatd"}, "judge.verdict: unknown value 'generatd'. Did you mean 'generated'?"),
    ],
)  # fmt: skip
def test_settings_that_mean_nothing_together_are_refused(judge, says) -> None:
    (problem,) = told(judge)
    assert problem.startswith(says)


def test_the_lab_model_is_not_asked_for_what_it_was_never_taught() -> None:
    (problem,) = told({"grading_prompt": "grading-1"}, "lab")
    assert problem.startswith("judge.grading_prompt: the lab's model was never taught to grade; it compares only")
    (problem,) = told({"verdict": "generated", "reasoning": True, "path": "lab"})
    assert problem.startswith("judge.reasoning: the lab's model does not reason") and "judge.path" in problem
    assert not told({"grading_prompt": "grading-1", "path": "owner/other"}, "lab")
    assert not told({"verdict": "generated"}, "lab")


def test_labels_are_made_again_when_a_template_is_edited(tmp_path) -> None:
    mine = tmp_path / "mine.jinja"
    (tmp_path / "prompts.txt").write_text("a\nb\n")

    def folder(text: str) -> str:
        mine.write_text(text)
        recipe = recipes.check(
            {
                "data": {"prompts": str(tmp_path / "prompts.txt"), "label_with": "judge"},
                "judge": {"prompt": str(mine)},
                "reward": {"type": "random"},
                "algorithms": {"dpo": {}},
            }
        )
        return make_plan(recipe, tmp_path).stages["label"].folder.name

    assert folder("{{ first }} {{ second }}") == folder("{{ first }} {{ second }}")
    assert folder("{{ first }} {{ second }}") != folder("{{ first }} {{ second }}?")
