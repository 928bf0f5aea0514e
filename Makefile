# `make help` lists what there is.
SHELL := /bin/bash
.DELETE_ON_ERROR:
CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/deepflow
export CARGO_TARGET_DIR ?= $(CACHE)/target
BIN := .venv/bin
BPF := $(wildcard bpf/*.c bpf/*.h bpf/include/*.h)
CLANG_FORMAT = $(firstword $(foreach v,-19 -18 -17 -16,$(shell command -v clang-format$v)) clang-format)

SIDE_BY_SIDE = +@$(MAKE) --no-print-directory -j2
# Cargo has its own mind of how many to run; make's is for two targets.
CARGO = env -u MAKEFLAGS -u MFLAGS cargo

.PHONY: help setup live demo demo-down up test test-rust test-web test-python lint lint-rust lint-python lint-web fuzz bench wheel locks clean

help: ## what each target does
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: ## install what is missing and build; quick when nothing changed
	@scripts/setup.sh

live: ## the servers and clients that tests/live drives
	@scripts/setup.sh live

demo: setup ## the shop, observed: address of the page, map and one trace
	@scripts/demo.sh up

demo-down: ## stop everything that make demo started
	@scripts/demo.sh down

up: setup ## observe this machine until Ctrl-C (root)
	@$(BIN)/deepflow up

test: setup ## every test
	$(SIDE_BY_SIDE) live test-rust
	+@$(MAKE) --no-print-directory test-web test-python

# The random tests walk the same way each time here, and another each time in `make fuzz`.
test-rust: export PROPTEST_RNG_SEED ?= 20416
test-rust:
	fixtures=$$($(BIN)/python -c 'from tests.conftest import fixtures; print(fixtures())') && \
	  DEEPFLOW_FIXTURES="$$fixtures" $(CARGO) test --locked --no-default-features --manifest-path core/Cargo.toml

fuzz: setup ## damage conversations and frames for FUZZ_SECONDS (600), then FUZZ_CASES (20000) of each random test; PROTOCOL=Redis, PROTOCOL=frames: that alone
	cargo run --locked --profile fuzz --no-default-features --example fuzz --manifest-path core/Cargo.toml -- $(or $(FUZZ_SECONDS),600) $(PROTOCOL)
	$(if $(PROTOCOL),,PROPTEST_CASES=$(or $(FUZZ_CASES),20000) cargo test --locked --profile fuzz --no-default-features \
	  --manifest-path core/Cargo.toml --test flow --test protocols -- random:: _never_stop_the_walk)

test-web:
	cd web && npm test

test-python:
	$(BIN)/python -m pytest

lint: setup ## ruff, mypy, clippy, rustfmt, clang-format, svelte-check
	$(SIDE_BY_SIDE) --output-sync=target lint-rust lint-python lint-web

lint-rust:
	cargo fmt --check --manifest-path core/Cargo.toml
	$(if $(BPF),$(CLANG_FORMAT) --dry-run -Werror $(BPF))
	$(CARGO) clippy --locked --all-targets --no-default-features --manifest-path core/Cargo.toml -- -D warnings

lint-python:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lint-web:
	cd web && npm run check

bench: setup ## measure; a table, and bench/results/*.json
	$(BIN)/deepflow bench

wheel: setup ## the wheel, in dist/, tried in an empty environment
	@scripts/wheel.sh

locks: ## pin the versions in requirements/ anew
	@scripts/locks.sh

clean: ## remove what was built (caches outside the checkout stay)
	rm -rf .venv build dist deepflow/web/dist web/node_modules .mypy_cache .pytest_cache .ruff_cache
	find deepflow -name '*.so' -delete
