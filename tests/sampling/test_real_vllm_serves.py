"""`prefzoo serve --engine vllm` with a real vLLM: it streams what the policies say, and ends with the server."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
import uuid

import httpx
import openai
import psutil
import pytest
from tests.conftest import BRIEF
from tests.sampling.test_real_vllm import PROMPTS, PYTHON

from prefzoo import compare
from prefzoo.commands.serve_policies import find_policies
from prefzoo.feedback.store import FeedbackStore
from prefzoo.settings import Generation

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(3600)]
SAME = 1e-3
"""How far log-probabilities of a whole reply may be apart, in nats."""


@pytest.fixture
def run(tmp_path):
    """A comparison whose DPO has learned enough to say something else than its start."""
    sets = [*BRIEF, "algorithms={dpo: {beta: 0.02, trainer: {learning_rate: 5.0e-3}}}"]
    compare("quickstart", seeds=1, sets=sets, out=tmp_path / "run", workers=1)
    return tmp_path / "run"


@pytest.fixture
def served(run):
    """The process of the server, and its address."""
    said = run.parent / "said.txt"
    command = [sys.executable, "-c", "from prefzoo.cli import main; main()", "serve", str(run), "dpo", "start"]
    with said.open("w") as file:
        process = subprocess.Popen(
            [*command, "--port", "0", "--engine", "vllm", "--vllm-python", PYTHON], stdout=file, stderr=file
        )
    try:
        while process.poll() is None and "Feedback:" not in said.read_text():
            time.sleep(0.5)
        assert process.poll() is None, said.read_text()
        yield process, re.search(r"Chat page: (http://\S+?)/", said.read_text())[1]
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def test_policies_of_a_run_are_streamed_feedback_is_kept_and_vllm_ends_with_the_server(run, served) -> None:
    process, url = served
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)
    replies: dict[str, list[str]] = {}
    for policy in find_policies(run, ["dpo", "start"], None, None, False):
        model, prompts = policy.load(), PROMPTS[:12]
        wanted = [reply for (reply,) in model.sample(prompts, Generation(max_new_tokens=32, temperature=0), 0)]
        ours = map(sum, model.log_probabilities(prompts, wanted))
        for prompt, reply, sure in zip(prompts, wanted, ours, strict=True):
            asked = {"model": policy.name, "messages": prompt, "temperature": 0, "max_tokens": 32, "logprobs": True}
            chunks = [each.choices[0] for each in client.chat.completions.create(**asked, stream=True) if each.choices]
            assert "".join(each.delta.content or "" for each in chunks) == reply.text
            scores = [score.logprob for each in chunks if each.logprobs for score in each.logprobs.content]
            assert len(scores) == len(reply.token_ids) and sum(scores) == pytest.approx(sure, abs=SAME)
            assert sum(bool(each.delta.content) for each in chunks) > 1, "it comes in pieces"
        replies[policy.name] = [reply.text for reply in wanted]
    assert replies["dpo"] != replies["start"], "what is said by one is not said by the other"

    drawn = [
        client.chat.completions.create(model="live", messages=PROMPTS[0], n=2, seed=5, temperature=1.0)
        for _ in range(2)
    ]
    first, again = ([choice.message.content for choice in answer.choices] for answer in drawn)
    assert first == again and first[0] != first[1]
    thumb = {"answer_id": str(uuid.uuid4()), "user": "anna", "reply": drawn[0].id, "thumb": "up"}
    assert httpx.post(f"{url}/feedback", json=thumb, trust_env=False).is_success
    store = FeedbackStore(run / "feedback.sqlite")
    (answer,) = store.answers()
    assert answer.value == {"liked": True} and first[0] in repr(store.item(answer.item_id))

    vllm = psutil.Process(process.pid).children(recursive=True)
    assert any("VLLM" in " ".join(each.cmdline()) for each in vllm)
    process.kill()
    process.wait(20)
    assert psutil.wait_procs(vllm, 60)[1] == []
