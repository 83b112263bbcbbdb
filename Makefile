# The commands a person needs. Each sets up what it uses in .venv; the first takes two minutes, later ones start at once.
#   make demo       the loss explained, then a classifier trained on real data and scored
#   make words      a next-word model trained through the linear head on the docstrings of Python's own library
#   make examples   a student that learns from a teacher, a policy that learns from its rewards: examples-output/
#   make test       the tests, all but those of the adapters and the core's own
#   make test-torch the tests of crossentropy.torch, and PyTorch's own of its losses; TORCH_INDEX chooses another index
#   make test-distributed  those of crossentropy.torch.distributed, on several processes
#   make test-jax   the tests of crossentropy.jax, and optax's own of its losses
#   make test-page  the tests of the live page, in a browser (Debian: nodejs npm chromium)
#   make test-core  how much stack the core takes
#   make test-all   all tests but those of JAX that are marked slow, and the fuzzers for a minute each
#   make fuzz       generated problems, files and arguments, until interrupted or for FUZZ_SECONDS=…
#   make coverage   the lines and branches of the Python code that the tests reach, adapters included
#   make bench      timings beside other libraries (those installed in .venv)
#   make bench-adapters  crossentropy.torch and crossentropy.jax beside torch and optax (those installed in .venv)
#   make bench-head the linear head beside torch and the matrix products alone
#   make bench-distributed  a vocabulary split over one to three processes, beside torch's loss_parallel
#   make picture    timings against the numbers of classes and rows, which docs/speed.png shows
#   make bench-commands  time and disk that make demo, test and words take in a fresh clone
#   make compare    what other libraries return where digits are lost (those installed in .venv)
#   make accuracy   errors against mpmath
#   make results    all of these anew, some two hours: docs/results.json, from which make docs fills the pages
#   make test-neon  the same bits on ARM: cross-compiled, run under qemu (Debian: g++-aarch64-linux-gnu qemu-user)
#   make sanitize   the core under ASan, UBSan and TSan, driven by generated problems, and the lines that these reach
#   make sanitize-short  the core under ASan and UBSan alone, for half a minute
#   make docs       fills README.md and the pages of docs/ with what the library computes and docs/results.json
#   make page       the live page of crossentropy explore, built from its sources (Debian: nodejs npm)
#   make site       the pages, the API and the examples as a site: build/site/index.html
#   make test-site  that site built without a warning; its links, its formulas, what it loads
#   make lint       ruff, mypy, clang-format, and the core without compiler warnings, each of its headers alone
#   make wheel      the wheel for this Python and this Linux in dist/, tested in an environment without a compiler
#   make develop    for those who change the library: an editable install in .venv, with what tests and lint need
#   make clean      removes .venv and everything built

PYTHON ?= python3
BIN := .venv/bin
SOURCES := pyproject.toml CMakeLists.txt $(shell find src -name node_modules -prune -o -type f -not -name '*.pyc' -not -name '_core.pyi' -print)
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# The types of the compiled module, where mypy reads them.
STUB = cp "$$(dirname "$$($(BIN)/python -c 'import crossentropy._core as c; print(c.__file__)')")/_core.pyi" \
  src/crossentropy

# Tests that need an adapter's framework.
DISTRIBUTED_TESTS := tests/torch/distributed
TORCH_TESTS := tests/torch tests/attack/test_torch.py tests/conformance/test_torch.py
JAX_TESTS := tests/jax tests/attack/test_jax.py tests/conformance/test_optax.py
# Tests that need node, most of them a browser too.
PAGE_TESTS := tests/page $(addprefix tests/explore/,test_build.py test_pitfalls.py test_state.py test_vectors.py)
EXPLORE := src/crossentropy/explore
# Tests that `make test` leaves out: those, and those of the built site.
OTHER_TESTS := $(TORCH_TESTS) $(JAX_TESTS) $(PAGE_TESTS) tests/site

.DEFAULT_GOAL := help
.PHONY: help demo words examples test test-torch test-distributed test-jax test-page test-core test-all fuzz fuzz-front-end fuzz-readers fuzz-arguments coverage bench bench-adapters bench-head bench-distributed bench-commands picture compare accuracy results test-neon sanitize sanitize-short page docs site test-site lint wheel develop clean

help:
	@sed -n 's/^#   //p' Makefile

