# make demo: audit classifiers of real faces and records. make test: lint, types, doctests, tests in minutes.
# make pages: docs/ from the results and the cards. make test-all: the same with the tests marked nightly, which take long.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo pages test test-all lint types tests tests-all doctests clean

demo: $(VENV)/.stamp
	$(BIN)/jaxmia attack configs/demo_records.yaml --out runs/demo_records
	$(BIN)/jaxmia attack configs/demo.yaml --out runs/demo
	@echo "reports: runs/demo/report.html (faces), runs/demo_records/report.html (records)"

pages: $(VENV)/.stamp
	JAX_PLATFORMS=cpu $(BIN)/python docs/generate.py

test: lint types doctests tests

test-all: lint types doctests tests-all

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.stamp
	$(BIN)/pyright --pythonpath $(BIN)/python jaxmia

doctests: $(VENV)/.stamp
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q --doctest-modules jaxmia

tests: $(VENV)/.stamp
	$(BIN)/python -m pytest -n 2 -m "not nightly" tests

tests-all: $(VENV)/.stamp
	$(BIN)/python -m pytest -n 2 tests

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(BIN)/python -c constraints.txt -e ".[images,tabular,dp,es,ray,analysis,dev]"; \
	else \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[images,tabular,dp,es,ray,analysis,dev]"; \
	fi
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
