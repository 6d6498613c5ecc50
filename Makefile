# make sweep   install, then the main job on a generated corpus
# make test    install, then all checks and tests
# make quick   the same without the tests that take minutes
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: sweep test quick check install clean

sweep: $(INSTALLED)
	$(BIN)/mmm-search quickstart

test: check
	$(BIN)/python -m pytest

quick: check
	$(BIN)/python -m pytest -m "not slow"

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[search,onnx,demo,dev]'
	@touch $@

clean:
	rm -rf $(VENV) runs
