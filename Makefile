# Two commands do all the set-up: `make demo` and `make test`. Everything else builds on `make install`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SEEDS ?= 300
MINUTES ?= 10
KILLS ?= 50
ROUNDS ?= 10
STEADY_MINUTES ?= 30
BURNERS ?= 6
GROWTH ?= secrets=1000,10000,100000,1000000 connections=1,4,16,64,256,1024 nodes=1,3,5 values=100,1000,10000,65536 leases=100,10000,100000,1000000

.PHONY: install demo demo-stop test check docs simulate chaos kills failover steady replay test-compose bench bench-peer bench-growth bench-floors bench-check stress clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	scripts/install "$(PYTHON)" "$(VENV)"
	touch $@

demo: install
	$(BIN)/python scripts/demo.py start

demo-stop:
	@if [ -x $(BIN)/python ]; then $(BIN)/python scripts/demo.py stop; fi

test: install
	scripts/test

check: install
	scripts/check

docs: install
	scripts/docs

simulate: install
	$(BIN)/python -m tests.simulator $(if $(HOURS),--hours $(HOURS),--seeds $(SEEDS))
	$(BIN)/python -m tests.simulator --nodes $(if $(HOURS),--hours $$(awk 'BEGIN { print $(HOURS) / 20 }'),--seeds $$(( ($(SEEDS) + 19) / 20 )))

replay: install
	$(BIN)/python -m tests.compat.replay

chaos: install
	scripts/chaos --minutes $(MINUTES)

kills: install
	$(BIN)/python -m tests.processes --kills $(KILLS)

failover: install
	$(BIN)/python -m tests.processes --failover $(ROUNDS)

steady: install
	$(BIN)/python -m tests.processes --steady $(STEADY_MINUTES) --burners $(BURNERS)

test-compose: install
	tests/compose/run

bench: install
	scripts/bench

bench-peer: install
	scripts/bench --peer
	$(BIN)/python -m bench.pages

bench-growth: install
	scripts/bench --name growth --growth $(GROWTH)
	$(BIN)/python -m bench.pages

bench-floors: install
	scripts/bench --floors
	$(BIN)/python -m bench.pages

bench-check: install
	$(BIN)/python -m bench.check

stress: install
	scripts/bench --stress
	$(BIN)/python -m bench.pages

clean:
	rm -rf $(VENV) build dist site .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
