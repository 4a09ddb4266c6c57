# make fuzz    look for violations in amx-v1 for a minute; ARGS="--revision v7.3 --time 10m" looks elsewhere,
#              ARGS="--profile ci" as a CI job does
# make test    run the tests
# make replay  judge every program of the corpus
# make lint    style and types
# make dist    build what is to be published, if SECURITY.md has nothing that is not reported
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.PHONY: fuzz test replay lint dist

# Without ARGS it shows what fuzzing is for, and amx-v1 is known to be broken: exit code 1, something was found, is success.
# With ARGS it is somebody's job and fails where that does.  make's own exit code is 2 then; xfdfuzz' is in its message.
fuzz: $(VENV)/.installed
	$(BIN)/xfdfuzz fuzz $(ARGS) $(if $(strip $(ARGS)),,|| test $$? -eq 1)

# worksteal gives tests of a file to one process, which shares what they have in common
test: $(VENV)/.installed
	$(BIN)/python -m pytest -q -rs -n auto --dist worksteal $(ARGS)

replay: $(VENV)/.installed
	$(BIN)/xfdfuzz replay corpus $(ARGS)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(VENV)/.installed
	$(BIN)/python -m ci.unreported
	$(BIN)/python -m build --no-isolation

# --group needs pip 25.1
$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable . --group dev
	touch $@
