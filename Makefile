# make study   a temperature study on generated audio, as a Ray job on this machine, with its report at the end
# make report  the pages of the recorded studies (studies/recorded), built again from their tables
# make test    lint, types and tests
# make stop    end the local Ray head that `make study` started
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
EXTRAS := dev,datasets,peers,export,embeddings,trackers
NAME ?= synthetic-$(shell date +%Y%m%d-%H%M%S)

export PATH := $(BIN):$(PATH)

.PHONY: study report test lint stop
.DELETE_ON_ERROR:

# Without extras pip says at once that Python is too old; with them it tries every version of everything, for hours.
# An environment that could not take the package must not stay: the next make, with another Python, would use it again.
# uv takes half a minute for what takes pip three; it does not read pip's settings, such as a mirror, so pip has to
# follow where it fails. Some packages hold templates that are no Python, which is no failure.
.venv/.installed: pyproject.toml
	@echo "creating .venv: torch brings about 5 GB, this takes minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --editable . || { test -e $@ || rm -rf .venv; exit 1; }
	$(BIN)/pip install --quiet --disable-pip-version-check --no-compile uv \
	  && $(BIN)/uv pip install --quiet --no-cache --python $(BIN)/python --editable '.[$(EXTRAS)]' \
	  || $(BIN)/pip install --quiet --disable-pip-version-check --no-compile --editable '.[$(EXTRAS)]'
	$(BIN)/python -m compileall -q -j 0 .venv/lib >/dev/null || true
	touch $@

# The head asks every client for a token: its dashboard listens on loopback, but Ray's own ports on every interface.
study: .venv/.installed
	STORAGE=$(CURDIR)/results bash cluster_configs/single_machine.sh $(NAME) --preset synthetic
	@echo "report: $(CURDIR)/results/$(NAME)/report.html"
	@echo "Ray still runs; make stop ends it"

report: .venv/.installed
	for study in studies/recorded/*/; do \
	  out=results/recorded/$$(basename $$study); \
	  case $$study in \
	    */table1-*) python -m analysis.table1 $$study --out $$out ;; \
	    *) catuvac report $$study --out $$out --figures png ;; \
	  esac || exit; \
	done

test: lint
	pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

lint: .venv/.installed
	ruff check .
	ruff format --check .
	mypy

stop:
	cluster_configs/stop_head.sh
