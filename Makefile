# The two commands of the README are `make demo` and `make test`; the rest are parts of them.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENV := tools/python_env.sh
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help demo demo-down test lint: ## ruff, mypy, vermin, yamllint, ansible-lint, shellcheck, docs and changelog
	@tools/test.sh lint

unit: ## Unit tests
	@tools/test.sh unit

sanity: ## ansible-test sanity
	@tools/test.sh sanity

importer: ## Build, install and import as Galaxy does
	@tools/test.sh importer

integration: ## Real daemons and whole runs on this machine
	@tools/test.sh integration

molecule: ## Real hosts, with systemd and without
	@tools/test.sh molecule

newest: ## The newest ansible-core on Python 3.13
	@tools/test.sh newest

bench: ## Measure against the peers; no part of `make test`
	@tools/test.sh bench

clean: ## Remove what these targets made in this checkout (not the cache of archives)
	@[ ! -x .venv/bin/python ] || python tools/docker_engine.py stop
	@rm -rf .cache .venv tests/output
