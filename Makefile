# `make` builds everything that is stale; `make test` runs the everyday tests.
PYTHON ?= python3
BIN := .venv/bin
LOCKS := $(foreach part,data torch mlx dev,env/$(part).lock)

.DEFAULT_GOAL := all
.PHONY: all setup test slow containers remotes machines sky browser lint mlx reproduce lock clean image-cpu image-cuda

all: setup
	@$(BIN)/dvc repro
	@$(BIN)/tunesmith summary

setup: .venv/.ready

# The .pth line puts this environment's python first for the commands that DVC starts.
.venv/.ready: pyproject.toml $(LOCKS)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check -c env/torch.lock torch
	$(BIN)/pip install --disable-pip-version-check $(LOCKS:%=-c %) -e .
	$(BIN)/pip install --disable-pip-version-check $(LOCKS:%=-c %) \
	-e ".[$$($(BIN)/python env/extras.py)]"
	@$(BIN)/python -c "import sysconfig, pathlib; \
	pathlib.Path(sysconfig.get_path('purelib'), 'tunesmith_path.pth').write_text( \
	'import os, sys; os.environ[\"PATH\"] = os.path.join(sys.prefix, \"bin\") + os.pathsep + os.environ.get(\"PATH\", \"\")\n')"
	$(BIN)/python -c "from stages.core import llamacpp; print('llama.cpp source:', llamacpp.fetch())"
	$(BIN)/python env/plots_page.py
	@touch $@

# A file of tests at a time and core; JOBS=0 runs them in one process.
JOBS ?= 2
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test: setup
	$(PYTEST)

slow: setup
	$(PYTEST) -m "slow and not gpu and not remotes and not browser and not machines"

# Needs a container engine and `make image-cpu`.
containers: setup
	$(BIN)/python -m pytest -m container

# Needs OpenSSH's server, which Debian calls openssh-server.
remotes: setup
	$(PYTEST) -m remotes

# Machines that are network namespaces of this one: needs Linux, root, iproute2, openssh-server.
machines: setup
	$(PYTEST) -m machines

# SkyPilot in an environment of its own, since it wants older packages than ours: 0.5 GB.
SKYPILOT := 0.14.1
.venv/sky-$(SKYPILOT)/bin/sky: .venv/.ready
	$(PYTHON) -m venv .venv/sky-$(SKYPILOT)
	.venv/sky-$(SKYPILOT)/bin/pip install --disable-pip-version-check -q skypilot==$(SKYPILOT)

sky: .venv/sky-$(SKYPILOT)/bin/sky
	TUNESMITH_TEST_SKY=$(CURDIR)/$< $(BIN)/python -m pytest -m sky

# Needs Chromium, which Debian calls chromium.
browser: setup
	$(PYTEST) -m browser

# WzrdBrain trained on MLX, as an experiment in a folder of its own; fails when one of its gates does.
mlx: setup
	$(BIN)/dvc exp run --temp -S models.wzrdbrain.backend=mlx release@wzrdbrain

reproduce: setup
	$(BIN)/python tests/reproduce.py

lint: setup
	$(BIN)/ruff format --check stages tests benchmarks env
	$(BIN)/ruff check stages tests benchmarks env
	$(BIN)/mypy

lock:
	$(BIN)/python env/lock.py

# ENGINE=podman, BASE_IMAGE=… and BUILD_ARGS="…" are heard: docs/containers.md
export ENGINE BASE_IMAGE BUILD_ARGS
image-cpu image-cuda:
	@$(PYTHON) env/image.py $(@:image-%=%)

clean:
	rm -rf .venv .tunesmith .pytest_cache .mypy_cache .ruff_cache
