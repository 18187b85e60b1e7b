# make study   a temperature study on generated audio, as a Ray job on this machine, with its report at the end
# make test    lint, types and tests
# make stop    end the local Ray head that `make study` started
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
NAME ?= synthetic-$(shell date +%Y%m%d-%H%M%S)
REVISION := $(shell git describe --always --dirty=+dirty --abbrev=12 2>/dev/null)
JOBS := http://127.0.0.1:8265

export PATH := $(BIN):$(PATH)
# The head, its dashboard and its jobs API listen on loopback only.
export RAY_AUTH_MODE ?= disabled
export RAY_USAGE_STATS_ENABLED ?= 0

.PHONY: study test lint stop
.DELETE_ON_ERROR:

# pip would compile on one core. Some packages hold templates that are no Python, which is no failure.
.venv/.installed: pyproject.toml
	@echo "creating .venv: torch brings about 5 GB, this takes minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[dev,datasets,peers]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null || true
	touch $@

study: .venv/.installed
	ray status >/dev/null 2>&1 || ray start --head --dashboard-host=127.0.0.1 --dashboard-agent-listen-port=0 --disable-usage-stats
	ray job submit --address $(JOBS) --working-dir . -- \
		env CATUVAC_REVISION=$(REVISION) $(BIN)/python studies/tau_sweep.py --preset synthetic --storage $(CURDIR)/results --name $(NAME)
	@echo "report: $(CURDIR)/results/$(NAME)/report.html"
	@echo "Ray still runs, with its dashboard at $(JOBS); make stop ends it"

test: lint
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed
	ruff check .
	ruff format --check .
	mypy

stop:
	ray stop
