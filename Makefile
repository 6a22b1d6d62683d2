# Everything here needs only Python >= 3.11 and make: each target creates .venv and installs what it needs by itself.
# Another interpreter: make PYTHON=python3.12 test (after `make clean`, if .venv exists already).

PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check install --quiet

.DEFAULT_GOAL := help
.PHONY: help demo test matrix thorough lint bench clean

help:
	@echo "make demo    start Gunicorn with 4 workers, send 2,000 requests, stop it, count all 10,000 events"
	@echo "make test    run the test suite on all cores"
	@echo "make matrix  every server and worker class, every ending, every set-up, hundreds of recycled workers"
	@echo "make thorough  what is left of any value: 20,000 examples, and what huge ones cost"
	@echo "make lint    ruff check, ruff format --check, mypy"
	@echo "make bench   cost of a log call beside structlog + orjson to a file"
	@echo "make clean   remove .venv, caches and builds"
	@echo ""
	@echo "Each creates $(VENV) and installs by itself. Needs Python >= 3.11: make PYTHON=/path/to/python ..."

demo: $(VENV)/.installed-demo
	@$(PY) examples/gunicorn/demo.py

test: $(VENV)/.installed-dev
	$(PY) -m pytest -n auto

matrix: $(VENV)/.installed-dev
	$(PY) -m pytest -n auto -m "" tests/servers/test_matrix.py tests/servers/test_uvicorn.py tests/servers/test_recycling.py

thorough: $(VENV)/.installed-dev
	FAPILOG_TEST_FULL=1 $(PY) -m pytest -n auto -o faulthandler_timeout=600 tests/test_hostile_values.py tests/test_value_costs.py tests/test_redaction.py

lint: $(VENV)/.installed-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

bench: $(VENV)/.installed-dev
	@$(PY) -m benchmarks.bench

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

$(VENV)/.installed-dev: $(VENV)/.created pyproject.toml
	@echo "installing fapilog (editable) with the test and lint tools into $(VENV)"
	@$(PIP) -e '.[all,test,lint,build]'
	@touch $@
