# Everything a developer types. `make` alone explains.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
.PHONY: help setup build develop wheel stubs demo test test-all suites test-rust test-python check-without-ffmpeg lint bench gpu-kit golden oracle

PYTHON := .venv/bin/python
PROGRAMS := $(or $(CARGO_TARGET_DIR),target)/release
# One profile for everything, so that libtorch's bindings are built once.
CARGO_FLAGS := --release
# The extension for Python is built by maturin, on top of the same crates.
CRATES := --workspace --exclude hlrp-py
MATURIN := VIRTUAL_ENV="$(CURDIR)/.venv" .venv/bin/maturin
WHEELS := target/wheels
# The decoders that the wheel carries; FFMPEG_SOURCE names their source where apt-get cannot fetch it.
FFMPEG := target/ffmpeg
FFMPEG_SOURCE :=
# Tests that need minutes each are left out unless SLOW is set.
SLOW :=

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what tests and lints need and this machine lacks: apt packages, libtorch and Python packages in .venv; SLOW=yes for the slow tests too
	@SLOW=$(SLOW) scripts/setup.sh test

build: ## build all programs into target/release
	@scripts/setup.sh run
	cargo build $(CARGO_FLAGS) $(CRATES)

develop: ## build the Python package hlrp_rs and install it into .venv, editable
	@scripts/setup.sh demo
	@$(MAKE) build
	@scripts/stage.sh "$(PROGRAMS)"
	@scripts/develop.sh $(CARGO_FLAGS)

wheel: ## build the wheels of hlrp_rs, with the FFmpeg that it needs, and of the LeRobot plugin: WHEELS=<folder> for another folder than target/wheels
	@scripts/setup.sh wheel
	@$(MAKE) build
	@scripts/ffmpeg.sh $(FFMPEG) $(FFMPEG_SOURCE)
	@scripts/stage.sh "$(PROGRAMS)" $(FFMPEG)
	$(MATURIN) build $(CARGO_FLAGS) --compatibility linux --out target/wheel-without-ffmpeg
	@scripts/wheel.sh target/wheel-without-ffmpeg $(FFMPEG) $(WHEELS)
	$(PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEELS) ./lerobot_policy_hlrp

stubs: setup develop ## write the type stubs of the extension: python/hlrp_rs/_core.pyi
	$(PYTHON) scripts/stubs.py

demo: develop ## from video to rollouts: all three stages on Meta-World, ten minutes on two cores: ARGS="seed=7" changes values
	$(PROGRAMS)/hlrp pipeline experiment=pipeline_tiny $(ARGS)

test: suites ## all checks, and all tests but the slow ones

test-all: ## all checks and tests, the slow ones included
	@$(MAKE) suites SLOW=yes

suites: setup
	@scripts/suites.sh $(MAKE) SLOW=$(SLOW) -- lint check-without-ffmpeg test-rust test-python

test-rust: setup build ## tests of the crates: SLOW=yes for the slow ones too
	cargo test $(CARGO_FLAGS) $(CRATES) $(if $(SLOW),-- --include-ignored)

test-python: setup develop ## end-to-end and conformance tests: ARGS="-k resume" for some of them, SLOW=yes for the slow ones too
	cargo build $(CARGO_FLAGS) $(CRATES) --examples
	$(PYTHON) -m pytest tests $(if $(SLOW),,-m "not slow") $(ARGS)

check-without-ffmpeg: setup ## the programs compile on a machine that has no FFmpeg
	cargo check $(CARGO_FLAGS) --workspace --no-default-features

lint: setup ## formats and lints of Rust, Python and shell files
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) --workspace --no-deps --quiet
	$(PYTHON) -m ruff check --quiet python lerobot_policy_hlrp tests scripts
	$(PYTHON) -m ruff format --check --quiet python lerobot_policy_hlrp tests scripts
	bash -n scripts/*.sh scripts/*/*.sh containers/*.sh .ci/run

bench: setup develop ## loader, training and policy benchmarks beside LeRobot, Lance, tfds and FFmpeg: ARGS="--only peers" for a part of them
	cargo build $(CARGO_FLAGS) $(CRATES) --examples
	$(PYTHON) tests/bench/run.py $(ARGS)

# A build folder of its own: the programs in $(PROGRAMS) keep their FFmpeg.
gpu-kit: KIT_BUILD := target/gpu-kit-build
gpu-kit: setup ## pack target/gpu-kit: checks and benchmarks for a bare machine with an NVIDIA driver and torch (docs/benchmarks.md)
	cargo build $(CARGO_FLAGS) --target-dir $(KIT_BUILD) --no-default-features -p hlrp-laq -p hlrp-vla -p hlrp-golden -p hlrp-py --lib --bins --example bench_step --example bench_policy
	scripts/gpu-kit/pack.sh target/gpu-kit "$(KIT_BUILD)/release"

golden: build ## compare with reference numbers: DIR=<folder of cases> [CASES=<glob>]
	@[[ -n "$(DIR)" ]] || { echo 'error: DIR is not set'; echo 'hint: make golden DIR=tests/golden CASES="laq_*"'; exit 2; }
	$(PROGRAMS)/hlrp-golden "$(DIR)" $(if $(CASES),--cases '$(CASES)')

oracle: build ## compare a dataset as we read it with what LeRobot reads: DATASET=<folder> ORACLE=<file>
	@[[ -n "$(DATASET)" && -n "$(ORACLE)" ]] || { echo 'error: DATASET or ORACLE is not set'; \
	  echo 'hint: make oracle DATASET=tests/data/metaworld_mt5 ORACLE=tests/data/oracle_metaworld_mt5.jsonl'; exit 2; }
	cargo build $(CARGO_FLAGS) --quiet $(CRATES) --example oracle
	$(PROGRAMS)/examples/oracle "$(DATASET)" "$(ORACLE)"
