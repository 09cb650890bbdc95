"""Facts out of documents: retrieval, verdicts, the reward, the metric, and passages before prompts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prefzoo import lab
from prefzoo.data.documents import Documents, Passage, load_documents, sentences, terms
from prefzoo.data.formats import Row
from prefzoo.data.prompt_context import Context, PromptContext
from prefzoo.errors import DataError, PrefzooError, RecipeError
from prefzoo.judges.build_checker import judge_checker
from prefzoo.judges.build_judge import load_truth
from prefzoo.judges.chat import Response
from prefzoo.judges.fact_checking import (
    Claim,
    FactChecker,
    Finding,
    JudgeChecker,
    RandomChecker,
    TruthChecker,
    knowledge_template,
)
from prefzoo.judges.verdict_parsing import FactAnswer, read_fact
from prefzoo.recipe import check_recipe as recipes
from prefzoo.report.data_summary import data_facts
from prefzoo.report.knowledge_section import knowledge_cells, knowledge_section
from prefzoo.results.analysis import verdicts
from prefzoo.results.results_schema import Summary
from prefzoo.rewards.entailment import _finding
from prefzoo.rewards.entailment_labels import verdict_labels
from prefzoo.rewards.knowledge_reward import KnowledgeReward, reports_of_facts
from prefzoo.rewards.load_reward import RandomReward, WeightedSum, load_reward
from prefzoo.run.stage_graph import make_plan
from prefzoo.run.stages import data_stage
from prefzoo.run.trial_identity import differences
from reported import made

SHOP = """# Prices
The lamp costs 23 euros.
It is made of brass.

The vase costs 40 euros.

# Hours
We are open
from 9 to 18.

