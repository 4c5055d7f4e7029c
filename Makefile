# Every command of the project; `make` alone lists them. Written for GNU make 3.81 (macOS) and later.

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help run quick watch test test-all test-lowest fuzz test-servers coverage check format lint types docs build lock upgrade
.PHONY: env-example clients screenshots translations clean mutants
.PHONY: bench bench-http bench-followers bench-database bench-cache bench-storage bench-accounts bench-usage bench-projects bench-console bench-mix bench-bodies bench-generations bench-growth bench-soak bench-partitions bench-recorder bench-operations

# A Python of your own choice, 3.11 or later: make run PYTHON=/opt/python/bin/python3
PYTHON ?=
# More arguments for pytest: make test ARGUMENTS="-k cache"
ARGUMENTS ?=

environment := .venv
bin := $(environment)/bin
pytest := $(bin)/pytest --numprocesses=auto --maxprocesses=4 --dist=loadfile --no-loadscope-reorder
quick := $(bin)/pytest --quick -m "not slow" --quiet -rfE --numprocesses=auto --maxprocesses=4
# A stamp is newer than its lock for as long as nothing needs to be installed: starting again must be quick.
to_run := $(environment)/installed-to-run
to_document := $(environment)/installed-to-document
to_develop := $(environment)/installed-to-develop
to_measure := $(environment)/installed-to-measure

help: ## List the commands
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

run: $(to_run) ## Start the service with its own PostgreSQL and Valkey (PORT=3000, HOST=127.0.0.1)
	@exec $(bin)/data-layer dev

quick: $(to_develop) ## Run the tests that start no process, in less than two minutes: while you work
	@sh tools/install_npm.sh $(bin)/python axe azurite oidc_provider react_page typescript
	@$(quick) $(ARGUMENTS)

watch: $(to_develop) ## Run `make quick` again whenever a file is saved (ARGUMENTS="-k cache")
	@exec $(bin)/watchfiles --filter python '$(quick) $(ARGUMENTS)' src tests

test: $(to_develop) ## Run the tests against servers that they start themselves (ARGUMENTS="-k cache")
	@sh tools/install_npm.sh $(bin)/python axe azurite oidc_provider react_page typescript
	@$(pytest) -m "not slow" $(ARGUMENTS)

test-all: $(to_develop) ## Run the slow tests too: failovers, crashes, chaos, fuzzing
	@sh tools/install_npm.sh $(bin)/python axe azurite oidc_provider react_page typescript
	@$(pytest) $(ARGUMENTS)

test-lowest: $(to_develop) ## Run the tests of the library with the lowest versions that pyproject.toml allows
	@sh tools/test_lowest.sh $(ARGUMENTS)

fuzz: $(to_develop) ## Send many requests that the description of the API allows and forbids, as everybody (FUZZ_EXAMPLES=20)
	@FUZZ_EXAMPLES=$${FUZZ_EXAMPLES:-20} $(bin)/pytest tests/api/test_fuzzed.py $(ARGUMENTS)

test-servers: $(to_develop) ## Run the tests of the library against the servers TEST_DATABASE_URL and TEST_REDIS_URL
	@$(pytest) -m "not slow" tests/api tests/audit tests/database/test_unit_of_work.py tests/repositories \
	    tests/services/accounts tests/services/sessions tests/services/tokens $(ARGUMENTS)

coverage: $(to_develop) ## Run the tests and measure which lines and branches they reach (htmlcov/index.html)
	@sh tools/install_npm.sh $(bin)/python axe azurite oidc_provider react_page typescript
	@$(pytest) -m "not slow" --cov --cov-report=term --cov-report=html $(ARGUMENTS)

mutants: $(to_develop) ## Put faults into the code, one at a time; print what no test notices (ARGUMENTS="--sample 20 cache")
	@sh tools/install_npm.sh $(bin)/python axe azurite oidc_provider react_page typescript
	@$(bin)/python -m tools.mutants $(ARGUMENTS)

check: lint types test-all ## Run everything that has to pass before a change goes in; the site is built by a test

format: $(to_develop) ## Format the code and fix what can be fixed
	@$(bin)/ruff check --fix --quiet || true
	@$(bin)/ruff format

lint: $(to_develop) ## Check format and style
	@$(bin)/ruff format --check
	@$(bin)/ruff check

types: $(to_develop) ## Check the types
	@$(bin)/mypy --num-workers=2 src tests tools benchmarks

docs: $(to_document) ## Build the site (docs/_build/html), warnings are errors; `make test` checks its links and samples
	@$(bin)/python -m sphinx --fail-on-warning --fresh-env --quiet docs docs/_build/html
	@echo "The site: docs/_build/html/index.html"

build: $(to_develop) ## Build the wheel and the source distribution (dist/)
	@$(bin)/hatchling build --directory dist

lock: $(to_develop) ## Write the lock files again after a change in pyproject.toml
	@sh tools/lock.sh

upgrade: $(to_develop) ## Lock the newest versions that pyproject.toml allows
	@sh tools/lock.sh --upgrade

