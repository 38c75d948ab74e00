# `make demo` and `make test` set up everything they need in .venv. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
PY := .venv/bin/python
INSTALLED := .venv/.installed

.PHONY: demo test check lint types tests test-long campaign gpu clean

demo: $(INSTALLED)
	.venv/bin/infdiff train
	.venv/bin/infdiff train-latent --run runs/demo
	.venv/bin/infdiff sample --run runs/demo --res 64 --n 16 --truncation 1 --out runs/demo/samples/64
	.venv/bin/infdiff sample --run runs/demo --res 256 --n 4 --truncation 1 --out runs/demo/samples/256
	@echo "Look at: runs/demo/samples/64/grid.png, runs/demo/samples/256/grid.png, runs/demo/loss.png"

test: $(INSTALLED) tests

check: $(INSTALLED) lint types tests

lint: $(INSTALLED)
	$(PY) -m ruff format --check .
	$(PY) -m ruff check .

types: $(INSTALLED)
	$(PY) -m mypy

tests: $(INSTALLED)
	$(PY) -m pytest --numprocesses auto --dist worksteal

# On a machine with a GPU: checks, measures, trains for two minutes, and ends with one table. ARGS="--again", say.
gpu: $(INSTALLED)
	$(PY) scripts/gpu_check.py $(ARGS)

test-long: $(INSTALLED)
	$(PY) -m pytest -m long

# Kills, full disks, damaged files, bad command lines, dying processes and a soak, for hours. ARGS="--quick", say.
campaign: $(INSTALLED)
	OMP_NUM_THREADS=1 $(PY) -m tests.campaign $(ARGS)

# Tests compare with functions of torch-fidelity and clean-fid that need no torchvision: its builds go with some of torch.
# A plain `pip install torch` brings CUDA on Linux; the constraint's version is taken as the machine offers it.
$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "infdiff needs Python 3.11 or newer: make PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(PY) -m pip install --quiet --constraint constraints.txt torch
	$(PY) -m pip install --quiet --constraint constraints.txt --editable ".[test]"
	$(PY) -m pip install --quiet --constraint constraints.txt --no-deps torch-fidelity clean-fid
	touch $@

clean:
	rm -rf .venv build *.egg-info .pytest_cache .mypy_cache .ruff_cache
