# make demo: audit targets trained on real faces. make test: lint, doctests, tests. make types: not clean yet.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OPENBLAS_NUM_THREADS := 1

.PHONY: demo test lint types tests doctests clean

demo: $(VENV)/.stamp
	$(BIN)/jaxmia attack configs/demo.yaml --out runs/demo

test: lint doctests tests

lint: $(VENV)/.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.stamp
	$(BIN)/pyright --pythonpath $(BIN)/python jaxmia

doctests: $(VENV)/.stamp
	JAX_PLATFORMS=cpu $(BIN)/python -m pytest -q --doctest-modules jaxmia

tests: $(VENV)/.stamp
	$(BIN)/python -m pytest -n 2 tests

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@if command -v uv >/dev/null; then \
	  uv pip install -q --python $(BIN)/python -c constraints.txt -e ".[images,tabular,dp,dev]"; \
	else \
	  $(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e ".[images,tabular,dp,dev]"; \
	fi
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
