# make demo: from a clone to videos. make test: the tests. make check: what a change must pass.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
COMPILED := $(VENV)/.compiled
PYTEST_ARGS ?= -n 2 --dist worksteal
# Two workers use two cores; more threads in each would compete.
export OMP_NUM_THREADS ?= 1
# claims.py, acting.py, face_quality.py, trials.py, verb_trials.py and verbs.py are imported by the others. gpu.py needs a
# GPU (gpu.sh), disks.py the right to mount, guidance.py a base that was trained without guidance, bit_identity.py a
# revision, mean_head.py published files, paper_figures.py the name of a figure, ablations.py an hour of training.
BENCHMARKS := $(filter-out $(addprefix benchmarks/,claims.py acting.py face_quality.py gpu.py ablations.py guidance.py \
	bit_identity.py mean_head.py paper_figures.py \
	$(addprefix robustness/,trials.py verb_trials.py verbs.py disks.py)),$(sort $(wildcard benchmarks/*.py benchmarks/robustness/*.py)))

.PHONY: setup demo test check bench recompile

setup: $(STAMP) $(COMPILED)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "likeness needs Python 3.11 or later; point PYTHON at one: make PYTHON=python3.12 setup"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --quiet -e '.[dev]' -c constraints.txt
	@touch $@

# Numba caches a function by its own file and not by the files that it calls into, so a change compiles everything anew.
# One small frame runs every compiled function; without this step each test worker would compile them.
$(COMPILED): $(STAMP) $(shell find src/likeness/puppets -name '*.py')
	find src/likeness/puppets -name '*.nb[ic]' -delete
	$(BIN)/python -c 'from likeness.puppets import sample_clip, sample_person; \
		sample_clip(0, person=sample_person(0), num_frames=1, size_px=16)'
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

recompile:
	rm -f $(COMPILED)
	$(MAKE) $(COMPILED)
