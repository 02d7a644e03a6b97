# Everything a person or CI does. `make` alone prints what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:

# A TPU needs another build of TensorFlow, so it has a virtual environment of its own.
VENV := $(if $(TPU),.venv-tpu,.venv)
BIN := $(VENV)/bin
TFMM := $(BIN)/python -m tfmm
INSTALLED ?= $(VENV)/.installed
PIP := $(BIN)/python -m pip --disable-pip-version-check

SEED ?= 1
RECIPE ?= pipelines/demo.toml
NAME ?= demo
DATA ?= data/demo$(if $(filter-out 1,$(SEED)),-$(SEED))
PREPARED ?= $(DATA)-prepared
RUN ?= runs/demo$(if $(filter-out 1,$(SEED)),-$(SEED))
STRATEGY ?= auto
# Processes of the tests; each file of tests stays in one.
WORKERS ?= 2
# More options of the generator, such as --no-voices or --products 300.
DEMO ?=
# ScaNN cannot be loaded beside the TPU build: such a run is exported with the exact index.
SET ?= $(if $(TPU),--set index.kind=exact)
MODEL := saved_models/$(NAME)

.PHONY: help
help: ## Print this list.
	@echo "make TARGET [VARIABLE=value ...]"
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)$$/  \1\t\2/' | expand -t 16
	@echo "Variables: SEED=1 RECIPE=pipelines/demo.toml STRATEGY=auto RESTART=1 GPU=1 TPU=1 HM=folder BEAUTY=folder FASHION=folder SPEECH=folder CHINESE=folder"

# --- set-up -------------------------------------------------------------------------------------

# The stamp is written last: an interrupted installation is taken up again.
$(INSTALLED): requirements.lock setup.py
	@if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	  rm -rf $(VENV); \
	  if python3.11 -c 'import ensurepip' >/dev/null 2>&1; then python3.11 -m venv $(VENV); \
	  elif command -v uv >/dev/null 2>&1; then uv venv --seed --python 3.11 $(VENV); \
	  else echo "make: expected Python 3.11 with its venv module, or uv, found neither: install" \
	    "python3.11 and python3.11-venv, or uv, which fetches Python by itself" >&2; exit 1; fi; fi
	$(PIP) install -r requirements.lock
	$(PIP) install --no-deps --no-build-isolation -e .
ifdef TPU
	$(PIP) uninstall -y tensorflow scann
	$(PIP) install --no-deps tensorflow-tpu==2.16.2
endif
	@touch $@

$(VENV)/.installed-gpu: $(INSTALLED)
	$(PIP) install 'tensorflow[and-cuda]==2.16.2'
	$(BIN)/python -c 'import tfmm, tensorflow as tf; print(tf.config.list_physical_devices("GPU"))'
	@touch $@

.PHONY: setup
setup: $(INSTALLED) $(if $(GPU),$(VENV)/.installed-gpu) ## Create the virtual environment; GPU=1 adds CUDA, TPU=1 makes one for a TPU VM.

.PHONY: lock
lock: ## Renew requirements.lock from setup.py in a clean virtual environment.
	@rm -rf .venv-lock
	python3.11 -m venv .venv-lock
	.venv-lock/bin/python -m pip --disable-pip-version-check install 'setuptools>=70.1,<80.9'
	.venv-lock/bin/python -m pip --disable-pip-version-check install --no-build-isolation '.[demo,test]'
	@{ sed -n '/^#/p' requirements.lock; \
	  .venv-lock/bin/python -m pip freeze --all --exclude pip --exclude tfmm; } > requirements.lock.new
	@rm -rf .venv-lock build
	mv requirements.lock.new requirements.lock

# --- from records to a SavedModel ---------------------------------------------------------------

# Every step continues what an interruption left, and is skipped when its inputs have not changed.
# The shop appears whole or not at all, so that one of its tables stands for it.
$(DATA)/products.parquet: pipelines/demo.py $(wildcard pipelines/demo_shop/*.py) | setup
	$(BIN)/python -m pipelines.demo $(DATA) --seed $(SEED) $(DEMO)
	@touch $@

.PHONY: demo-data
demo-data: $(DATA)/products.parquet ## Generate the demo shop; SEED chooses another one.

$(PREPARED)/manifest.json: $(DATA)/products.parquet $(RECIPE)
	$(TFMM) prepare $(DATA) $(PREPARED) --recipe $(RECIPE) $(SET)
	@touch $@

$(RUN)/manifest.json: $(PREPARED)/manifest.json $(RECIPE)
	$(TFMM) train $(PREPARED) --recipe $(RECIPE) --run $(RUN) --strategy $(STRATEGY) $(if $(RESTART),--restart) $(SET)
	@touch $@

# Exports again when the run has changed, or when somebody has removed the published model.
$(RUN)/.exported: $(RUN)/manifest.json $(if $(wildcard $(MODEL)/*/saved_model.pb),,FORCE)
	$(TFMM) export $(RUN) $(PREPARED)
	@touch $@

.PRECIOUS: $(DATA)/products.parquet $(PREPARED)/manifest.json $(RUN)/manifest.json

.PHONY: FORCE
FORCE:

