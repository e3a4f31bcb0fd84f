# make run and make test do everything on a fresh machine (Debian, Python 3.11 or later, make).
PYTHON ?= python3
BIN := .venv/bin

.PHONY: run samda native test check bench model test-deps chromium prometheus compiler kubectl lock format golden dashboards
.DEFAULT_GOAL := run

.venv/run.stamp: requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $@

.venv/dev.stamp: .venv/run.stamp requirements-dev.lock
	$(BIN)/pip install --quiet --disable-pip-version-check -r requirements-dev.lock
	touch $@

run: .venv/run.stamp  ## serve the default workload, then the same on DGX A100 and H100
	$(BIN)/coe run
	$(BIN)/coe compare --backend local

samda: .venv/samda.stamp  ## what learns vision experts (PyTorch and more, 1 GB)

native: .venv/dev.stamp  ## compile the engine (mypyc and a C compiler, a minute): plans twice as fast, with the same results
	COE_ENGINE=python $(BIN)/python -m node.compile_native

# The lock is complete, and what is in it asks for more than is needed (pyproject.toml says what). Where the only PyTorch
# that pip finds is a build for CUDA, the last line brings its libraries.
.venv/samda.stamp: .venv/run.stamp requirements-samda.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r requirements-samda.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements-samda.lock torch
	touch $@

# Beside each other, a process more than there are cores: tests of jobs, which come first, wait much, and those of units, which
# come last, are short.
test: .venv/dev.stamp  ## all tests
	$(BIN)/python -m pytest -m "not alone" --numprocesses $$(($$(nproc) + 1)) --dist loadfile --no-loadscope-reorder
	$(BIN)/python -m pytest -m alone tests/cluster

check: .venv/dev.stamp  ## lint, types, layers, locks, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python tests/check_lock.py
	$(BIN)/hadolint Dockerfile

bench: native  ## measurements, never asserts
	COE_ENGINE=python $(BIN)/python -m tests.benchmarks.engine
	COE_ENGINE=native $(BIN)/python -m tests.benchmarks.engine
	$(BIN)/python -m tests.benchmarks.compile
	$(BIN)/python -m tests.benchmarks.generate
	$(BIN)/python -m tests.benchmarks.links
	$(BIN)/python -m tests.benchmarks.metrics
	$(BIN)/python -m tests.benchmarks.checkpoints

model: .venv/run.stamp  ## SmolLM2-135M-Instruct (Apache-2.0, 98 MB) into ~/.cache/samba-coe, once
	$(BIN)/python -m cluster.checkpoints.smollm2

test-deps: .venv-reference/stamp .venv/samda.stamp model chromium prometheus compiler kubectl  ## what some tests need: a model, Chromium, Prometheus, a C compiler, kubectl; PyTorch for samda/; PyTorch and transformers, in a venv of their own

chromium:  ## Debian's, where there is none and we may; without it tests that open report.html are skipped
	@command -v chromium chromium-browser google-chrome > /dev/null \
		|| { apt-get update -qq && apt-get install -qq --no-install-recommends chromium; } \
		|| echo "no Chromium, and none could be installed: tests that open report.html will be skipped"

prometheus: | chromium  ## (one apt at a time) Debian's, with promtool, where there is none and we may; without it tests of rules and dashboards are skipped
	@{ command -v prometheus && command -v promtool; } > /dev/null \
		|| { apt-get update -qq && apt-get install -qq --no-install-recommends prometheus; } \
		|| echo "no Prometheus, and none could be installed: tests of rules and dashboards will be skipped"

compiler: | prometheus  ## Debian's, with Python's headers; without it tests of the compiled engine are skipped
	@{ command -v gcc && test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h"; } > /dev/null \
		|| { apt-get update -qq && apt-get install -qq --no-install-recommends gcc libc6-dev python3-dev; } \
		|| echo "no C compiler, and none could be installed: tests of the compiled engine will be skipped"

kubectl:  ## one program from https://kubernetes.io/docs/tasks/tools; Debian's (kubernetes-client) is too old for k8s/
	@command -v kubectl > /dev/null || echo "no kubectl, see https://kubernetes.io/docs/tasks/tools: tests of k8s/ will be skipped"

.venv-reference/stamp: requirements-reference.lock
	$(PYTHON) -m venv .venv-reference
	.venv-reference/bin/pip install --quiet --disable-pip-version-check -r requirements-reference.lock
	touch $@

lock: .venv/dev.stamp  ## write the lock files anew from pyproject.toml
	$(BIN)/python tests/check_lock.py --write

format: .venv/dev.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: .venv/dev.stamp  ## write golden traces and the validation page anew; explain the change in the commit
	$(BIN)/coe reproduce --write docs/validation.md
	$(BIN)/python -m pytest tests/golden --write-golden

dashboards: .venv/dev.stamp  ## write dashboards/*.json from the code there, and k8s/rules/ from dashboards/rules/
	$(BIN)/python -m dashboards
