# Everything here needs only Python >= 3.11 and make: each target creates .venv and installs what it needs by itself.
# Another interpreter: make PYTHON=python3.12 test (after `make clean`, if .venv exists already).

PYTHON ?= python3
FULL ?= 1
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test coverage real-servers matrix cases soak thorough lint docs bench bench-check fleet clean

help:
	@echo "make demo    start Gunicorn with 4 workers, send 2,000 requests, stop it, count all 10,000 events"
	@echo "make test    run the test suite on all cores, but for what takes long"
	@echo "make coverage  which branches the test suite takes, in all processes that it starts; fails below 95 %"
	@echo "make matrix  what takes long: every pair of server, worker class, ending and set-up, real Loki servers"
	@echo "make cases   takes out each protection against a known field failure, and demands that a test misses it"
	@echo "make soak    what is killed, at length: also hundreds of kills under a scraper, and 5,000 crashes of the ring; all of the matrix;"
	@echo "             make soak FULL= does it in two minutes"
	@echo "make thorough  what is left of any value: 20,000 examples, and what huge ones cost"
	@echo "make lint    ruff check, ruff format --check, mypy, pyright for code as users write it"
	@echo "make docs    the documentation as a web site in build/docs; a warning is an error"
	@echo "make bench   fapilog beside its peers, in a quarter of an hour"
	@echo "make bench-check  whether the promised ratios hold"
	@echo "make fleet   1,000 hosts of 16 workers through an outage of an hour, in virtual time; make fleet HOSTS=100 is shorter"
	@echo "make clean   remove .venv, caches and builds"
	@echo ""
	@echo "Each creates $(VENV) and installs by itself. Needs Python >= 3.11: make PYTHON=/path/to/python ..."

demo: $(VENV)/.installed-demo
	@$(PY) examples/gunicorn/demo.py

test: $(VENV)/.installed-test
	$(PY) -m pytest -n auto

coverage: $(VENV)/.installed-dev
	@rm -rf build/coverage && mkdir -p -m 1777 build/coverage # root's tests start processes of others
	COVERAGE_FILE=$(CURDIR)/build/coverage/data $(PY) -m coverage run -m pytest -n auto -m "not real and not soak"
	@cd build/coverage && COVERAGE_FILE=data ../../$(PY) -m coverage combine -q --rcfile=../../pyproject.toml
	@COVERAGE_FILE=build/coverage/data $(PY) -m coverage report

# VictoriaLogs, a Collector and Prometheus, where there is what makes or fetches them; what needs them is skipped otherwise.
real-servers: $(VENV)/.installed-test
	@$(PY) -m tests.real.install
	@$(PY) -m tests.real.install_collector
	@$(PY) -m tests.real.install_prometheus

# What `make soak` has is left out.
matrix: real-servers
	$(PY) -m pytest -n auto -m "(matrix or real) and not soak" $(SOAK:%=--ignore=%)

SOAK := tests/chaos tests/real/test_kills.py tests/test_journal_model.py tests/servers/test_board.py

soak: real-servers
	FAPILOG_TEST_FULL=$(FULL) $(PY) -m pytest -m "$(if $(FULL),,not soak)" -n $(if $(FULL),0,auto) -o faulthandler_timeout=900 $(SOAK)
	$(if $(FULL),$(PY) -m pytest -m soak -n auto -o faulthandler_timeout=900 $(SOAK:%=--ignore=%))

# Each field failure's protection is taken out of a copy, and a test has to miss it.
cases: $(VENV)/.installed-test
	$(PY) -m tests.protections

thorough: $(VENV)/.installed-test
	FAPILOG_TEST_FULL=1 $(PY) -m pytest -n auto -m "" -o faulthandler_timeout=1800 tests/test_hostile_values.py tests/test_value_costs.py tests/test_redaction.py tests/test_memory.py

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy
	$(PY) -m pyright --pythonpath $(PY)

# The source directory is the root, so that links between the pages are the same on a code host.
docs: $(VENV)/.installed-docs
	$(PY) -m sphinx -W --keep-going -n -q -c docs . build/docs
	@echo "open build/docs/index.html"

bench: $(VENV)/.installed-bench
	@$(PY) -m benchmarks.bench

bench-check: $(VENV)/.installed-bench
	@$(PY) -m benchmarks.check

HOSTS := 1000

fleet: $(VENV)/.installed-demo
	@$(PY) -m benchmarks.fleet $(HOSTS)

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .bench
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps make a second run start at once; a changed pyproject.toml installs again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	    echo "fapilog needs Python >= 3.11, but '$(PYTHON)' is: $$($(PYTHON) --version 2>&1 || true)" >&2; \
	    echo "Name another one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@echo "creating $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed-demo: $(VENV)/.created pyproject.toml
	@echo "installing fapilog (editable) with Gunicorn and FastAPI into $(VENV)"
	@$(PIP) -e '.[all]'
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.created pyproject.toml
	@echo "installing what builds the documentation into $(VENV)"
	@$(PIP) -e '.[docs]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.created pyproject.toml
	@echo "installing fapilog (editable) and its peers into $(VENV)"
	@$(PIP) -e '.[all,bench]'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.created pyproject.toml
	@echo "installing fapilog (editable) and what its tests need into $(VENV)"
	@$(PIP) -e '.[all,test]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@echo "installing fapilog (editable) with the test and lint tools into $(VENV)"
	@$(PIP) -e '.[all,test,lint,build]'
	@touch $@
