"""The whole circle on one machine: SFT, labels, a reward, PPO, evaluation, serving, feedback, and the next round.

    python benchmarks/replications/the_whole_circle.py               # some 30 minutes on 2 cores
    python benchmarks/replications/the_whole_circle.py --coin        # the control: people who answer by a coin

Everything goes the way that it goes with people, through the commands and HTTP; only the people are simulated, by the
lab's annotators, who differ in taste and are wrong now and then:

1. `prefzoo compare` imitates demonstrations (SFT), and starts `iterated_rlhf` with `judge: {type: people}`. It pauses,
   with exit code 3, for answers to the pairs that the policy has written.
2. `prefzoo label labels.sqlite` asks people, who answer on its page. The same `compare` goes on: a reward model learns
   from what they said, PPO from the reward; the next round samples from the new policy, and pauses again.
3. At the end every policy on the way is measured by the lab's gold.
4. `prefzoo serve` serves the trained policy. Users ask, say which of two replies is better, and give thumbs.
5. `prefzoo compare` with `data: {preferences: feedback.sqlite}` goes on from that policy: DPO on what its users said of
   its own replies. The annotators' labels are of earlier policies; with them too it often runs away (docs/log.md).
"""

from __future__ import annotations

import argparse
import contextlib
import html
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import yaml

from prefzoo import lab
from prefzoo.cli.options import WAITING
from prefzoo.commands.export_policy import export
from prefzoo.lab.simulated_annotators import POOL
from prefzoo.results.results_file import load as load_results
from prefzoo.results.results_schema import Results, Verdict
from prefzoo.types import Prompt

COMMAND = [sys.executable, "-c", "from prefzoo.cli import main; main()"]
AT_A_TIME = 8
"""How many users ask at a time."""
LABEL = "people"
PPO = {"kl_coefficient": 0.076, "epochs": 2, "trainer": {"learning_rate": 0.0023}}


def gold(prompts: Sequence[Prompt], completions: Sequence[str]) -> list[float]:
    """The lab's gold reward, for recipes whose data are files."""
    return [float(lab.gold(p[-1]["content"], text)) for p, text in zip(prompts, completions, strict=True)]


