# `make demo` and `make test` set themselves up: a .venv of their own, versions from constraints.txt.
# Where pip would take PyTorch's CUDA build and you want the small one for CPUs:
#   make demo TORCH_INDEX="--extra-index-url https://download.pytorch.org/whl/cpu"
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-slow check format setup clean

setup: $(VENV)/.ready

$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit("mlopt needs Python 3.11 or newer") if sys.version_info < (3, 11) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(TORCH_INDEX) --editable '.[onnx,cpu,rtx,view,images,dev]'
	touch $@

demo: setup
	$(BIN)/python -m recipes.demo --out demo

# Two at once: most tests keep one core busy. What measures is compared within one run.
test: setup
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

test-slow: setup
	$(BIN)/python -m pytest -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) demo *-mlopt