- The sale ends on Sunday.
- Members get 5 percent off.
"""
SCORES = {"supported": 1.0, "contradicted": -1.0, "not_found": 0.0}


def shop(folder: Path, text: str = SHOP, name: str = "shop.md") -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


def asked(*texts: str) -> list[list[dict[str, str]]]:
    return [[{"role": "user", "content": text}] for text in texts]


def oracle(claims: list[Claim]) -> list[Finding]:
    """Supported where the best sentence has all numbers of the claim, contradicted where it has others."""
    found = []
    for claim in claims:
        said, known = ([w for w in terms(t) if w.isdigit()] for t in (claim.text, claim.found[0].text))
        verdict = "not_found" if not (said and known) else "supported" if said == known else "contradicted"
        found.append(Finding(verdict, 0))
    return found


def test_passages_and_sentences_of_a_text_file(tmp_path) -> None:
    found = load_documents(shop(tmp_path, SHOP + "\nThe vase costs 40 euros.\n"))
    assert [(each.document, each.title) for each in found.passages] == [
        ("line 2", "Prices"), ("line 5", "Prices"), ("line 8", "Hours"), ("line 11", "Hours"), ("line 14", "Hours"),
    ]  # fmt: skip
    assert found.passages[0].text == "The lamp costs 23 euros. It is made of brass."
    assert found.passages[2].text == "We are open from 9 to 18.", "a line that is full is no end of a sentence"
    assert [s.text for s in found.find_sentences("sale members", 9)] == [
        "- The sale ends on Sunday.", "- Members get 5 percent off.",
    ]  # fmt: skip
    assert found.duplicates == 0, "under another title a sentence may say something else"
    assert load_documents(shop(tmp_path, "a b.\n\na b.\n\nc.")).duplicates == 1


def test_the_right_passage_is_found_in_scripts_without_spaces_too(tmp_path) -> None:
    found = load_documents(shop(tmp_path))
    assert found.find("what does the vase cost, in euros?", 1)[0].text == "The vase costs 40 euros."
    assert found.find("zebra", 3) == [] and found.find("", 3) == []
    lines = [{"text": "灯的价格是二十三元。花瓶的价格是四十元。", "id": "价格"}, {"text": "商店九点开门。", "id": 7}]
    chinese = load_documents(shop(tmp_path, "\n".join(json.dumps(line) for line in lines), "zh.jsonl"))
    assert sentences(lines[0]["text"]) == ["灯的价格是二十三元。", "花瓶的价格是四十元。"]
    assert terms("灯的价 23元 OK") == ["灯的", "的价", "23", "元", "ok"]
    assert chinese.find_sentences("花瓶多少元", 1) == [Passage("价格", "花瓶的价格是四十元。")]
    assert chinese.find("你们几点开门", 2) == [Passage("7", "商店九点开门。")]


@pytest.mark.parametrize(
    "name, content, told",
    [
        ("a.jsonl", b"", "holds no passage"),
        ("a.md", b"# only a title\n", "holds no passage"),
        ("a.pdf", b"x", "does not end in one of .jsonl"),
        ("a.txt", "caf\u00e9".encode("latin-1"), "byte 0xe9 in line 1 is not UTF-8. Save the file as UTF-8"),
        ("a.txt", "caf\u00e9".encode("utf-16"), "is not UTF-8"),
        ("a.txt", "cafe".encode("utf-16-le"), "zero bytes, as UTF-16 has them"),
        ("a.jsonl", b'{"text": "a"}\n{"text": \n[1]\n{"txt": 1}\n{"text": " "}\n{"text": "b", "id": []}\n',
         "line 2 is not JSON; line 3 is a list, not an object; line 4 has no key 'text', but 'txt'; "
         "line 5: text is empty; line 6: id is a list"),
    ],
)  # fmt: skip
def test_bad_documents_are_told_when_a_recipe_is_validated(tmp_path, name, content, told) -> None:
    (tmp_path / name).write_bytes(content)
    recipe = {
        "algorithms": {"dpo": {}},
        "reward": {"type": "knowledge", "documents": str(tmp_path / name)},
        "evaluation": {"knowledge": {"documents": str(tmp_path / "b.md")}},
        "context": {"documents": str(tmp_path)},
        "gold": "none",
    }
    with pytest.raises(RecipeError) as caught:
        recipes.check(recipe)
    problems = "\n".join(caught.value.problems)
    assert f"reward.documents: {str(tmp_path / name)!r}" in problems and told in problems
    assert "evaluation.knowledge.documents: there is no file" in problems
    assert f"context.documents: {str(tmp_path)!r} is a folder" in problems


def test_a_huge_file_is_refused_and_a_name_nearby_is_proposed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("prefzoo.data.documents.MOST_LETTERS", 40)
    with pytest.raises(DataError, match="million letters"):
        load_documents(shop(tmp_path))
    with pytest.raises(DataError, match=r"no file .*Did you mean 'shop.md'"):
        load_documents(str(tmp_path / "shpo.md"))


def test_verdicts_by_an_oracle_and_by_one_that_always_agrees(tmp_path) -> None:
    documents = load_documents(shop(tmp_path))
    prompts = asked("How much?\nWhat is the lamp?", "When are you open?", "Hi!", "Is there a sale?")
    replies = [
        "Good question. It costs 24 euros.",
        "Is it late? We are open from 9 to 18. The vase costs 41 euros.",
        "Zzz. Xyz!",
        "Members get 5 percent off.",
    ]
    facts = FactChecker(documents, oracle, 2)
    one, two, three, four = facts(prompts, replies)
    assert (one.verdict, one.claim, one.sentence) == (
        "contradicted",
        "It costs 24 euros.",
        "The lamp costs 23 euros.",
    ), "the item is named in the question alone"
    assert (two.verdict, two.sentence, two.document) == ("contradicted", "The vase costs 40 euros.", "line 5")
    assert (three.verdict, three.sentence) == ("not_found", "") and four.verdict == "supported"
    assert (facts.counts.supported, facts.counts.contradicted, facts.counts.not_found) == (1, 2, 1)
    assert facts.claims(prompts[1], replies[1])[0].text == "We are open from 9 to 18.", "a question states nothing"
    agrees = FactChecker(documents, lambda claims: [Finding("supported", 0) for _ in claims], 2)
    assert [each.verdict for each in agrees(prompts, replies)] == ["supported", "supported", "not_found", "supported"]
    silent = FactChecker(documents, lambda claims: [Finding("not_found", failed=True) for _ in claims], 2)
    assert {each.verdict for each in silent(prompts, replies)} == {"not_found"} and silent.counts.failures >= 4


def test_the_first_of_two_sentences_that_contradict_each_other_decides_and_it_is_counted() -> None:
    assert _finding(["not_found", "supported", "contradicted"]) == Finding("supported", 1, conflict=True)
    assert _finding(["contradicted", "not_found"]) == Finding("contradicted", 0)
    assert _finding(["not_found"]) == Finding("not_found")
    documents = Documents((Passage("old", "The lamp costs 23 euros."), Passage("new", "The lamp costs 29 euros.")))
    facts = FactChecker(documents, lambda claims: [_finding(["contradicted", "supported"]) for _ in claims], 2)
    (reply,) = facts(asked("lamp?"), ["The lamp costs 29 euros."])
    assert reply.verdict == "contradicted" and reply.conflict and facts.counts.conflicts == 1


def test_what_a_judge_answers_is_read_and_what_it_does_not_is_counted(tmp_path) -> None:
    answers = ["A 2", "b", "[[B 1 CONFLICT]]", "C", "A 9", "maybe", ""]
    requests: list[str] = []

    def client(conversations, max_new_tokens):
        requests.extend(turns[0]["content"] for turns in conversations)
        return [Response(text) if text else Response(failure="timeout") for text in answers]

    checker = JudgeChecker(client, knowledge_template(False, False), False, 16)
    facts = FactChecker(load_documents(shop(tmp_path)), checker, 2)
    replies = [f"The lamp costs {price} euros." for price in range(len(answers))]
    found = facts(asked(*["How much is the lamp?"] * len(answers)), replies)
    assert [each.verdict for each in found] == [
        "supported", "contradicted", "contradicted", *["not_found"] * 4,
    ]  # fmt: skip
    assert found[0].sentence != found[1].sentence == "The lamp costs 23 euros.", "a number names the sentence"
    assert (facts.counts.failures, facts.counts.conflicts, checker.questions) == (3, 1, 7)
    assert [each["failure"] for each in facts.report()["failure_examples"]] == ["unreadable", "unreadable", "timeout"]
    assert "1. Prices: The lamp costs 23 euros." in requests[0] and "How much is the lamp?" in requests[0]
    assert read_fact("I think.\n[[A 1]]", reasoning=True) == FactAnswer("A", 1, False)
    assert read_fact("A 1\nor [[B 2]] [[C]]") is None


def test_the_labs_truth_is_an_exact_checker(tmp_path) -> None:
    rows = lab.preferences("test", 48, 3)
    said = {fact for row in rows for fact in row["prompt"].partition("\n")[0].removeprefix("Facts: ").split("; ")}
    documents = load_documents(shop(tmp_path, "\n\n".join(sorted(said))))
    facts = FactChecker(documents, TruthChecker(load_truth("lab")), 4)
    checked = facts(asked(*[row["prompt"] for row in rows]), [row["chosen"] for row in rows])
    for row, each in zip(rows, checked, strict=True):
        value = lab.breakdown(row["prompt"], row["chosen"])["correctness"]
        assert each.verdict == ("supported" if value > 0 else "contradicted" if value < 0 else "not_found")
    with pytest.raises(PrefzooError, match="gold/correctness"):
        TruthChecker(lambda prompts, texts: [{"gold": 1.0} for _ in texts])(facts.claims(asked("lamp?")[0], "9 lamps."))


def test_the_lab_model_answers_and_a_die_does(tmp_path) -> None:
    description = {"settings": {"type": "local"}, "model": "lab", "loading": {}, "gold": None, "seed": 0, "cache": ""}
    facts = FactChecker(Documents((Passage("prices", "lamp 23 euros"),)), judge_checker(description), 4)
    right, wrong = facts(
        asked(*["Question: how much is the lamp?"] * 2), ["The lamp costs 23 euros.", "The lamp costs 81 euros."]
    )
    assert (right.verdict, wrong.verdict) == ("supported", "contradicted") and facts.counts.failures == 0
    dice = [RandomChecker(3)([None] * 300) for _ in range(2)]
    assert dice[0] == dice[1] and min(Counter(each.verdict for each in dice[0]).values()) > 60


@pytest.fixture(scope="module")
def entailment(tmp_path_factory) -> str:
    """A model with random weights and three labels."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("entailment")
    torch.manual_seed(0)
    names = {0: "ENTAILMENT", 1: "neutral", 2: "Contradiction"}
    model = AutoModelForSequenceClassification.from_pretrained(lab.MODEL_DIR, num_labels=3, id2label=names)
    model.score.weight.data.mul_(20)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(lab.MODEL_DIR).save_pretrained(folder)
    return str(folder)