class Circle(NamedTuple):
    """One run of the script; attributes are its options.

    Attributes:
        prompts: demonstrations, of which 70% are trained on.
        per_round: pairs that people compare in each round; None is all.
        users: how many ask the server.
        seeds: trainings of the last round.
        coin: whether people answer by a coin.
    """

    out: Path
    prompts: int = 900
    rounds: int = 2
    per_round: int | None = None
    users: int = 3000
    seeds: int = 5
    seed: int = 0
    coin: bool = False

    def run(self) -> tuple[Results, Results]:
        """Go round once; return the results of both comparisons."""
        self.out.mkdir(parents=True, exist_ok=True)
        rows = lab.demonstrations("train", self.prompts, self.seed)
        rows += [{**row, "id": f"test {row['id']}"} for row in lab.demonstrations("test", self.prompts // 2, self.seed)]
        lines = [json.dumps({"prompt": row["prompt"], "completion": row["completion"]}) + "\n" for row in rows]
        (self.out / "demonstrations.jsonl").write_text("".join(lines), encoding="utf-8")
        first = self.compare("first", self.first_recipe(), 1)
        if not (self.out / "policy").exists():
            export(self.out / "first", LABEL, self.out / "policy")
        if not (told := self.out / "users_said.txt").exists():  # given again, the script asks nobody twice
            self.serve()
            told.touch()
        return first, self.compare("second", self.second_recipe(), self.seeds)

    def shared(self) -> dict[str, Any]:
        """What both recipes say."""
        return {
            "extends": "base",
            "gold": {"path": f"{Path(__file__).resolve()}:gold"},
            "reward": {"type": "random"},  # nothing learns from it: `iterated_rlhf` trains rewards of its own
            "evaluation": {"prompts": 256},
            "tracking": {"wandb": {"mode": "disabled"}},
        }

    def first_recipe(self) -> dict[str, Any]:
        """SFT, and rounds of labels, reward and PPO."""
        people = {"algorithm": "iterated_rlhf", "people": False, "rounds": self.rounds, "learner": "ppo"}
        return {
            **self.shared(),
            "data": {"demonstrations": str(self.out / "demonstrations.jsonl")},
            "judge": {"type": "people", "store": str(self.out / "labels.sqlite"), "per_round": self.per_round},
            "algorithms": {LABEL: {**people, "learner_settings": PPO}},
        }

    def second_recipe(self) -> dict[str, Any]:
        """DPO on what users said, from the policy that was served."""
        return {
            **self.shared(),
            "model": {"path": str(self.out / "policy")},
            "start": {"algorithm": "none"},
            # The demonstrations bring the test prompts of before; of what users asked a share is tested on, too.
            "data": {
                "preferences": str(self.out / "feedback.sqlite"),
                "demonstrations": str(self.out / "demonstrations.jsonl"),
            },
            "algorithms": {"dpo": {"beta": 0.3, "trainer": {"learning_rate": 0.001}}},
        }

    def compare(self, name: str, recipe: dict[str, Any], seeds: int) -> Results:
        """`prefzoo compare`, as often as it pauses; in between people answer what it waits for."""
        file, out = self.out / f"{name}.yaml", self.out / name
        file.write_text(yaml.safe_dump(recipe), encoding="utf-8")
        command = [*COMMAND, "compare", str(file), "--out", str(out), "--seeds", str(seeds)]
        while (code := subprocess.run(command).returncode) == WAITING:
            print(f"{self.label()} answers were given by {len(POOL)} people.", flush=True)
        if code:
            raise SystemExit(f"compare ended with {code}")
        return load_results(out)

    def label(self) -> int:
        """Have the lab's annotators answer all questions on the page of `prefzoo label`; return how many they did."""
        source = str(self.out / "labels.sqlite")
        with started(
            [*COMMAND, "label", source, "--port", "0", "--overlap", "0.1"], r"(http://\S+?)/ ", self.out
        ) as url:
            told = 0
            while new := sum(self.annotate(url, person) for person in POOL):  # who leaves keeps the item that is shown
                told += new
            return told

    def annotate(self, url: str, person: Any) -> int:
        """One person at the page: reads an item, answers it, gets the next one, until a fair share is done."""
        with httpx.Client(base_url=url, timeout=60, headers={"origin": url}) as http:
            http.post("/enter", json={"name": person.name}).raise_for_status()
            page = http.get("/").text
            csrf = re.findall(r'name="csrf" content="(\w+)"', page)[0]
            left = int(re.findall(r"(\d+) left", page)[0])
            share = -(-left // (len(POOL) - POOL.index(person)))
            for done in range(share):
                item = re.search(r'data-item="(\w+)"', page)
                if item is None:
                    return done
                *turns, one, other = map(html.unescape, re.findall(r'class="text" dir="auto">(.*?)</div>', page, re.S))
                rng = random.Random(f"{self.seed} {person.name} {turns[-1]} {one} {other}")
                value = {"choice": self.choose(person, turns[-1], one, other, rng), "strength": "better"}
                answer = {
                    "answer_id": str(uuid.uuid4()),
                    "item_id": item[1],
                    "seconds": 5 + rng.random(),
                    "value": value,
                }
                told = http.post("/answer", json=answer, headers={"x-csrf-token": csrf})
                told.raise_for_status()
                page = told.json()["html"]
            return share

    def choose(self, person: Any, question: str, first: str, second: str, rng: random.Random) -> str:
        """Which of two replies somebody prefers."""
        prefers = rng.random() < 0.5 if self.coin else person.prefers_first(question, first, second, rng)
        return "first" if prefers else "second"

    def serve(self) -> None:
        """Serve the trained policy to the users."""
        served = [*COMMAND, "serve", str(self.out / "first"), LABEL, "--port", "0"]
        served += ["--feedback", str(self.out / "feedback.sqlite")]
        with started(served, r"Chat page: (http://\S+?)/", self.out) as url:
            questions = [row["prompt"] for row in lab.prompts("train", self.users, self.seed + 1)]
            with httpx.Client(base_url=url, timeout=120) as http, ThreadPoolExecutor(AT_A_TIME) as pool:
                told = sum(pool.map(lambda i: self.use(http, questions[i], f"{self.seed} {i}"), range(self.users)))
        print(f"{told} of {self.users} users said what they think of the replies.", flush=True)

    def use(self, http: httpx.Client, question: str, seed: str) -> bool:
        """One user: asks, compares the two replies or gives one a thumb; whether there was anything to say."""
        rng = random.Random(seed)
        user, two = rng.choice(POOL), rng.random() < 0.8
        asked = http.post("/chat", json={"messages": [{"role": "user", "content": question}], "two": two})
        asked.raise_for_status()
        events = [json.loads(part[6:]) for part in asked.text.split("\n\n") if part.startswith("data: {")]
        texts = ["".join(event.get("text", "") for event in events if event.get("index") == i) for i in range(1 + two)]
        names = events[0]["replies"]
        said: dict[str, Any] = {"answer_id": str(uuid.UUID(int=rng.getrandbits(128), version=4)), "user": user.name}
        if not two:
            liked = self.choose(user, question, texts[0], "I cannot say.", rng) == "first"
            said |= {"reply": names[0], "thumb": "up" if liked else "down"}
        elif texts[0] == texts[1]:
            return False
        else:
            said |= {"first": names[0], "second": names[1], "choice": self.choose(user, question, *texts, rng)}
        http.post("/feedback", json=said).raise_for_status()
        return True


@contextlib.contextmanager
def started(command: list[str], address: str, out: Path) -> Iterator[str]:
    """A server in a process of its own, while the block runs; yields its address."""
    log = out / f"{command[len(COMMAND)]}.log"
    with log.open("w", encoding="utf-8") as file:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        server = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
    try:
        while (found := re.search(address, log.read_text("utf-8"))) is None:
            if server.poll() is not None:
                raise SystemExit(log.read_text("utf-8"))
            time.sleep(0.2)
        yield found[1]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def of_gold(results: Results) -> Verdict:
    """What the lab's gold says of the label against its start."""
    return next(verdict for verdict in results.verdicts if verdict.metric == "gold" and verdict.b == "start")


def main() -> None:
    """Go round once, and say what each half brought."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/the_whole_circle"))
    for name in ("prompts", "rounds", "per_round", "users", "seeds", "seed"):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=Circle._field_defaults[name])
    parser.add_argument("--coin", action="store_true", help="people answer by a coin")
    for results in Circle(**vars(parser.parse_args())).run():
        found = of_gold(results)
        low, high = found.ci95
        print(f"{found.a} over its start: gold {found.difference:+.3f} (95% {low:+.3f} to {high:+.3f})")


if __name__ == "__main__":
    main()