env-example: $(to_develop) ## Write .env.example again after a change in the settings
	@$(bin)/python tools/make_env_example.py

clients: $(to_develop) ## Write docs/reference/openapi.json and the clients again after a change in the routes
	@$(bin)/python tools/make_clients.py
	@sh tools/install_npm.sh $(bin)/python typescript
	@$(bin)/python tools/build_typescript.py

screenshots: $(to_develop) ## Make the pictures of the console in docs/_static from the example data (needs Chromium)
	@$(bin)/python tools/make_screenshots.py

translations: $(to_develop) ## Bring new texts of the console into the files of its translators
	@$(bin)/python tools/update_translations.py

bench: bench-http bench-followers bench-database bench-cache bench-storage bench-accounts bench-usage bench-projects bench-console bench-mix bench-bodies bench-generations bench-growth bench-soak bench-partitions bench-recorder bench-operations ## Run all benchmarks

bench-database: $(to_measure) ## Measure imports, starts, and the database against raw psycopg
	@$(bin)/python benchmarks/database.py $(ARGUMENTS)

bench-cache: $(to_measure) ## Measure the cache against redis-py, coredis, valkey-glide, cashews and node-redis
	@$(bin)/python benchmarks/cache.py $(ARGUMENTS)
	@$(bin)/python benchmarks/cache_saturation.py

bench-storage: $(to_measure) ## Measure files on S3, Azure and the local disk against obstore and the vendors' libraries
	@sh tools/install_npm.sh $(bin)/python azurite
	@$(bin)/python benchmarks/storage.py $(ARGUMENTS)
	@$(bin)/python benchmarks/saved_files.py $(ARGUMENTS)

bench-accounts: $(to_measure) ## Measure sessions, tokens and the audit trail
	@$(bin)/python benchmarks/accounts.py $(ARGUMENTS)
	@$(bin)/python benchmarks/audit.py $(ARGUMENTS)

bench-console: $(to_measure) ## Measure the pages of the console with 10,000 projects and 300 versions
	@$(bin)/python benchmarks/console.py $(ARGUMENTS)

bench-usage: $(to_measure) ## Measure sums of a month in a ledger of a million entries
	@$(bin)/python benchmarks/usage.py $(ARGUMENTS)

bench-projects: $(to_measure) ## Measure opening, listing and saving projects against psycopg and SQLAlchemy
	@$(bin)/python benchmarks/projects.py $(ARGUMENTS)

bench-mix: $(to_measure) ## Measure a mix of sessions, projects, lists, saves and files against hand-written code and ORMs
	@$(bin)/python benchmarks/mix.py $(ARGUMENTS)

bench-generations: $(to_measure) ## Measure 200 generations that are written and followed at once
	@$(bin)/python benchmarks/generations.py $(ARGUMENTS)

bench-growth: $(to_measure) ## Measure how calls, sizes and upkeep grow from 10 thousand to a million generations
	@$(bin)/python benchmarks/growth.py $(ARGUMENTS)

bench-partitions: $(to_measure) ## Measure a million generations in hash partitions by project against the tables as they are
	@$(bin)/python benchmarks/partitions.py $(ARGUMENTS)

bench-soak: $(to_measure) ## Measure memory of a service with 1,000 sessions and 10,000 hot projects for 20 minutes
	@$(bin)/python benchmarks/soak.py $(ARGUMENTS)

bench-recorder: $(to_measure) ## Measure what recording costs a page of Screenshot to Code
	@$(bin)/python benchmarks/recorder.py $(ARGUMENTS)

bench-bodies: $(to_measure) ## Measure what histories of pages take, and how fast a version is read
	@$(bin)/python benchmarks/code_bodies.py $(ARGUMENTS)

bench-http: $(to_measure) ## Measure requests a second against bare FastAPI routes (needs Debian's wrk)
	@$(bin)/python benchmarks/http_service.py $(ARGUMENTS)

bench-followers: $(to_measure) ## Measure memory and delay of 2,000 followers of server-sent events
	@$(bin)/python benchmarks/followers.py $(ARGUMENTS)

bench-operations: $(to_measure) ## Measure what metrics and logs cost, and memory
	@$(bin)/python benchmarks/operations.py $(ARGUMENTS)

clean: ## Remove everything that can be made again; stored data (.data-layer, uploads) stays
	rm -rf $(environment) .venv-lowest .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage htmlcov build dist docs/_build
	find src tests tools benchmarks examples -name __pycache__ -type d -prune -exec rm -rf {} +

$(to_run): requirements.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements.lock
	@touch $@

$(to_develop): requirements-dev.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements-dev.lock
	@touch $@ $(to_run) $(to_document)

$(to_document): requirements-docs.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements-docs.lock
	@touch $@

$(to_measure): requirements-bench.lock pyproject.toml $(bin)/python
	@PYTHON="$(PYTHON)" sh tools/install.sh requirements-bench.lock
	@touch $@ $(to_develop) $(to_run) $(to_document)

# Without a recipe: install.sh makes it. Named so that an environment whose Python has been removed is made again.
$(bin)/python:
