# Every command of the project; `make` alone lists them. Written for GNU make 3.81 (macOS) and later.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run test check format lint types docs lock upgrade env-example clean
.PHONY: bench bench-database bench-cache bench-storage bench-accounts bench-operations

# A Python of your own choice, 3.11 or later: make run PYTHON=/opt/python/bin/python3
PYTHON ?=
# More arguments for pytest: make test ARGUMENTS="-k cache"
ARGUMENTS ?=

environment := .venv
bin := $(environment)/bin
# A stamp is newer than its lock for as long as nothing needs to be installed: starting again must be quick.
to_run := $(environment)/installed-to-run
to_develop := $(environment)/installed-to-develop
to_measure := $(environment)/installed-to-measure

help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(to_run) ## Start the service with its own PostgreSQL and Valkey (PORT=3000, HOST=127.0.0.1)
	@exec $(bin)/data-layer dev

test: $(to_develop) ## Run the tests against servers that they start themselves (ARGUMENTS="-k cache")
	@sh tools/azurite/install.sh $(bin)/python
	@$(bin)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder $(ARGUMENTS)

check: lint types test ## Run everything that has to pass before a change goes in; the site is built by a test

format: $(to_develop) ## Format the code and mend what can be mended
	@$(bin)/ruff check --fix --quiet || true
	@$(bin)/ruff format

lint: $(to_develop) ## Check format and style
	@$(bin)/ruff format --check
	@$(bin)/ruff check

types: $(to_develop) ## Check the types
	@$(bin)/mypy
	@$(bin)/mypy tools

docs: $(to_develop) ## Build the site (docs/_build/html), warnings are errors; check its links and run its code
	@sh tools/azurite/install.sh $(bin)/python
	@$(bin)/pytest --quiet tests/docs
	@echo "The site: docs/_build/html/index.html"

lock: $(to_develop) ## Write the lock files anew after a change in pyproject.toml
	@sh tools/lock.sh

upgrade: $(to_develop) ## Lock the newest versions that pyproject.toml allows
	@sh tools/lock.sh --upgrade

env-example: $(to_develop) ## Write .env.example anew after a change in the settings
	@$(bin)/python tools/make_env_example.py

bench: bench-database bench-cache bench-storage bench-accounts bench-operations ## Run all benchmarks

bench-database: $(to_measure) ## Measure imports, starts, and the database against raw psycopg
	@$(bin)/python benchmarks/database.py $(ARGUMENTS)

bench-cache: $(to_measure) ## Measure the cache against redis-py, coredis, valkey-glide, cashews and node-redis
	@$(bin)/python benchmarks/cache.py $(ARGUMENTS)

bench-storage: $(to_measure) ## Measure files on S3, Azure and the local disk against obstore and the vendors' libraries
	@sh tools/azurite/install.sh $(bin)/python
	@$(bin)/python benchmarks/storage.py $(ARGUMENTS)
	@$(bin)/python benchmarks/saved_files.py $(ARGUMENTS)

bench-accounts: $(to_measure) ## Measure sessions, tokens and the audit trail
	@$(bin)/python benchmarks/accounts.py $(ARGUMENTS)
	@$(bin)/python benchmarks/audit.py $(ARGUMENTS)

bench-operations: $(to_measure) ## Measure what metrics and logs cost, and memory
	@$(bin)/python benchmarks/operations.py $(ARGUMENTS)

clean: ## Remove everything that can be made anew; stored data (.data-layer, uploads) stays
	rm -rf $(environment) .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov build dist docs/_build
	find src tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(to_run): requirements.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements.lock
	@touch $@

$(to_develop): requirements-dev.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements-dev.lock
	@touch $@ $(to_run)

$(to_measure): requirements-bench.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements-bench.lock
	@touch $@ $(to_develop) $(to_run)

# Without a recipe: install.sh makes it. Named so that an environment whose Python has been removed is made anew.
$(bin)/python:
