"""What every stage needs, imported once by the server that the stages' processes are forked from."""

import os

# Training must not report to anybody on its own; a user who wants it sets these to 0.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import prefzoo.comparison.jobs  # noqa: F401
