# make install  an environment in .venv with everything
# make sweep    install, then the main job on a generated corpus
# make test     install, then all checks and tests
# make quick    the same without the tests that take minutes
# make fuzz     five thousand generated inputs through the commands, others each time
# make chaos    faults done to running sweeps, and a table of what was lost
SHELL := bash
.DELETE_ON_ERROR:
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# Three processes for two cores, since many tests wait for Ray or for a server; the one that has
# nothing left takes over half of what another has.
PYTEST := $(BIN)/python -m pytest -n 3 --dist worksteal
# Some set it: every process that a test starts would then compile all modules again.
unexport PYTHONDONTWRITEBYTECODE
# Of what pip says, a line a package.
define A_LINE_A_PACKAGE
import sys
for line in sys.stdin:
    words = line.split()
    if line.startswith(("Collecting", "Processing")):
        print(" ", words[1].rpartition("/")[2])
    elif line.startswith("Installing"):
        print("unpacking", len(words) - 3, "packages, which takes a minute or more")
endef
define WHAT_IS_INSTALLED
from importlib.metadata import version as of
parts = ", ".join(f"{name} {of(name)}" for name in ("torch", "ray", "optuna", "mlflow"))
print("installed mmm-search", of("mmm-search"), "with", parts, "in $(VENV); type: $(BIN)/mmm-search quickstart")
endef
export A_LINE_A_PACKAGE
export WHAT_IS_INSTALLED

.PHONY: sweep test quick fuzz chaos check install clean

sweep: $(INSTALLED)
	$(BIN)/mmm-search quickstart

test: check
	$(PYTEST) --durations=20 -m "not chaos"

chaos: $(INSTALLED)
	$(BIN)/python -m benchmarks.chaos

quick: check
	$(PYTEST) -m "not slow"

# One process; FUZZ=500 for fewer. Hypothesis prints how to draw an input that failed again.
FUZZ ?= 5000
fuzz: $(INSTALLED)
	MMM_FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/fuzz -W ignore

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: $$($(PYTHON) --version) is too old; Python 3.11 or newer is needed: make PYTHON=python3.11 ..."; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@set -o pipefail; export PYTHONUNBUFFERED=1; \
		$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt \
		-e '.[search,onnx,demo,s3,server,dev]' | $(BIN)/python -c "$$A_LINE_A_PACKAGE"
	@# Of this one nothing but its weights is read (mmm/encoders/voice.py): what it requires is not needed.
	@echo "  resemblyzer" && $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		-c constraints.txt resemblyzer
	@$(BIN)/python -c "$$WHAT_IS_INSTALLED" > $@ && cat $@

clean:
	rm -rf $(VENV) runs
