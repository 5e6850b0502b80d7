# All set-up hides here: `make run` and `make test` need Python 3.11, make and node, nothing else.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
NODE_READY := node_modules/.ready

.DEFAULT_GOAL := help
.PHONY: help run test lint types proto proto-check cover policy mutation mutate-policy mutate-domain e2e chaos bench lock clean

help: ## List the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@echo "setting up $(VENV) (about a minute the first time)"
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "Planier needs Python 3.11 or newer: make PYTHON=...")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(NODE_READY): package.json package-lock.json
	@npm install --no-save --silent --no-fund --no-audit
	@touch $@

run: $(READY) ## Start the whole system with demonstration data
	@exec $(BIN)/python -m services

test: $(READY) lint types proto-check ## Lint, type-check and run every test
	$(BIN)/pytest
	$(BIN)/python -m tools.mutate_guard --short

mutation: $(READY) ## Delete and delay each call of the guard's record step; a test must fail each time
	$(BIN)/python -m tools.mutate_guard

lint: $(READY) ## ruff, import-linter, Dockerfile and compose file
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --quiet --builtin-schema vendor.compose-spec deploy/compose.yaml

types: $(READY) ## mypy --strict
	$(BIN)/mypy

proto: $(READY) ## Generate Python from the contracts
	$(BIN)/python -m tools.generate_protos

proto-check: $(READY) $(NODE_READY) ## Contracts: drift, buf lint, buf breaking
	$(BIN)/python -m tools.generate_protos --check
	$(BIN)/python -m tools.check_contracts

policy: $(READY) ## Write docs/politique.md, the access policy in French, from the Cedar that runs
	$(BIN)/python -m tools.render_policy

cover: $(READY) ## Every branch of access's domain, by its unit, contract and golden tests
	$(BIN)/pytest -q -p no:cacheprovider --cov --cov-report=term tests/unit/test_access_*.py tests/contract/purpose tests/golden/test_access_*.py

mutate-policy: $(READY) ## Small changes of the access policy that no published case notices; at least 90 % are noticed
	$(BIN)/python -m tools.mutate_policy

mutate-domain: $(READY) ## A seeded sample of small changes of access's domain; at least 90 % fail a unit test
	$(BIN)/python -m tools.mutate_domain

e2e: $(READY) ## Only the tests that start the real processes
	$(BIN)/pytest -m e2e

chaos: $(READY) ## Long kill -9 campaign over the real processes
	$(BIN)/python -m tests.chaos.campaign

bench: $(READY) ## Figures beside their ceilings, written to var/bench.json
	$(BIN)/python -m bench

lock: $(READY) ## Re-resolve requirements.lock from pyproject.toml
	$(BIN)/uv pip compile -q pyproject.toml --group local --group dev --python-version 3.11 --generate-hashes --no-header -o requirements.lock

clean: ## Remove the environment and all local data
	rm -rf $(VENV) node_modules var
