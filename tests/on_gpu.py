"""The tests that compute on a GPU, where there is one, in ten minutes; from the root of the repository:

    python tests/on_gpu.py

All that fail are listed.
"""

from __future__ import annotations

import os
import subprocess
import sys

TESTS = ("preload", "resume", "online", "adapters", "adapter_settings", "trainers", "parity", "left_padding")
TESTS += ("fused_head", "rewards", "policies", "qlora", "quantized_start", "reference", "dropout", "rollouts")
TESTS += ("decoding", "replayed_steps", "sampling_batches")


def main() -> None:
    files = [f"tests/test_{name}.py" for name in TESTS]
    command = [sys.executable, "-m", "pytest", "-q", "--tb=line", "-m", "not slow and not learning", *files]
    raise SystemExit(subprocess.run(command, env={**os.environ, "PREFZOO_TEST_DEVICE": "gpu"}).returncode)


if __name__ == "__main__":
    main()
