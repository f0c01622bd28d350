# Two commands: `make demo` and `make test`. Each sets up .venv by itself; only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DATA ?=
QUICK ?=
export TOKENIZERS_PARALLELISM := false

# Lines alone, and not those run in processes that tests start: both would cost more than the few per cent that this does.
COVERAGE := --cov=audiomcq --cov-report=term:skip-covered
# With pip's own lines and bars: silence for minutes looks like a hang
PIP = $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
TRITON := triton==3.7.1
.PHONY: demo study test check quality style benchmark docs engines

demo: $(VENV)/installed
	$(BIN)/python recipes/demo/demo.py $(if $(QUICK),--quick true) $(if $(DATA),--recordings $(DATA))

# Paradigms x seeds at equal budget; QUICK=1 a smaller version. It goes on where it was stopped.
study: $(VENV)/installed
	$(BIN)/python recipes/study/study.py --config recipes/study/$(if $(DATA),recordings,tiny).yaml $(if $(QUICK),--quick true) $(if $(DATA),--recordings $(DATA))

test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m 'not check' $(COVERAGE)

# What takes longer: long fuzzing, kills, kernels by Triton's interpreter, engines. Triton stands apart, since beside torch it changes what runs on
# a CPU; so does DeepSpeed, since accelerate imports it wherever it is installed, for a second in every process and with a line on its output.
check: $(VENV)/installed $(VENV)/triton $(VENV)/deepspeed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses 2 -m check

$(VENV)/triton: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target $@ $(TRITON)
	@touch $@

# Nothing is compiled: its kernels are built when they are used, and on a CPU none is.
$(VENV)/deepspeed: $(VENV)/installed
	DS_BUILD_OPS=0 $(PIP) --quiet --no-deps --upgrade --target $@ deepspeed einops hjson msgpack ninja py-cpuinfo
	@touch $@

# The table of engines; `make check` runs the same tests.
engines: $(VENV)/deepspeed
	$(BIN)/python benchmarks/engines.py

quality: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

style: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# The documentation as a site in outputs/site.
docs: $(VENV)/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

benchmark: $(VENV)/installed
	$(BIN)/python benchmarks/grpo_step.py --preset cpu
	$(BIN)/python benchmarks/silent_probe.py
	$(BIN)/python benchmarks/answering.py
	$(BIN)/python benchmarks/contribution_scale.py
	$(BIN)/python benchmarks/overlap_audit.py
	$(BIN)/python benchmarks/row_passes.py
	$(BIN)/python benchmarks/data_path.py
	$(BIN)/python benchmarks/probe_processes.py

$(VENV)/installed: setup.cfg constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@echo "Installing into $(VENV), once: some minutes, most of them downloads"
	@echo "1 of 3: a virtual environment"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "2 of 3: torch"
	@$(PIP) torch
	@echo "3 of 3: the other packages"
	@$(PIP) --editable '.[dev]'
	@touch $@
