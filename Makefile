# Two commands do everything: `make sweep` runs the main job, `make test` the tests. Both build .venv when it is missing.
PYTHON ?= python3
BIN := .venv/bin
STUDY ?= quick
NAME ?= $(STUDY)-$(shell date +%m%d-%H%M%S)
ARGS ?=
# A module's tests run in one worker, because they may share something expensive; tests/conftest.py puts slow ones first.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadscope --no-loadscope-reorder

.PHONY: sweep install test test-fast test-hosts test-hosts-all lint docs bench gpu faults clean lock

# The main job: a pilot study of both families on scikit-learn's digits, three draws, ending in a report.
# On CIFAR-10: make sweep STUDY=cifar10_lowdata ARGS="runtime.data_dir=/path/to/data"
sweep: .venv/ready
	$(BIN)/sweep study $(NAME) study=$(STUDY) $(ARGS)

# The set-up alone, which all others begin with when .venv is missing.
install: .venv/ready
	@echo 'Ready: . $(BIN)/activate, then sweep help'

test: .venv/ready
	$(PYTEST)

# Without what starts Ray, MLflow or a browser, and modules that take seconds.
test-fast: .venv/ready
	$(PYTEST) -m "not slow"

# A sweep on hosts made of namespaces, which need Linux and root: one is lost, one has no run directory, the driver dies.
test-hosts: .venv/ready
	TEST_HOSTS=1 $(BIN)/python -m pytest tests/hosts/test_hosts.py

# And what else befalls a cluster: about half an hour.
test-hosts-all: .venv/ready
	TEST_HOSTS=1 $(BIN)/python -m pytest tests/hosts

lint: .venv/ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The site of the documentation in site/, without the network; a warning is an error. The suite builds it, too.
docs: .venv/ready
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Against other libraries, which are installed now, at versions that leave the pinned ones alone.
bench: .venv/ready
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint requirements.lock -e '.[bench]'
	@set -e; for file in benchmarks/bench_*.py; do $(BIN)/python $$file; done

# What a GPU reaches, in about eight minutes; without one at toy size. ARGS="--only c,d --data FOLDER", see docs/gpu.md
gpu: .venv/ready
	PYTHONPATH=. $(BIN)/python benchmarks/gpu.py $(ARGS)

# The faults of the tests at random moments and many times, and a thousand trials: about half an hour.
faults: .venv/ready
	$(BIN)/python benchmarks/faults.py

.venv/ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; (3, 11) <= sys.version_info[:2] <= (3, 13) or sys.exit("Python 3.11 to 3.13 is needed, this is " + sys.version.split()[0] + ": set PYTHON=python3.11, say")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@# Else every process compiles what it imports where PYTHONDONTWRITEBYTECODE is set: three quarters of a search's start.
	$(BIN)/python -m compileall -q -j 0 -x 'rllib|ray/serve|ray/llm|torch/testing|/tests/' $(BIN)/../lib odenet search_spaces sweep
	touch $@

# Pins what pyproject.toml asks for: names, versions and platform markers only.
lock:
	$(BIN)/uv pip compile --universal --python-version 3.11 --extra dev --extra docs --extra onnx --upgrade --no-header --no-annotate \
		pyproject.toml --output-file requirements.lock

clean:
	rm -rf .venv build site *.egg-info .pytest_cache .mypy_cache .ruff_cache
