# The two commands of the README, and a few for those who work on the project.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed-demo
EXTRAS := celery k8s postgres s3 markets
INSTALLED_TEST := $(VENV)/.installed-test
REHEARSED := $(VENV)/.rehearsed

.DEFAULT_GOAL := demo
.PHONY: help demo test lint docs pictures ui audit lock clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST)

demo: $(INSTALLED) ## install, train and judge on the sample
	@echo 'training on the sample and judging: a minute or two on two cores; what is new of the code compiles beside it'
	@test -e $(REHEARSED) && test -z "$$(find energy_ml -name '*.py' -newer $(REHEARSED))" || \
	{ $(BIN)/python -m energy_ml.rehearsal 2>/dev/null && touch $(REHEARSED); } & \
	$(BIN)/energy-ml retrain --date latest; code=$$?; wait; exit $$code

test: $(INSTALLED_TEST) ## every test
	$(BIN)/python -m pytest -n auto --dist loadfile

lint: $(INSTALLED_TEST) ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED_TEST) ## the pages of docs/ as a site in site/; a dead link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

pictures: $(INSTALLED_TEST) ## the pictures of README and docs, from today's code; some minutes
	$(BIN)/python docs/pictures.py

ui: $(INSTALLED) ## Dagster in the browser
	$(BIN)/dagster dev

audit: .venv-tools ## advisories about what constraints.txt pins; offline it says so
	@$(PYTHON) .ci/audit.py .venv-tools/bin/pip-audit

lock: .venv-tools ## what the container image is made of, with hashes
	echo 'setuptools>=78.1.1' | .venv-tools/bin/uv pip compile pyproject.toml - $(EXTRAS:%=--extra %) --quiet \
	  --constraint constraints.txt --python-version 3.12 --generate-hashes --no-header --no-annotate --no-strip-extras \
	  | sed -z 's/ \\\n */ /g' > deploy/requirements.lock

.venv-tools:
	-$(PYTHON) -m venv $@ && $@/bin/python -m pip install --quiet --disable-pip-version-check pip-audit uv

$(BIN)/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "energy_ml needs Python 3.11 or newer; choose one with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(INSTALLED): $(BIN)/python pyproject.toml constraints.txt
	@echo 'installing what energy_ml needs into $(VENV): about a minute, once'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable .
	touch $@

$(INSTALLED_TEST): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

clean: ## remove environment, runs, models and results
	rm -rf $(VENV) .venv-tools .dagster .tmp_dagster_home_* models results site
