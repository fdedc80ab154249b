# Everything a developer runs. The first target used sets up .venv; it is redone when its inputs change.

PYTHON ?= python3.11
PIP_FLAGS ?=

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input -qq
INSTALL := $(PIP) install $(PIP_FLAGS) -c constraints.txt
KERNEL_SOURCES := $(wildcard eventnet/kernels/cpu/*.cpp eventnet/kernels/cpu/*.h eventnet/kernels/cpu/CMakeLists.txt)
KERNELS := $(shell for c in "$$CXX" c++ g++ clang++; do [ -n "$$c" ] && command -v $$c >/dev/null && echo ON && exit; done; echo OFF)
JOBS ?= auto
ANY_TEST := -m "slow or not slow" --timeout 1800

.PHONY: help demo test check lava peers browser lint wheel clean
.DELETE_ON_ERROR:

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

demo: $(VENV)/.stamp ## train on real events, check the gradient, draw what was learnt
	@$(BIN)/eventnet demo

test: $(VENV)/.stamp ## the test suite (at most ten minutes on two cores)
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal

check: $(VENV)/.stamp ## the test suite with the long grids
	@$(BIN)/python -m pytest -n $(JOBS) --dist worksteal $(ANY_TEST)

lint: $(VENV)/.stamp ## ruff, then mypy on what a user would install
	@echo "lint: ruff check"
	@$(BIN)/ruff check .
	@echo "lint: ruff format --check"
	@$(BIN)/ruff format --check .
	@echo "lint: mypy on the installed wheel"
	@rm -rf build/lint && mkdir -p build/lint
	@$(PIP) wheel --no-deps --no-build-isolation -C cmake.define.EVENTNET_KERNELS=OFF -w build/lint .
	@$(PIP) install --no-deps --target build/lint/site build/lint/eventnet-*.whl
	@cd build/lint/site && ../../../$(BIN)/mypy --config-file ../../../pyproject.toml \
		--cache-dir ../../../.mypy_cache -p eventnet

wheel: $(VENV)/.stamp ## dist/eventnet-*.whl, for any CPU of this kind
	@$(PIP) wheel --no-deps --no-build-isolation -C cmake.define.EVENTNET_KERNELS=$(KERNELS) -w dist .
	@ls dist/*.whl

clean: ## remove what was built, keep .venv
	@rm -rf build dist .pytest_cache .hypothesis .mypy_cache .ruff_cache
	@find eventnet hardware tests benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

# The packages first (minutes, rarely), then the project and its kernels (seconds, whenever the C++ changes).

$(VENV)/.packages: pyproject.toml constraints.txt
	@echo "setup: $(VENV) with $(PYTHON)"
	@$(PYTHON) -m venv $(VENV)
	@echo "setup: torch"
	@$(INSTALL) torch
	@echo "setup: build tools"
	@$(INSTALL) cmake nanobind ninja scikit-build-core
	@touch $@

$(VENV)/.stamp: $(VENV)/.packages $(KERNEL_SOURCES)
	@if [ $(KERNELS) = ON ]; then echo "setup: eventnet, its dependencies and its compiled kernels"; \
	else echo "setup: NO C++ COMPILER FOUND: eventnet without compiled kernels, the slower reference backend serves" \
	"(install g++ or clang++, then rm $(VENV)/.stamp)"; fi
	@$(INSTALL) --no-build-isolation -C build-dir=build/editable -C cmake.define.EVENTNET_KERNELS=$(KERNELS) -e ".[test,dev]"
	@touch $@

# What eventnet is measured and checked against. --no-deps where a package asks for what it does not need here; Lava asks for
# Python < 3.11 and NumPy < 2 without need, see hardware/lava_template.py.

lava: $(VENV)/.stamp ## install Lava 0.10.0, which exported networks are checked in
	@echo "lava: what it needs, then lava-nc"
	@$(INSTALL) asteval networkx
	@$(INSTALL) --no-deps --ignore-requires-python lava-nc==0.10.0

peers: $(VENV)/.stamp lava ## install the libraries and simulators that the benchmarks compare with
	@echo "peers: simulators, and what the libraries need"
	@$(INSTALL) brian2==2.9.0 loguru nest-simulator==3.10.0 nir pbr snntorch==1.0.0
	@echo "peers: libraries"
	@$(INSTALL) --no-deps DCLS==0.1.1 neurobench==2.3.0 nirtorch==2.6 norse==1.1.0 sinabs==3.1.3 spikingjelly==2.0.0

# The reports are looked at in it by tests/test_browser.py, which is skipped where there is none.

browser: ## install Chromium, in which the reports are tested (Debian, as root)
	@for name in chromium chromium-browser google-chrome; do \
	command -v $$name >/dev/null && echo "browser: $$name is there" && exit; done; \
	if command -v apt-get >/dev/null && [ -e /etc/debian_version ] && [ "$$(id -u)" = 0 ]; then \
	echo "browser: chromium"; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq chromium >/dev/null; \
	else echo "browser: install Chromium or Chrome with your system's tools (Debian: sudo apt-get install chromium)," \
	"or name one in EVENTNET_BROWSER" >&2; exit 1; fi
