# Everything a developer types. `make` alone explains.
SHELL := /usr/bin/env bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help setup build develop wheel demo test test-rust test-python check-without-ffmpeg lint bench golden oracle

PYTHON := .venv/bin/python
PROGRAMS := $(or $(CARGO_TARGET_DIR),target)/release
# One profile, and always all crates but the Python bridge, so that every command agrees on features: libtorch's bindings are built once.
CARGO_FLAGS := --release
CRATES := --workspace --exclude hlrp-py
WHEELS := target/wheels
# The bridge makes those bindings link Python's part of libtorch, which no program may: it is built alone, with the Python of .venv.
BRIDGE := PATH="$(CURDIR)/.venv/bin:$$PATH" VIRTUAL_ENV="$(CURDIR)/.venv" PYO3_PYTHON="$(CURDIR)/$(PYTHON)"

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-22s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what is missing: apt packages, libtorch and test tools in .venv
	@scripts/setup.sh

build: setup ## build all programs into target/release
	cargo build $(CARGO_FLAGS) $(CRATES)

develop: build ## build the Python package hlrp_rs and install it into .venv, editable
	@scripts/stage.sh "$(PROGRAMS)"
	$(BRIDGE) maturin develop --quiet $(CARGO_FLAGS)

wheel: build ## build the wheels of hlrp_rs and of the LeRobot plugin into target/wheels: WHEELS=<folder> for another place
	@scripts/stage.sh "$(PROGRAMS)"
	$(BRIDGE) maturin build $(CARGO_FLAGS) --compatibility linux --out $(WHEELS)
	$(PYTHON) -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir $(WHEELS) ./lerobot_policy_hlrp

demo: develop ## from video to rollouts: all three stages on Meta-World, ten minutes on two cores: ARGS="seed=7" changes values
	$(PROGRAMS)/hlrp pipeline experiment=pipeline_tiny $(ARGS)

test: lint check-without-ffmpeg test-rust test-python ## all checks and tests

test-rust: build ## tests of the crates
	cargo test $(CARGO_FLAGS) $(CRATES)

test-python: develop ## end-to-end and conformance tests: ARGS="-k resume" for some of them
	cargo build $(CARGO_FLAGS) $(CRATES) --examples
	$(PYTHON) -m pytest tests $(ARGS)

check-without-ffmpeg: setup ## the programs compile on a machine that has no FFmpeg
	cargo check $(CARGO_FLAGS) $(CRATES) --no-default-features

lint: setup ## formats and lints of Rust, Python and shell files
	cargo fmt --all --check
	cargo clippy $(CARGO_FLAGS) $(CRATES) --all-targets -- -D warnings
	$(BRIDGE) cargo clippy $(CARGO_FLAGS) -p hlrp-py -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) $(CRATES) --no-deps --quiet
	$(BRIDGE) RUSTDOCFLAGS="-D warnings" cargo doc $(CARGO_FLAGS) -p hlrp-py --no-deps --quiet
	$(PYTHON) -m ruff check --quiet python lerobot_policy_hlrp tests scripts
	$(PYTHON) -m ruff format --check --quiet python lerobot_policy_hlrp tests scripts
	bash -n scripts/*.sh .ci/run

bench: develop ## loader, training and policy benchmarks beside LeRobot and FFmpeg
	cargo build $(CARGO_FLAGS) $(CRATES) --examples
	$(PYTHON) tests/bench/run.py $(ARGS)

golden: build ## compare with reference numbers: DIR=<folder of cases> [CASES=<glob>]
	@[[ -n "$(DIR)" ]] || { echo 'error: DIR is not set'; echo 'hint: make golden DIR=tests/golden CASES="laq_*"'; exit 2; }
	$(PROGRAMS)/hlrp-golden "$(DIR)" $(if $(CASES),--cases '$(CASES)')

oracle: build ## compare a dataset as we read it with what LeRobot reads: DATASET=<folder> ORACLE=<file>
	@[[ -n "$(DATASET)" && -n "$(ORACLE)" ]] || { echo 'error: DATASET or ORACLE is not set'; \
	  echo 'hint: make oracle DATASET=tests/data/metaworld_mt5 ORACLE=tests/data/oracle_metaworld_mt5.jsonl'; exit 2; }
	cargo build $(CARGO_FLAGS) --quiet $(CRATES) --example oracle
	$(PROGRAMS)/examples/oracle "$(DATASET)" "$(ORACLE)"
