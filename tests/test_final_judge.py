"""The judge that decides, where it does not always give an answer that can be read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import SimpleNamespace

from chat_server import ChatServer, Reply, said
from prefzoo import compare
from prefzoo.judges.judge import Judge
from prefzoo.results.caveats import ungraded
from prefzoo.run.evaluation_records import JUDGING
from prefzoo.run.stages.gold_metric import AgainstTheStart
from prefzoo.types import Prompt


def user(text: str) -> Prompt:
    return [{"role": "user", "content": text}]


def test_what_the_final_judge_could_not_read_is_counted_for_each_evaluation() -> None:
    def answers(
        prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str], _: Sequence[str | None]
    ) -> list[float | None]:
        return [
            None if prompt == user("never") or (prompt == user("once") and a == "start") else 1.0
            for prompt, a in zip(prompts, first, strict=True)
        ]

    prompts = [user("never"), user("once"), user("always")]
    measure = AgainstTheStart(Judge(answers), [{"prompt": each, "reply": "start"} for each in prompts])
    for _ in range(2):  # an evaluation counts its own questions alone
        assert measure(prompts, ["x"] * 3) == [{"gold": 0.5}, {"gold": 0.75}, {"gold": 0.5}]
        report = measure.report()
        assert (report["pairs"], report["questions"], report["failures"], report["undecided"]) == (3, 6, 3, 1)


def test_the_note_names_who_and_is_not_there_where_all_was_read() -> None:
    def trials(*failures: int) -> SimpleNamespace:
        each = [{"failures": n, "questions": 32, "undecided": n // 2, "pairs": 16} for n in failures]
        return SimpleNamespace(seeds={str(i): SimpleNamespace(judging=one) for i, one in enumerate(each)})

    (note,) = ungraded({"dpo": trials(3, 2), "sft": trials(0, 0)})
    assert "dpo 5 of 64 (2 of 32 replies in neither order)" in note and "sft" not in note
    assert ungraded({"sft": trials(0), "start": SimpleNamespace(seeds={"0": SimpleNamespace(judging={})})}) == []


def test_a_comparison_says_what_its_final_judge_could_not_grade(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    with ChatServer(lambda seen, nth: Reply(said("A" if len(seen.question) % 2 else "I cannot say."))) as server:
        recipe = {
            "extends": "base",
            "start": "none",
            "tracking": {"wandb": {"mode": "disabled"}},
            "budget": {"prompts": 8},
            "generation": {"max_new_tokens": 16},
            "reward": {"type": "random"},
            "gold": "judge",
            "evaluation": {
                "prompts": 12,
                "judge": {
                    "type": "openai",
                    "endpoint": {"base_url": server.url, "model": "m"},
                    "audit_pairs": 0,
                },
            },
            "algorithms": {"sft": {}},
        }
        results = compare(recipe, seeds=1, out=tmp_path)
    judging = results.algorithms["sft"].seeds["0"].judging
    assert judging["pairs"] == 12 and judging["questions"] == 24
    assert judging["failures"] > 0 and judging["unanswered"] == 0
    assert judging["failure_examples"][0]["answer"] == "I cannot say."
    assert results.algorithms["start"].seeds["0"].judging == {}
    (sign,) = [sign for sign in results.warnings if "final judge" in sign.text]
    assert sign.policy == "sft" and sign.value == judging["failures"] / 24
    page = (tmp_path / "report.html").read_text()
    assert f"sft {judging['failures']} of 24 ({judging['undecided']} of 12 replies in neither order)" in page
    (kept,) = tmp_path.rglob(JUDGING)
    assert json.loads(kept.read_text()) == judging
