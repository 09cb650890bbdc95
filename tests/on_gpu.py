"""What only a machine with a GPU can show, in ten minutes; from the root of the repository:

    python tests/on_gpu.py

How long stages take to begin (they say so where they must import for themselves), and the tests that compute on the
GPU, of which all that fail are listed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

TESTS = ("preload", "resume", "online", "adapters", "adapter_settings", "trainers", "parity", "left_padding")
TESTS += ("fused_head", "rewards", "policies", "qlora", "quantized_start", "reference", "dropout", "rollouts")
SETS = ["budget.prompts=48", "evaluation.prompts=16", "generation.max_new_tokens=24", "tracking.wandb.mode=disabled"]


def main() -> None:
    from prefzoo import compare
    from prefzoo.run.stage_graph import load_plan

    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for sets in ([], ["adapter.type=qlora"]):
            compare("quickstart", ["sft", "dpo"], seeds=1, sets=[*SETS, *sets], out=out)
            outcomes = json.loads((out / "outcomes.json").read_text())
            for name, stage in load_plan(out).stages.items():
                seconds = outcomes[name]["seconds"]
                if seconds:
                    print(f"{name} {sets}: {seconds:.1f} s, of which {seconds - (stage.seconds or 0):.2f} to begin")
    files = [f"tests/test_{name}.py" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-m", "not slow and not learning", *files]
    raise SystemExit(subprocess.run(command, env={**os.environ, "PREFZOO_TEST_DEVICE": "gpu"}).returncode)


if __name__ == "__main__":
    main()