.PHONY: train
train: $(RUN)/.exported ## Generate, prepare, train, export and evaluate the demo; continues after an interruption.
	$(TFMM) evaluate $(MODEL) $(PREPARED)

.PHONY: evaluate
evaluate: setup ## Evaluate the newest published model again.
	$(TFMM) evaluate $(MODEL) $(PREPARED)

# What a recipe of real data does: its name, the variable of its folder, its files, how to evaluate.
define real-data
	@test -n "$($(2))" || { echo "make $(1): expected $(2)=folder of $(3), received nothing" >&2; exit 2; }
	$(BIN)/python -m pipelines.$(1) $($(2)) data/$(1)
	$(TFMM) prepare data/$(1) data/$(1)-prepared --recipe pipelines/$(1).toml
	$(TFMM) train data/$(1)-prepared --recipe pipelines/$(1).toml --run runs/$(1) --strategy $(STRATEGY) $(if $(RESTART),--restart)
	$(TFMM) export runs/$(1) data/$(1)-prepared
	$(TFMM) evaluate saved_models/$(1) data/$(1)-prepared $(4)
endef

.PHONY: hm
hm: setup ## Train on the H&M files in the folder HM=...
	$(call real-data,hm,HM,the H&M files)

# As a shop whose catalogue is ahead of its log: there, what nobody has bought is new, not unwanted.
.PHONY: hm-cold
hm-cold: setup ## The same with one article in ten held out of the log.
	@test -n "$(HM)" || { echo "make hm-cold: expected HM=folder of the H&M files, received nothing" >&2; exit 2; }
	$(BIN)/python -m pipelines.hm $(HM) data/hm-cold --cold
	$(TFMM) prepare data/hm-cold data/hm-cold-prepared --recipe pipelines/hm.toml
	$(TFMM) train data/hm-cold-prepared --recipe pipelines/hm.toml --set affinity.new_boost=1.2 --run runs/hm-cold --strategy $(STRATEGY) $(if $(RESTART),--restart)
	$(TFMM) export runs/hm-cold data/hm-cold-prepared --saved-models saved_models/hm-cold
	$(TFMM) evaluate saved_models/hm-cold/hm data/hm-cold-prepared --json runs/hm-cold/evaluation.json

.PHONY: beauty
beauty: setup ## Train next-item prediction on the Amazon Beauty files in the folder BEAUTY=...
	$(call real-data,beauty,BEAUTY,the Amazon Beauty files,--json runs/beauty/evaluation.json)

FASHION_DIRECTIONS := text-to-photo photo-to-text

.PHONY: fashion
fashion: setup ## Train on the fashion photos and names in the folder FASHION=...
	@test -n "$(FASHION)" || { echo "make fashion: expected FASHION=folder of the fashion files, received nothing" >&2; exit 2; }
	$(BIN)/python -m pipelines.fashion $(FASHION) data/fashion
	for part in train $(FASHION_DIRECTIONS); do \
	  $(TFMM) prepare data/fashion/$$part data/fashion-prepared/$$part --recipe pipelines/fashion.toml; done
	$(TFMM) train data/fashion-prepared/train --recipe pipelines/fashion.toml --run runs/fashion --strategy $(STRATEGY) $(if $(RESTART),--restart)
	for part in $(FASHION_DIRECTIONS); do \
	  $(TFMM) export runs/fashion data/fashion-prepared/$$part --saved-models saved_models/$$part; \
	  $(TFMM) evaluate saved_models/$$part/fashion data/fashion-prepared/$$part --json runs/fashion/$$part.json; done

.PHONY: barista
barista: setup ## Train on the spoken drink orders in the folder SPEECH=...
	$(call real-data,barista,SPEECH,the speech files,--json runs/barista/evaluation.json)

.PHONY: chinese
chinese: setup ## Train on the Taobao titles in the folder CHINESE=...
	$(call real-data,chinese,CHINESE,the Chinese files,--json runs/chinese/evaluation.json)

# --- checks -------------------------------------------------------------------------------------

.PHONY: test
test: lint typecheck ## Lint, type-check and run the quick tests.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "not slow"

.PHONY: test-all
test-all: lint typecheck ## The same with the slow tests.
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

.PHONY: lint
lint: $(INSTALLED) ## Check style and formatting.
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

.PHONY: typecheck
typecheck: $(INSTALLED) ## Check types.
	$(BIN)/mypy

.PHONY: format
format: $(INSTALLED) ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# --- cleaning -----------------------------------------------------------------------------------

.PHONY: clean
clean: ## Remove caches and build leftovers; data, runs, models and the environment stay.
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis *.egg-info
	find tfmm pipelines benchmarks tests -name __pycache__ -prune -exec rm -rf {} +

.PHONY: distclean
distclean: clean ## Also remove the environment, data, runs and published models, after asking.
	@read -r -p "Remove the virtual environments, data/, runs/ and all published models? [y/N] " answer; \
	  [ "$$answer" = y ] || { echo "nothing removed"; exit 1; }
	rm -rf .venv .venv-tpu data runs
	find saved_models -mindepth 1 -maxdepth 1 -not -name README.md -exec rm -rf {} +