def test_labels_of_an_entailment_model_are_known_by_their_names(tmp_path, entailment) -> None:
    assert verdict_labels({"id2label": {"1": "NEUTRAL", "0": "entailment"}}) == ["supported", "not_found"]
    assert verdict_labels({"id2label": {"0": "not-entailment", "1": "entailment"}}) == ["not_found", "supported"]
    for names in ({}, {"0": "LABEL_0", "1": "entailment"}, {"0": "neutral", "1": "contradiction"}):
        with pytest.raises(ValueError, match="id2label of its config"):
            verdict_labels({"id2label": names})
    shop_file = shop(tmp_path)
    for path, told in ((str(lab.MODEL_DIR), "labels without names"), ("nowhere", "neither a folder nor a hub id")):
        with pytest.raises(RecipeError, match=f"reward.path: .*{told}"):
            recipes.check(
                {"algorithms": {"ppo": {}}, "reward": {"type": "knowledge", "documents": shop_file, "path": path}}
            )


def test_the_reward_is_saved_whole_and_summed_by_its_weight(tmp_path, entailment) -> None:
    from prefzoo.rewards.knowledge_reward import build_fact_checker

    checked_by = {"path": entailment}
    facts = build_fact_checker(shop(tmp_path), 3, checked_by)
    reward = KnowledgeReward(facts, {"supported": 2.0, "contradicted": -3.0, "not_found": 0.5}, checked_by)
    prompts = asked(*["How much is the lamp?"] * 6)
    replies = [f"The lamp costs {price} euros. Bye." for price in (3, 23, 40, 5, 9, 18)]
    scores = reward(prompts, replies)
    assert set(scores) <= {2.0, -3.0, 0.5} and reward.flops > 0 and reward.questions == 0
    assert [reward(prompts[:1], [reply])[0] for reply in replies] == scores, "no verdict depends on the batch"
    spec = json.loads(json.dumps(reward.spec(tmp_path / "stage")))
    (tmp_path / "shop.md").unlink()
    again = load_reward(spec, tmp_path / "stage")
    assert isinstance(again, KnowledgeReward) and again(prompts, replies) == scores
    noise = RandomReward(1)
    both = WeightedSum([reward, noise], [0.5, 2.0], ["knowledge", "random"])
    expected = [0.5 * s + 2.0 * n for s, n in zip(scores, noise(prompts, replies), strict=True)]
    assert both(prompts, replies) == expected
    assert both.by_part(prompts, replies)[1][0]["knowledge"] == 0.5 * scores[0]
    asking = WeightedSum([KnowledgeReward(FactChecker(facts.documents, _counting(), 3), SCORES, {}), noise], [1, 1])
    asking(prompts, replies)
    assert asking.questions == 6 and both.questions == 0, "questions of a part are the sum's"
    assert reports_of_facts(both)["knowledge"]["claims"] == reward.report()["claims"] > 0


