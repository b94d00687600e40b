# make demo: from a clone to videos. make test: the tests. make check: what a change must pass.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?= -n 2 --dist worksteal
# Two workers on two cores: threads inside each would only fight.
export OMP_NUM_THREADS ?= 1
# claims.py, acting.py and face_quality.py serve the others; gpu.py wants a card (gpu.sh), ablations.py an hour of training, guidance.py a
# base that has not learned guidance.
BENCHMARKS := $(filter-out $(addprefix benchmarks/,claims.py acting.py face_quality.py gpu.py ablations.py guidance.py),$(sort $(wildcard benchmarks/*.py)))

.PHONY: setup demo test check bench recompile

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "likeness needs Python 3.11 or later; point PYTHON at one: make PYTHON=python3.12 setup"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]' -c constraints.txt
	@touch $@

demo: setup
	OMP_NUM_THREADS=2 $(BIN)/likeness demo -o runs/demo --overwrite

test: setup
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/python -m pytest -q $(PYTEST_ARGS)

bench: setup
	@for script in $(BENCHMARKS); do OMP_NUM_THREADS=2 $(BIN)/python $$script --quick || exit 1; done

# Numba keeps compiled code by the file of a function, not by the files that it calls into (CONTRIBUTING.md).
recompile:
	find src -name '*.nb[ic]' -delete
