# Every target does its own set-up. `make help` lists them.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
SECONDS ?= 30
RATE   ?= 10
LOG    ?=
KILLS  ?= 230
WEBHOOKS ?= 101000
REQUESTS ?= 1000000
SEED   ?= 1
LIVES  ?= 120
DAYS   ?= 91
WAREHOUSE ?= duckdb
WORKERS ?= 4
COMPILE = $(BIN)/uv pip compile -q --universal --no-strip-extras --generate-hashes --no-header pyproject.toml
OSV    ?= https://api.osv.dev/v1/query

.DEFAULT_GOAL := help
.PHONY: help demo test check lint types layers audit bench faults month outage fuzz prove kafka docs screenshots site lock clean

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

demo: $(VENV)/installed ## simulated vendors, receiver, log, DuckDB: live, and checked (SECONDS=30 RATE=10 LOG=kafka://host:9092)
	@$(BIN)/ingest demo --seconds $(SECONDS) --rate $(RATE) --log "$(LOG)"

test: $(VENV)/installed-dev ## all tests, WORKERS=4 side by side; those against a real Apache Kafka and PostgreSQL where these can be had
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal

check: lint types layers ## lint, strict types, layer rules

lint: $(VENV)/installed-dev
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check

types: $(VENV)/installed-dev
	@$(BIN)/mypy

layers: $(VENV)/installed-dev
	@$(BIN)/lint-imports

audit: $(VENV)/installed-dev ## requirements-extras.lock, which has all of requirements.lock, against the known vulnerabilities of osv.dev (OSV=where else they are asked for)
	@$(BIN)/pip-audit --strict --vulnerability-service osv --osv-url $(OSV) --disable-pip --require-hashes -r requirements-extras.lock

bench: $(VENV)/installed-dev ## receivers and consumers beside others, large tables, idle processes, from webhook to row, pages; some 45 minutes, into docs/benchmarks.md (needs wrk; Go if there is one)
	@for part in receive consume growth idle freshness feed pages; do $(BIN)/python -m tests.bench.$$part --write || exit 1; done

faults: $(VENV)/installed-dev ## 230 kills (some find nobody to kill) and every other fault in more than 100,000 webhooks, on each log, and smaller runs whose gaps are found and closed; 1 if anything was lost, doubled or older over newer (SEED=1 KILLS=230 WEBHOOKS=101000 WAREHOUSE=duckdb|postgres)
	@for log in sqlite cluster; do $(BIN)/python -m tests.faults --log $$log --warehouse $(WAREHOUSE) --seed $(SEED) --kills $(KILLS) --webhooks $(WEBHOOKS) --without-gaps || exit 1; done
	@for log in sqlite cluster; do $(BIN)/python -m tests.faults --log $$log --warehouse $(WAREHOUSE) --seed $(SEED) --kills 40 --webhooks 8000 || exit 1; done

month: $(VENV)/installed-dev ## a month of 20,000 bookings reconciled; prints requests, speed, memory
	@$(BIN)/python -m tests.bench.reconcile

outage: $(VENV)/installed-dev ## an hour without Kafka at 500 webhooks/s, as fast as they are taken; prints memory, spool, order
	@$(BIN)/python -m tests.bench.outage

fuzz: $(VENV)/installed-dev ## a million hostile requests at a receiver, what it takes of them into DuckDB; prints answers, memory (REQUESTS= SEED=)
	@$(BIN)/python -m tests.fuzz --requests $(REQUESTS) --seed $(SEED)

prove: $(VENV)/installed-dev ## a million account-hours with all vendors and everything that goes wrong, two lives side by side, in .cache/referee: 1 if an hour was called complete that was not; goes on if it was stopped (LIVES=120 DAYS=91 SEED=1)
	@$(BIN)/python -m tests.referee --lives $(LIVES) --days $(DAYS) --seed $(SEED)

kafka: $(VENV)/installed-dev ## a real one-node Apache Kafka on a free port, until interrupted (needs Java and Maven)
	@$(BIN)/python -m tests.kafka.broker

docs: $(VENV)/installed-dev ## write docs/commands.md, docs/api, the tables of README.md, docs/settings.md and docs/sources.md, Grafana's dashboard, and the dashboard's meanings of columns
	@$(BIN)/python -m tests.ingest.vendors.reference
	@$(BIN)/python -m tests.ingest.settings.reference
	@$(BIN)/python -m tests.ingest.cli.reference
	@$(BIN)/python -m tests.consumers.sync.reference
	@$(BIN)/python -m tests.ingest.dashboard.reference
	@$(BIN)/python -m tests.deploy.dashboard

screenshots: $(VENV)/installed-dev ## the pictures of docs/dashboard.md, of simulated vendors and the product, by Chromium; some two minutes
	@$(BIN)/python -m tests.ingest.dashboard.screenshots

site: $(VENV)/installed-dev ## the documentation as a site, in .cache/site (its links are checked)
	@$(BIN)/python -m tests.test_site

lock: $(VENV)/installed-dev ## pin the newest versions that pyproject.toml allows: with all extras, then without, then with the development tools
	@$(COMPILE) --all-extras -o requirements-extras.lock --upgrade
	@$(COMPILE) -c requirements-extras.lock -o requirements.lock --upgrade
	@$(COMPILE) --all-extras --group dev -c requirements-extras.lock -o requirements-dev.lock --upgrade

clean: ## remove what targets made here
	rm -rf $(VENV) .cache .demo .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info

$(VENV)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=/path/to/python3.11 ...")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: requirements.lock pyproject.toml | $(VENV)/python
	@echo "installing into $(VENV) (about half a minute) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements.lock
	@$(BIN)/pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed-dev: requirements-dev.lock $(VENV)/installed
	@echo "installing the development tools into $(VENV) ..."
	@$(BIN)/pip install -q --disable-pip-version-check --no-compile --no-deps --require-hashes -r requirements-dev.lock
	@touch $@