def _counting() -> JudgeChecker:
    return JudgeChecker(
        lambda asked, tokens: [Response("A") for _ in asked], knowledge_template(False, False), False, 16
    )


def mistakes(**changes: Any) -> str:
    with pytest.raises(RecipeError) as caught:
        recipes.check({"algorithms": {"dpo": {}}, **changes})
    return "\n".join(caught.value.problems)


def test_keys_that_mean_nothing_are_refused(tmp_path) -> None:
    file = shop(tmp_path)
    assert "needs a file of documents" in mistakes(reward={"type": "knowledge"})
    assert "reward.documents" in (told := mistakes(reward={"documents": file, "k": 3})) and "reward.k: 3" in told
    assert "Did you mean 'knowledge'" in mistakes(reward={"type": "knowlege", "documents": file})
    assert "Did you mean 'documents'" in mistakes(context={"document": file})
    assert "reward.scores.suported" in mistakes(
        reward={"type": "knowledge", "documents": file, "scores": {"suported": 1}}
    )
    assert "knows no prompts with passages" in mistakes(context={"documents": file})
    gold = {"judge": {"type": "gold"}, "data": {"preferences": "x/y"}, "gold": "none"}
    assert "gold/correctness" in mistakes(reward={"type": "knowledge", "documents": file}, **gold)
    (tmp_path / "t.jinja").write_text("{{ passages }} {{ promt }}")
    template = {"documents": file, "k": 1, "template": str(tmp_path / "t.jinja")}
    assert "unknown variable 'promt'. Did you mean 'prompt'?" in mistakes(context=template, gold="none")


