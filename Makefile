# make run    the quickstart: search → best → final training → evaluation on the untouched test split
# make test   all tests but the storms and the clusters
# make storms small storms of kills, signals and outages among real processes, and the longest trainings
# make clusters servers of its own: SLURM, Ray, MariaDB, pgbouncer, S3, MLflow, with faults
# make test-all  all three of these and the site, as .ci/run does
# make skypilot  SkyPilot's own parser reads docker/skypilot.yaml
# make check  ruff, mypy, import-linter
# make reference  docs/reference/ and the schemas in studies/schema/, written from the code
# make docs   the documentation as a site, in site/; a broken link or anchor is an error
# make bench  side-by-side benchmarks, the race among them; writes bench/RESULTS.md
# make bench-gpu  what only a card can tell, in eight minutes; writes bench/RESULTS.md
# make faults kills, signals, outages and the like, provoked for an hour; writes bench/faults/RESULTS.md
# Each makes its own .venv first.

PYTHON ?= python3
BIN := .venv/bin
HPSEARCH := $(BIN)/hpsearch

.PHONY: run test storms clusters test-all skypilot check docs reference bench bench-gpu faults clean

run: .venv/run
	$(HPSEARCH) run studies/quickstart.yaml
	$(HPSEARCH) best quickstart -o storage/best.yaml --force
	$(HPSEARCH) train storage/best.yaml --resume
	$(HPSEARCH) evaluate storage/runs/quickstart
	@echo 'The command hpsearch is in .venv: in this shell first  . .venv/bin/activate'

test: .venv/dev
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not storm and not cluster" $(PYTEST_ARGS)

storms: .venv/dev
	$(BIN)/pytest -m storm tests/integration tests/docs $(PYTEST_ARGS)

clusters: .venv/dev .venv/mlflow/done
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m cluster $(PYTEST_ARGS)

test-all: test storms clusters docs

skypilot: .venv/skypilot/done
	.venv/skypilot/bin/python docker/read_skypilot.py

check: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

reference: .venv/dev
	$(BIN)/python -m docs.reference.generate

docs: .venv/dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: .venv/bench
	$(BIN)/python -m bench --results bench/RESULTS.md

bench-gpu: .venv/dev
	$(BIN)/python -m bench.gpu --results bench/RESULTS.md

faults: .venv/dev
	$(BIN)/python -m bench.faults --results bench/faults/RESULTS.md

clean:
	rm -rf .venv site storage/data storage/features storage/trials storage/runs storage/logs storage/inspections storage/plots storage/tensorboard storage/artifacts storage/*.db*

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "hpsearch needs Python 3.11 or newer; say which with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv .venv \
	  || { rm -rf .venv; echo "this Python can't make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }

.venv/run: .venv/bin/python pyproject.toml
	@echo "installing hpsearch and what it needs into .venv; torch alone takes some minutes …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable .
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	@echo "installing hpsearch and its test tools into .venv; torch alone takes some minutes …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

.venv/bench: .venv/bin/python pyproject.toml
	@echo "installing hpsearch and what its benchmarks need into .venv; torch alone takes some minutes …"
	@$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,bench]'
	@touch $@

.venv/skypilot/done: .venv/bin/python
	@echo "installing SkyPilot into an environment of its own, .venv/skypilot …"
	@$(PYTHON) -m venv .venv/skypilot
	@.venv/skypilot/bin/pip install --quiet --disable-pip-version-check 'skypilot>=0.14.1,<0.15'
	@touch $@

.venv/mlflow/done: .venv/bin/python
	@echo "installing an MLflow server into an environment of its own, .venv/mlflow …"
	@$(PYTHON) -m venv .venv/mlflow
	@.venv/mlflow/bin/pip install --quiet --disable-pip-version-check 'mlflow>=3.17'
	@touch $@
