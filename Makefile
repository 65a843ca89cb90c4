# The one gate: everything a person or CI runs is a target here.
SHELL := /bin/bash
CARGO ?= cargo
# Debian packages that the tests use beside the Rust toolchain.
PACKAGES := gcc libc6-dev ostree rpm rpm2cpio cpio createrepo-c fuse3 attr libcap2-bin xz-utils zstd bzip2 rsync chromium btrfs-progs
MAX_LINES := 800
MAX_LOCKED := 240
# File by file: 'cargo fmt' does not see modules that a macro declares.
RUSTFMT = git ls-files '*.rs' | xargs rustfmt --edition 2024
# Continuous integration runs the benchmarks only to see that they run.
BENCH := release
TARGET = $(shell $(CARGO) metadata --no-deps --format-version 1 | sed 's/.*"target_directory":"\([^"]*\)".*/\1/')

.PHONY: help setup fmt lint test demo bench-small bench-once soak suites packages docs ci

help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

setup: ## Install the Debian packages that are missing (needs root and apt-get)
	@missing=; for p in $(PACKAGES); do \
	  [ "$$(dpkg-query -W -f='$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || missing="$$missing $$p"; done; \
	[ -n "$$missing" ] || exit 0; export DEBIAN_FRONTEND=noninteractive; \
	if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && echo "setup: installing$$missing" && \
	  apt-get -qq update && apt-get -qq -y install --no-install-recommends $$missing >/dev/null; then :; else \
	  echo "setup: could not install (it takes root, apt-get and the network):$$missing"; \
	  echo "setup: tests that need one of them are skipped and say so"; \
	fi

fmt: ## Format the sources
	@$(RUSTFMT)

lint: ## Check format, clippy, sizes, characters, number of dependencies
	@$(RUSTFMT) --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings
	@git ls-files '*.rs' | xargs wc -l | awk '$$2 != "total" && $$1 > $(MAX_LINES) \
	  { print $$2 ": " $$1 " lines, at most $(MAX_LINES)"; bad = 1 } END { exit bad }'
	@! git ls-files '*.rs' | LC_ALL=C xargs grep -nP '[^\x00-\x7F]' || { echo "not ASCII"; exit 1; }
	@n=$$(grep -c '^name = ' Cargo.lock); [ $$n -le $(MAX_LOCKED) ] || \
	  { echo "Cargo.lock: $$n packages, at most $(MAX_LOCKED)"; exit 1; }

test: setup ## Run the whole test suite
	$(CARGO) test --workspace --doc --locked
	@if $(CARGO) nextest --version >/dev/null 2>&1; then run='nextest run'; else run='test --all-targets'; fi; \
	set -x; $(CARGO) $$run --workspace --locked --no-fail-fast

demo: setup ## Packages to commits to a mounted directory, and what differs
	$(CARGO) build --workspace --bins --locked
	@scripts/demo.sh $(TARGET)/debug

bench-small: ## Grove beside the tools installed here, on small inputs
	$(CARGO) build --workspace --bins --locked --profile $(BENCH)
	$(TARGET)/$(BENCH:dev=debug)/scenario all --small

bench-once: ## Run each micro-benchmark once, without measuring
	$(CARGO) test --workspace --bench '*' --locked

soak: ## Read mounts for an hour beside everything that disturbs them
	$(CARGO) build --workspace --bins --locked --release
	$(TARGET)/release/scenario soak

suites: setup ## Suites of others above a mount: pjdfstest, if it is installed
	$(CARGO) build --workspace --bins --locked
	@scripts/pjdfstest.sh $(TARGET)/debug

packages: PACKAGES += dpkg-dev man-db
packages: setup ## Build a Debian and an RPM package, and try them
	$(CARGO) build --workspace --bins --locked --release
	@CARGO="$(CARGO)" scripts/packages.sh $(TARGET)

docs: ## Build the documentation of the crates
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked

ci: ## Everything that must be green, the tests last
	$(MAKE) setup lint docs demo
	$(MAKE) bench-small BENCH=dev
	$(MAKE) bench-once
	$(MAKE) test