def test_a_change_of_documents_measures_or_trains_anew(tmp_path) -> None:
    def keys(text: str, **blocks: Any) -> dict[str, str]:
        file = shop(tmp_path, text)
        filled = json.loads(json.dumps(blocks).replace("SHOP", file))
        plan = make_plan(recipes.check({"algorithms": {"ppo": {}, "dpo": {}}, "seeds": 1, **filled}), tmp_path)
        return {name: stage.folder.name for name, stage in plan.stages.items()}

    def changed(**blocks: Any) -> set[str]:
        before, after = keys(SHOP, **blocks), keys(SHOP + "More.", **blocks)
        return {name.removesuffix(" seed 0") for name in before if before[name] != after[name]}

    metric = {"evaluation": {"knowledge": {"documents": "SHOP"}}}
    assert changed(**metric) == {"evaluate start", "evaluate ppo", "evaluate dpo"}
    reward = {"reward": {"type": "knowledge", "documents": "SHOP"}}
    assert {"reward", "train ppo"} <= changed(**reward) and "train dpo" not in changed(**reward)
    assert {"data", "start", "train dpo"} <= changed(context={"documents": "SHOP"}, gold="none")


def test_to_be_contradicted_less_is_better() -> None:
    rng = np.random.default_rng(0)
    low, high = ((rng.random((3, 200)) < p).astype(float) for p in (0.2, 0.6))
    start = {"gold": low, "knowledge/supported": low, "knowledge/contradicted": high, "knowledge/not_found": low}
    better = {"gold": low, "knowledge/supported": high, "knowledge/contradicted": low, "knowledge/not_found": low}
    found = {each.metric: each for each in verdicts({"start": start, "dpo": better}) if each.metric != "gold"}
    assert {name: each.verdict for name, each in found.items()} == {
        "knowledge/supported": "better",
        "knowledge/contradicted": "better",
    }
    assert found["knowledge/contradicted"].difference < 0
    assert {each.family_size for each in found.values()} == {2}


