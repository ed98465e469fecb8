# Set-up happens once; afterwards each command starts in a second.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
ARGS ?=

.PHONY: run test test-all coverage lint types wheel slow kill contain reliability sanitize mutants soak bench labs integration clean
.DEFAULT_GOAL := run

FAST := hatch_build.py $(wildcard twisted_ingest/*/_*.c twisted_ingest/*/_*.h)

# The project is installed in place; only its dependencies, entry points and the fast paths need this again.
$(READY): pyproject.toml $(FAST)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $(READY)

run: $(READY)  ## receive on 127.0.0.1:1514 into ./ingest-data/ingest.log
	exec $(BIN)/twistd -n --pidfile= ingest $(ARGS)

test: $(READY)  ## the quick tests, or those that ARGS names
	$(BIN)/python -m pytest $(or $(ARGS),--quick)

test-all: $(READY)  ## all of them: real processes, real clients, attacks, long schedules
	$(BIN)/python -m pytest $(ARGS)

coverage: $(READY)  ## the same, with branches measured in every process
	$(BIN)/coverage erase
	$(BIN)/coverage run -m pytest $(ARGS)
	$(BIN)/coverage combine -q
	$(BIN)/coverage report

$(VENV)/.tools: pyproject.toml $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check 'ruff>=0.14' 'mypy>=2.3' 'mypy-zope>=1.0.17'
	touch $(VENV)/.tools

lint: $(VENV)/.tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.tools
	$(BIN)/mypy

wheel: $(READY)  ## build, install in a clean environment, look, uninstall
	INGEST_TEST_WHEEL=1 $(BIN)/python -m pytest tests/test_packaging.py tests/test_plugin_sink.py

slow: $(READY)  ## the same promises at full length: stalls, restarts, thousands of schedules and of crashes of a disk
	INGEST_TEST_STALL_SECONDS=10 INGEST_TEST_RESTARTS=10 INGEST_TEST_EXAMPLES=5000 \
		INGEST_TEST_SPOOL_EXAMPLES=5000 INGEST_TEST_SPOOL_SEEDS=10 \
		$(BIN)/python -m pytest tests/attacks tests/test_real_clients.py tests/test_relp_clients.py \
		tests/test_stateful.py tests/test_spool_crash.py tests/test_spool_server.py --durations=10 $(ARGS)

$(VENV)/.clients: pyproject.toml $(READY)  ## the Python clients that docs/clients.md has recipes for
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[clients]'
	touch $(VENV)/.clients

integration: $(READY)  ## recipes of docs/clients.md whose clients npm, Maven and Go install first
	INGEST_TEST_INTEGRATION=1 $(BIN)/python -m pytest tests/test_clients_integration.py -rs $(ARGS)

kill: $(READY)  ## fifty kills under load, with our own client and with rsyslog's
	INGEST_TEST_KILLS=50 $(BIN)/python -m pytest tests/attacks/test_relp_kill.py --durations=5 $(ARGS)

sanitize: $(READY)  ## the fast paths in C under gcc's sanitizers
	PATH=$(abspath $(BIN)):$$PATH fuzz/sanitize.sh $(ARGS)

mutants: $(READY)  ## plant faults one at a time; each must be noticed by the tests it names; ARGS='lane budget' for some
	$(BIN)/python -m mutants.run $(ARGS)

contain: $(READY)  ## stray bytes against each kind of client: what they cost, written into docs/reliability.md
	$(BIN)/python -m tests.containment

RESULTS := $(CURDIR)/$(VENV)/reliability.jsonl

reliability: $(READY)  ## run every attack and write what was measured into docs/reliability.md
	rm -f $(RESULTS)
	INGEST_TEST_REPORT=$(RESULTS) $(BIN)/python -m pytest tests/attacks $(ARGS)
	$(BIN)/python -m tests.reliability $(RESULTS)

$(VENV)/.bench: pyproject.toml $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $(VENV)/.bench

MINUTES ?= 20

soak: $(VENV)/.bench  ## everything at once, at low intensity, every good line verified: make soak MINUTES=20
	$(BIN)/python -m soak --minutes $(MINUTES) $(ARGS)

bench: $(VENV)/.bench  ## what a chunk costs, then ours against other receivers; quick look: ARGS=--quick
	$(BIN)/python benchmarks/framing.py
	$(BIN)/python benchmarks/compare.py $(ARGS)
	$(BIN)/python benchmarks/relp.py $(filter --quick,$(ARGS))
	$(BIN)/python benchmarks/tls.py $(filter --quick,$(ARGS))
	$(BIN)/python benchmarks/beside.py $(filter --quick,$(ARGS))

$(VENV)/.labs: pyproject.toml $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[labs]'
	touch $(VENV)/.labs

labs: $(VENV)/.labs  ## what TCP does, with this server and without: measures, and writes docs/labs/ anew
	$(BIN)/python -m labs all --into docs/labs --page

clean:
	rm -rf $(VENV) .tox build dist *.egg-info