# What the README's apt line installs, or that line.
.venv/created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' && \
	 $(PYTHON) -c 'import ensurepip' && \
	 $(PYTHON) -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' && \
	 command -v $(firstword $(CXX)) >/dev/null && command -v git >/dev/null || \
	 { echo "crossentropy needs Python 3.11, its venv and headers, git and a C++ compiler:"; \
	   echo "  sudo apt install git make g++ python3-venv python3-dev"; exit 1; } >&2
	$(PYTHON) -m venv .venv
	$(PIP) install 'pip>=25.1'  # the first that knows --group
	@touch $@

# torch from the index that TORCH_INDEX names, if it names one; else it comes with the group.
.venv/torch: .venv/created
	$(if $(TORCH_INDEX),$(PIP) install --index-url $(TORCH_INDEX) --group tested-torch)
	@touch $@

# What a stamp installs: the package with these extras, and the dependency group that it names; .venv/with-demo the
# package alone, some the group alone. Once `make develop` has run, the package stays editable.
PACKAGE := .[demo]
.venv/with-lint: PACKAGE := .[cli]
.venv/with-bench: PACKAGE := .
.venv/with-coverage .venv/with-sanitize .venv/with-wheel: PACKAGE :=
EDITABLE = $(shell test ! -e .venv/with-develop || echo --editable)
.venv/with-develop: EDITABLE := --editable

.venv/with-test-torch: .venv/torch
.venv/with-%: .venv/created $(SOURCES)
	$(PIP) install $(if $(PACKAGE),$(EDITABLE) '$(PACKAGE)') $(if $(filter-out demo,$*),--group $*)
	@touch $@

develop: .venv/with-develop
	$(STUB)

demo: .venv/with-demo
	@mkdir -p demo-output
	$(BIN)/crossentropy explain --names cat,dog,bird --plot demo-output/explain.png
	$(BIN)/crossentropy explore -o demo-output/explore.html
	$(BIN)/python examples/digits.py demo-output
	$(BIN)/crossentropy eval --hidden demo-output/hidden.npy --head demo-output/head.npy demo-output/targets.npy

words: .venv/with-demo
	$(BIN)/python examples/word_model.py words-output
	$(BIN)/crossentropy eval --hidden words-output/hidden.npy --head words-output/head.npy \
	  --bias words-output/bias.npy words-output/targets.npy

examples: .venv/with-demo
	$(BIN)/python examples/distil.py examples-output
	$(BIN)/python examples/policy_gradient.py examples-output

test: .venv/with-test
	$(BIN)/python -m pytest tests $(addprefix --ignore ,$(OTHER_TESTS))

# PyTorch's test cases change settings of other tests: they have a process of their own.
test-torch: .venv/with-test-torch
	$(BIN)/python -m pytest $(filter-out tests/conformance%,$(TORCH_TESTS)) --ignore $(DISTRIBUTED_TESTS)
	$(BIN)/python -m pytest tests/conformance/test_torch.py

test-distributed: .venv/with-test-torch
	$(BIN)/python -m pytest $(DISTRIBUTED_TESTS)

# They take most of their time in compilers: the short run leaves LLVM's optimizations out.
test-jax: .venv/with-test-jax
	$(if $(SHORT),JAX_DISABLE_MOST_OPTIMIZATIONS=1) $(BIN)/python -m pytest $(if $(SHORT),-m 'not slow') $(JAX_TESTS)

test-page: .venv/with-page $(EXPLORE)/node_modules/.package-lock.json
	$(BIN)/python -m pytest $(PAGE_TESTS)

test-core: build/lint/built
	build/lint/stack

# The longest first, three at a time, since some wait for processes of theirs. What they need is installed before, at
# once: each installation builds the package anew.
ALL_TESTS := test test-jax test-torch test-distributed test-page sanitize-short test-site test-core
ALL_GROUPS := test test-torch test-jax page site sanitize fuzz
.venv/with-all: .venv/torch $(SOURCES)
	$(PIP) install $(EDITABLE) '.[demo]' $(addprefix --group ,$(ALL_GROUPS))
	@touch $(addprefix .venv/with-,$(ALL_GROUPS)) $@

test-all: .venv/with-all build/lint/built $(EXPLORE)/node_modules/.package-lock.json
	$(MAKE) -j3 --output-sync=target SHORT=1 $(ALL_TESTS)
	$(MAKE) fuzz FUZZ_SECONDS=60

fuzz: .venv/with-fuzz
	$(MAKE) -j3 fuzz-front-end fuzz-readers fuzz-arguments

fuzz-front-end:
	$(BIN)/python -W error tests/fuzz/front_end.py $(if $(FUZZ_SECONDS),--seconds $(FUZZ_SECONDS)) --seed $$(date +%s)

fuzz-readers fuzz-arguments: fuzz-%:
	$(BIN)/python tests/fuzz/$*.py -max_total_time=$(or $(FUZZ_SECONDS),0)