def test_the_section_shows_shares_and_the_sentences_that_decided(tmp_path) -> None:
    results = made(tmp_path)
    assert knowledge_section(results, ["dpo"], tmp_path).parts == []
    for label, result in results.algorithms.items():
        for name in ("supported", "contradicted", "not_found"):
            result.summary[f"knowledge/{name}"] = Summary(mean=0.25, ci95=(0.2, 0.3))
        for trial in result.seeds.values():
            trial.judging["knowledge"] = {"claims": 5, "failures": 1, "nothing_found": 0, "conflicts": 2}
            file = tmp_path / trial.replies
            records = [json.loads(line) for line in file.read_text().splitlines()]
            records[0]["knowledge"] = {
                "verdict": "contradicted", "claim": f"{label} says 24.", "sentence": "It is 23.", "document": "prices",
                "conflict": True,
            }  # fmt: skip
            file.write_text("".join(json.dumps(record) + "\n" for record in records))
    headings, rows = knowledge_cells(results, ["dpo"])
    assert headings == ["policy", "supported", "contradicted", "not found"] and rows[0][:2] == ["dpo", "0.25"]
    section = knowledge_section(results, ["dpo"], tmp_path)
    _, text, examples = section.parts
    assert "30 sentences that state something" in text.text and "6 of which the checker's" in text.text
    assert ["dpo", "contradicted (the documents contradict each other)", "dpo says 24.", "It is 23.", "prices"] in (
        examples.cells[1]
    )


def test_passages_that_do_not_fit_are_left_out_whole_and_counted(tmp_path) -> None:
    texts = ["lamp one two three.", "lamp four five.", "vase six."]
    context = PromptContext(load_documents(shop(tmp_path, "\n\n".join(texts))), 2)
    rows = [Row(str(i), prompt, demonstration="x") for i, prompt in enumerate(asked("a lamp?", "a vase?", "hello"))]
    rows += [Row("again", rows[0].prompt, demonstration="y")]

    def tokens(prompts):
        return [prompt[-1]["content"].split() for prompt in prompts]

    found, facts = context.put_before(rows, tokens, 9)
    assert found[0].prompt[-1]["content"] == "lamp four five.\n\nlamp one two three.\n\na lamp?"
    assert found[3].prompt == found[0].prompt and found[2].prompt == rows[2].prompt
    assert facts == {"prompts": 3, "by_passages": {"0": 1, "1": 1, "2": 1}, "left_out": 0, "shortened": 0}
    found, facts = context.put_before(rows, tokens, 8)
    assert found[0].prompt[-1]["content"] == "lamp four five.\n\na lamp?", "the one that was found last goes first"
    assert facts == {"prompts": 3, "by_passages": {"0": 1, "1": 2}, "left_out": 1, "shortened": 1}
    found, facts = context.put_before(rows, tokens, 2)
    assert [row.prompt for row in found] == [row.prompt for row in rows] and facts["left_out"] == 3


def data_of(tmp_path: Path, name: str, **blocks: Any) -> tuple[Any, dict[str, Any], list[Row]]:
    """The plan, manifest and training rows of a data stage on 40 prompts about a shop."""
    file = tmp_path / "rows.jsonl"
    with file.open("w") as out:
        for i in range(40):
            row = {"prompt": f"Is lamp number {i} sold?", "chosen": "Yes, it is.", "rejected": "No."}
            out.write(json.dumps(row) + "\n")
    recipe = recipes.check(
        {
            "algorithms": {"ppo": {}, "dpo": {}, "rlaif": {"learner": "dpo"}},
            "data": {"preferences": str(file)},
            "seeds": 1,
        }
        | blocks
    )
    plan = make_plan(recipe, tmp_path / name)
    folder = plan.stages["data"].folder
    folder.mkdir(parents=True)
    data_stage.prepare(plan, plan.stages["data"], folder, lambda *_: None)
    rows = [Row(**json.loads(line)) for line in (folder / "train.jsonl").read_text().splitlines()]
    return plan, json.loads((folder / "manifest.json").read_text()), rows


