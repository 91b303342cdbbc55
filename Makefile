# Two commands: `make demo` and `make test`. Both use .venv/ and leave nothing to commit.
# `make lanes` runs the tests on the lowest supported releases, and the core without extras.
PYTHON ?= python3
PY := .venv/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
# A file's tests stay on one worker: some start processes on a port of their own.
PYTEST := -m pytest -q -n 2 --dist loadfile
# Tiny models train up to nine times faster on one thread where the machine is busy.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo test docs lint lanes lane-lowest lane-core clean

demo: .venv/.installed
	$(PY) examples/demo.py

test: lint .venv/.reporters
	$(PY) $(PYTEST)

# The API reference, from docstrings, into build/docs.
docs: .venv/.installed
	$(PY) -m sphinx -q -W --keep-going -b html docs build/docs

lint: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) $(PIP) -c constraints.txt torch
	$(PY) $(PIP) -c constraints.txt -e '.[dev]'
	touch $@

# Experiment trackers, for their tests only: the demo does without.
.venv/.reporters: .venv/.installed
	$(PY) $(PIP) -c constraints.txt -e '.[dev,reporters]'
	touch $@

lanes: lane-core lane-lowest

lane-core: .venv-core/.installed
	.venv-core/bin/python $(PYTEST) tests passk_guard \
		$(addprefix --ignore=passk_guard/,integrations $(DRAWN))

# What needs matplotlib.
DRAWN := $(addprefix reporting/,course.py figures.py page.py svg.py)

lane-lowest: .venv-lowest/.installed
	.venv-lowest/bin/python $(PYTEST) $(LOWEST)

# What touches a trainer. The core does not depend on their releases.
LOWEST := $(addprefix tests/test_,contract.py doctor_trainers.py other_trainers.py faults.py killed.py hf_policy.py \
	trl.py trl_actions.py trl_arguments.py trl_objective.py trl_rollouts.py)

.venv-core/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/python $(PIP) -c constraints.txt torch
	.venv-core/bin/python $(PIP) -c constraints.txt -e . pytest pytest-xdist hypothesis
	touch $@

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) -c constraints-lowest.txt torch
	.venv-lowest/bin/python $(PIP) -c constraints-lowest.txt -e '.[dev]'
	touch $@

clean:
	rm -rf .venv .venv-core .venv-lowest runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
