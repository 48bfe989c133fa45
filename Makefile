# One entry for everything. Each target makes its own virtual environment and installs what it lacks:
# by apt where it is root, else it says exactly what to install.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
export PYTHON
# One more than there are processors: some tests wait. Five at most: each may hold a gigabyte of memory (tests/scratch.py).
WORKERS ?= $(shell n=$$(nproc); expr $$((n < 4 ? n : 4)) + 1)
# Where it is set, each of the suite's thousands of processes compiles the program anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-guest check lint bench format lock clean
.DEFAULT_GOAL := help

help: ## what there is
	@awk -F':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: .venv/.ready ## back up, check and restore three VMs of a datacenter in a folder
	@.ci/prepare demo
	@$(BIN)/python -m vcbproxy lab demo

test: .venv/.ready ## every test but the benchmarks and the guest
	@.ci/prepare test
	@$(BIN)/python -m pytest -n $(WORKERS) --dist loadgroup -m "not bench and not guest"

test-guest: .venv/.ready ## the real drivers in a QEMU guest: iSCSI, multipath, NFS, tape (docs/guest.md)
	@.ci/prepare guest
	@$(BIN)/python -m pytest -m guest tests/guest

check: lint test ## all that must hold before a commit

lint: .venv/.ready ## format, lint, types, import contracts
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/.ready ## speed and memory against restic, zstd, dd and vmfs-fuse
	@.ci/prepare test
	@$(BIN)/python -m pytest -m bench tests/bench tests/real/test_a_month.py -s -q --timeout 3600

format: .venv/.ready ## put the sources in their one format
	@$(BIN)/ruff check --fix --quiet . || true
	@$(BIN)/ruff format --quiet .

lock: .venv/.ready ## pin the newest versions of everything we build with
	@.ci/lock

clean: ## remove the environment and all caches
	rm -rf .venv .cache dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

.venv/.ready: pyproject.toml .ci/requirements.lock
	@.ci/prepare venv
	@touch $@
