# The two commands of the README are `make demo` and `make test`; the rest are parts of them.
SHELL := /bin/bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

ENV := tools/python_env.sh
export PATH := $(CURDIR)/.venv/bin:$(PATH)

.PHONY: help demo demo-down test lint unit sanity integration molecule newest importer bench clean

help: ## Show what there is
	@grep -hE '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

demo: ## A real builder on this machine, with certificates, proof and client settings
	@[ -e .venv/requirements-test.txt.sha256 ] || $(ENV) requirements-demo.txt
	@python tools/demo.py up

demo-down: ## Remove the demo, with every process, mount and file of it
	@[ ! -e .demo ] || [ -e .venv/requirements-test.txt.sha256 ] || $(ENV) requirements-demo.txt
	@if [ -e .demo ]; then python tools/demo.py down; else echo "There is no demo to remove."; fi

test: ## Everything that CI runs
	@tools/test.sh

lint: ## ruff, mypy, vermin, yamllint, ansible-lint, shellcheck, docs and changelog
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

bench: ## Measure against the peers; no part of make test
	@tools/test.sh bench

clean: ## Remove what these targets made in this checkout (not the cache of archives)
	@[ ! -x .venv/bin/python ] || python tools/docker_engine.py stop
	@rm -rf .cache .venv tests/output