def test_every_algorithm_reads_the_same_prompts_with_passages_and_the_manifest_knows_them(tmp_path) -> None:
    from prefzoo.data.row_views import views_of
    from prefzoo.models.loading import load_tokenizer

    plain = data_of(tmp_path, "plain")
    with_shop = data_of(tmp_path, "one", context={"documents": shop(tmp_path), "k": 1})
    other = data_of(tmp_path, "two", context={"documents": shop(tmp_path, SHOP.replace("23", "24")), "k": 1})
    assert [row.id for row in plain[2]] == [row.id for row in with_shop[2]], "documents move no prompt to another split"
    assert with_shop[2][0].prompt[-1]["content"] == (
        f"Prices: The lamp costs 23 euros. It is made of brass.\n\n{plain[2][0].prompt[-1]['content']}"
    )
    views = views_of(with_shop[2])
    render = load_tokenizer(str(lab.MODEL_DIR)).apply_chat_template
    ids = {json.dumps(render(list(p), add_generation_prompt=True, return_dict=False)) for p in views.prompts}
    for paired in (views.preferences, views.unpaired):
        of_pairs = {
            json.dumps(render(list(p["prompt"]), add_generation_prompt=True, return_dict=False)) for p in paired
        }
        assert of_pairs == ids, "the same tokens, from whatever view an algorithm learns"
    hashes = {each[1]["sha256"] for each in (plain, with_shop, other)}
    assert len(hashes) == 3 and "context" not in plain[1]
    refused, _ = differences(*({"manifest": each[1]["context"]} for each in (with_shop, other)))
    assert list(refused) == ["manifest.documents"]
    preflight = json.loads((with_shop[0].stages["data"].folder / "preflight.json").read_text())
    assert preflight["context"]["splits"]["train"]["by_passages"] == {"1": len(plain[2])}
    (told,) = [line for line in data_facts(preflight, with_shop[1]) if line.startswith("Passages before prompts")]
    assert "prompts: 40 with 1." in told and "fit into the prompt's length: 0, of 0 prompts" in told
    assert Context.model_validate({"documents": "x"}).k == 2


@pytest.mark.long
def test_a_whole_comparison_learns_from_documents_and_is_measured_by_them(tmp_path) -> None:
    import prefzoo

    rows = [row for split in ("train", "test") for row in lab.prompts(split, 400)]
    said = {fact for row in rows for fact in row["prompt"].partition("\n")[0].removeprefix("Facts: ").split("; ")}
    documents = shop(tmp_path, "\n\n".join(sorted(said)))
    recipe = {
        "extends": "base",
        "budget": {"prompts": 48},
        "generation": {"max_new_tokens": 24},
        "reward": {
            "type": "sum",
            "of": [{"type": "random"}, {"type": "knowledge", "documents": documents, "weight": 2}],
        },
        "evaluation": {"prompts": 16, "knowledge": {"documents": documents}, "judge": {"type": "gold"}},
        "judge": {"audit_pairs": 0},
        "algorithms": {"rejection_sampling": {"n": 2}},
        "seeds": 2,
        "tracking": {"wandb": {"mode": "disabled"}},
    }
    results = prefzoo.compare(recipe, out=tmp_path / "run")
    for result in results.algorithms.values():
        assert result.status == "ok", result.error
        shares = [result.summary[f"knowledge/{name}"].mean for name in ("supported", "contradicted", "not_found")]
        assert sum(shares) == pytest.approx(1)
        for trial in result.seeds.values():
            right = trial.metrics["knowledge/supported"]
            assert trial.judging["knowledge"]["claims"] > 0 and 0 <= right <= 1
    trial = results.algorithms["rejection_sampling"].seeds["0"]
    assert trial.details["knowledge"]["knowledge"]["claims"] > 0 and results.reward["knowledge"]["knowledge"]["claims"]
    assert {each.metric for each in results.verdicts if each.family == "knowledge against the start"} == {
        "knowledge/supported",
        "knowledge/contradicted",
    }
    assert "Sentences that decided" in (tmp_path / "run" / "report.html").read_text()
    assert "proxy/knowledge" in results.algorithms["start"].summary
