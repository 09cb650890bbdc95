"""What users say on the server makes the policy that it serves better: a policy is served, simulated users compare two
replies to each of their questions, and DPO on their answers is measured beside the policy itself by the lab's gold.

    python benchmarks/replications/learning_from_users.py --users 600 --seeds 3      # some 20 minutes on 2 cores

Everything goes the way that it goes with people: `prefzoo serve` in a process of its own, HTTP, the file of feedback,
`prefzoo label --export`, and a recipe whose data is the export.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import subprocess
import sys
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx

import prefzoo
from prefzoo import lab
from prefzoo.commands.export_policy import export
from prefzoo.lab.simulated_annotators import POOL
from prefzoo.results.results_schema import Results
from prefzoo.types import Prompt

COMMAND = [sys.executable, "-c", "from prefzoo.cli import main; main()"]
AT_A_TIME = 16
"""How many users ask at a time."""


def gold(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
    """The lab's gold reward, for a recipe whose data are a file."""
    return [float(lab.gold(p[-1]["content"], text)) for p, text in zip(prompts, completions, strict=True)]


def answer(http: httpx.Client, question: str, rng: random.Random) -> bool:
    """One user: asks, compares the two replies, says which is better; whether there was anything to say."""
    turns = [{"role": "user", "content": question}]
    asked = http.post("/chat", json={"messages": turns, "two": True})
    asked.raise_for_status()
    events = [json.loads(part[6:]) for part in asked.text.split("\n\n") if part.startswith("data: {")]
    texts = ["".join(event.get("text", "") for event in events if event.get("index") == i) for i in (0, 1)]
    if texts[0] == texts[1]:
        return False
    user = rng.choice(POOL)
    choice = "first" if user.prefers_first(question, *texts, rng) else "second"
    first, second = events[0]["replies"]
    said = {"answer_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "user": user.name}
    told = http.post("/feedback", json={**said, "first": first, "second": second, "choice": choice})
    told.raise_for_status()
    return True


def users_of(run: Path, policy: str, users: int, seed: int, feedback: Path) -> int:
    """Serve a policy to so many users; return how many of them said which reply is better."""
    said = feedback.with_suffix(".log")
    with said.open("w", encoding="utf-8") as log:
        whole = [*COMMAND, "serve", str(run), policy, "--port", "0", "--feedback", str(feedback)]
        server = subprocess.Popen(whole, stdout=log, stderr=log)
    try:
        while (found := re.search(r"Chat page: (http://\S+?)/", said.read_text("utf-8"))) is None:
            if server.poll() is not None:
                raise SystemExit(said.read_text("utf-8"))
            time.sleep(0.2)
        questions = [row["prompt"] for row in lab.prompts("train", users, seed)]
        with httpx.Client(base_url=found[1], timeout=120) as http, ThreadPoolExecutor(AT_A_TIME) as pool:
            told = pool.map(lambda i: answer(http, questions[i], random.Random(f"{seed} {i}")), range(users))
            return sum(told)
    finally:
        server.terminate()
        server.wait(60)


def learned(start: Path, preferences: Path, seeds: int, out: Path) -> Results:
    """DPO on the users' answers, beside the policy that they answered about."""
    recipe: dict[str, Any] = {
        "extends": "base",
        "model": {"path": str(start)},
        "start": {"algorithm": "none"},
        "data": {"preferences": str(preferences)},
        "gold": {"path": f"{Path(__file__).resolve()}:gold"},
        "evaluation": {"prompts": 128},
        "algorithms": {"dpo": {"beta": 0.1, "trainer": {"learning_rate": 0.0017}}},
        "tracking": {"wandb": {"mode": "disabled"}},
    }
    return prefzoo.compare(recipe, seeds=seeds, out=out)


def main() -> None:
    """Serve, listen, learn, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, help="a finished run to serve from; quickstart's SFT by default")
    parser.add_argument("--policy", default="start", help="which of its policies")
    parser.add_argument("--users", type=int, default=600)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0, help="of the users")
    parser.add_argument("--out", type=Path, default=Path("runs/learning_from_users"))
    options = parser.parse_args()
    out, run = options.out, options.run or options.out / "first"
    out.mkdir(parents=True, exist_ok=True)
    if options.run is None:
        prefzoo.compare("quickstart", ["sft"], seeds=1, out=run)
    feedback, start = out / "feedback.sqlite", out / "start"
    if not start.exists():
        export(run, options.policy, start)
    told = users_of(run, options.policy, options.users, options.seed, feedback)
    subprocess.run([*COMMAND, "label", str(run), "--store", str(feedback), "--export", str(out)], check=True)
    results = learned(start, out / "compare.jsonl", options.seeds, out / "second")
    print(f"{told} of {options.users} users said which of two replies is better.")
    for verdict in results.verdicts:
        if verdict.metric == "gold":
            low, high = verdict.ci95 or (float("nan"), float("nan"))
            print(f"{verdict.a} against {verdict.b}: gold {verdict.difference:+.3f} (95% {low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
