# Everything a newcomer needs. `make demo` and `make test` install first when needed; nothing else is required
# than Python 3.11 or newer with pip. Paths are relative, so a clone may lie in a folder with spaces.
PYTHON ?= python3
BIN := .venv/bin
unexport VIRTUAL_ENV PYTHONPATH PYTHONHOME

.PHONY: install demo reference test check slow clean

install: .venv/installed

.venv/installed: pyproject.toml constraints.txt tools/install.py
	$(PYTHON) tools/install.py
	touch .venv/installed

demo: install
	$(BIN)/trimtab demo

reference: install
	$(BIN)/python benchmarks/reference.py

test: install
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

slow: install
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow

check: install
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/lint-imports
	$(BIN)/pyrefly check

clean:
	rm -rf .venv
