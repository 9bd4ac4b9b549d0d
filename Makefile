# Two commands do everything, set-up included; what they built is used again:
#   make demo   optimize a pruned network and time it against the original
#   make test   lint, type check and every test
#   make test-aarch64   the tests of the kernels on every processor of AArch64 that QEMU has a model of
# PYTHON=python3.12 picks another interpreter.

PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python -m
INSTALL := $(RUN) pip install --quiet --disable-pip-version-check --config-settings=cmake.define.SCALPEL_WERROR=ON
DEMO := demo
NETWORK ?= alexnet-fc
SPARSITY ?= 0.9

# An editable install follows every change to Python files; these need a new build.
BUILT_FROM := pyproject.toml CMakeLists.txt $(shell find runtime_ext -type f)

.PHONY: help demo test test-aarch64 clean

help:
	@sed -n 's/^#  *make /make /p' Makefile

demo: $(VENV)/installed-demo
	@mkdir -p $(DEMO)
	$(RUN) models build $(NETWORK) $(DEMO)/pruned.onnx --sparsity $(SPARSITY) --group-shape 1x8
	$(VENV)/bin/scalpel-opt $(DEMO)/pruned.onnx $(DEMO)/optimized.onnx --target cpu --report $(DEMO)/report.html
	$(VENV)/bin/scalpel-bench $(DEMO)/pruned.onnx $(DEMO)/optimized.onnx

test: $(VENV)/installed build/types
	$(RUN) ruff check .
	$(RUN) ruff format --check .
	cd build/types && ../../$(RUN) mypy --config-file ../../pyproject.toml -p scalpel_graph -p models -p benchmarks
	$(RUN) pytest -n auto --dist worksteal

test-aarch64: $(VENV)/installed
	CI=true SCALPEL_EVERY_CPU=true $(RUN) pytest tests/runtime_ext -k 'neon or aarch64 or cortex or max'

clean:
	rm -rf $(VENV) build $(DEMO)

$(VENV)/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "make: Python 3.11 or newer is needed, and $(PYTHON) is not; try make PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: $(PYTHON) cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || \
	  { echo "make: no C++ compiler found; on Debian: apt-get install g++" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: $(VENV)/created $(BUILT_FROM)
	$(INSTALL) --editable '.[test]'
	@touch $@ $(VENV)/installed-demo

# Without what only the tests need, PyTorch above all.
$(VENV)/installed-demo: $(VENV)/created $(BUILT_FROM)
	$(INSTALL) --editable .
	@touch $@

# The source tree as it is when installed (passes inside scalpel_graph), for the type checker.
build/types: $(VENV)/installed $(wildcard scalpel_graph/*)
	@rm -rf $@ && mkdir -p $@/scalpel_graph
	@ln -s "$(CURDIR)"/models "$(CURDIR)"/benchmarks $@
	@ln -s "$(CURDIR)"/scalpel_graph/* "$(CURDIR)"/passes $@/scalpel_graph