coverage: .venv/with-test-torch .venv/with-test-jax .venv/with-coverage
	@mkdir -p build/coverage
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest -q tests $(addprefix --ignore ,$(OTHER_TESTS))
	$(BIN)/coverage run -m pytest -q $(filter-out tests/conformance%,$(TORCH_TESTS))
	$(BIN)/coverage run -m pytest -q $(JAX_TESTS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

bench: .venv/with-bench
	$(BIN)/python benchmarks/run.py
	$(BIN)/python benchmarks/family.py

bench-adapters: .venv/with-bench
	$(BIN)/python benchmarks/run.py --adapters

compare: .venv/with-bench
	$(BIN)/python benchmarks/compare.py

bench-head: .venv/with-bench
	$(BIN)/python benchmarks/head.py

bench-distributed: .venv/with-bench
	$(BIN)/python benchmarks/distributed.py

picture: .venv/with-bench
	$(BIN)/python benchmarks/run.py --picture --rounds 1

bench-commands: .venv/with-bench
	$(BIN)/python benchmarks/commands.py

accuracy: .venv/with-test
	$(BIN)/python tests/accuracy.py build/results/accuracy.json

# One after another: what runs beside a timing would slow it.
results:
	$(MAKE) -j1 bench bench-adapters bench-head bench-distributed picture compare accuracy bench-commands
	$(BIN)/python benchmarks/results.py

test-neon: .venv/with-lint
	$(BIN)/cmake -S tests/core -B build/native -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) >/dev/null
	$(BIN)/cmake --build build/native
	$(BIN)/cmake -S tests/core -B build/neon -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ >/dev/null
	$(BIN)/cmake --build build/neon
	tests/core/same_bits.sh build/native/bits 'qemu-aarch64 -L /usr/aarch64-linux-gnu build/neon/bits'

sanitize: .venv/with-sanitize
	tests/core/sanitize.sh $(abspath $(BIN))

sanitize-short: .venv/with-sanitize
	MAKEFLAGS= tests/core/sanitize.sh $(abspath $(BIN)) 10 address,undefined  # else ninja looks for make's jobserver

# What builds the page, as package-lock.json has it.
$(EXPLORE)/node_modules/.package-lock.json: $(EXPLORE)/package-lock.json
	@command -v node >/dev/null && command -v npm >/dev/null || \
	 { echo "the live page needs node and npm: sudo apt install nodejs npm"; exit 1; } >&2
	cd $(EXPLORE) && npm ci --loglevel=error
	@touch $@

page: .venv/with-docs $(EXPLORE)/node_modules/.package-lock.json
	$(BIN)/python $(EXPLORE)/build.py

docs: .venv/with-docs
	$(BIN)/python docs/build.py

# Everything anew: what an earlier build has left would hide a page that is gone.
site: .venv/with-site
	rm -rf build/site docs/api docs/examples
	$(BIN)/python -m sphinx -qEW --keep-going -c docs -d build/site-doctrees . build/site
	@echo "the site is build/site/index.html"

test-site: site
	$(BIN)/python -m pytest tests/site

lint: .venv/with-lint build/lint/built
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(STUB)
	$(BIN)/mypy
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(BIN)/clang-format --dry-run -Werror $(wildcard src/core/*.?pp src/core/kernels/*.?pp src/bindings/*.?pp tests/core/*.?pp)

# The core and its programs, without a warning; then each header of the core alone.
build/lint/built: .venv/with-lint $(SOURCES) $(wildcard tests/core/*)
	$(BIN)/cmake -S tests/core -B build/lint -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DCROSSENTROPY_WERROR=ON >/dev/null
	$(BIN)/cmake --build build/lint
	$(BIN)/cmake --build build/lint --target all_verify_interface_header_sets
	@touch $@

# PATH names nothing but the new environment: its tests find no compiler, no cmake and no make.
wheel: .venv/with-wheel
	rm -rf build/wheel dist
	$(PIP) wheel --no-deps --wheel-dir build/wheel .
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/auditwheel repair --wheel-dir dist build/wheel/*.whl
	$(PYTHON) -m venv build/wheel/venv
	wheel=$$(echo dist/*.whl) && export PATH=$(abspath build/wheel/venv/bin) && \
	  python -m pip --disable-pip-version-check -q install --only-binary :all: $$wheel 'pytest>=8' && \
	  exec /bin/sh tests/installed.sh

clean:
	rm -rf .venv build dist demo-output words-output examples-output docs/api docs/examples src/crossentropy/_core.pyi $(EXPLORE)/node_modules
