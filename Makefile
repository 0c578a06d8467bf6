# Everything that a person or a build server does here. `make help` lists it.
# Folder names may hold spaces: recipes use paths relative to this folder, never $(CURDIR) as a list.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
export PYTHON
# Where it is set, each of the thousands of processes of a test run compiles the same modules again.
unexport PYTHONDONTWRITEBYTECODE

DEV := .venv/dev/bin
SAM := AWS_DEFAULT_REGION=$${AWS_DEFAULT_REGION:-us-east-1} SAM_CLI_TELEMETRY=0 .venv/sam/bin/sam
# One more than there are cores, since tests wait for other processes; more of them would only set up more. Who is done
# takes over from who is not.
WORKERS := -n $(shell echo $$((1 + $$(nproc)))) --dist worksteal
# The same by whole files, the longest first (tests/conftest.py): what a file sets up, it sets up once.
BY_FILES := $(WORKERS:worksteal=loadfile) --no-loadscope-reorder
# Those that a lifecycle configuration may name: the block is tried in each.
SHELLS := bash busybox dash ksh93 mksh zsh
# What the local run needs of the machine.
TOOLS := sshd ssh curl libnss_wrapper.so
LOCAL := PYTHONPATH=local:layers/core .venv/emulator/bin/python

.PHONY: help demo local aws test quick nightly test-nightly simulate mutation load iam-check lint audit bench build size deploy environments hooks oldest version verify release fresh clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 } /^#> / { printf "%20s%s\n", "", substr($$0, 4) }' Makefile

demo: ## the whole system on this machine, from tag to ssh
	@packaging/tools.sh $(TOOLS)
	@packaging/environments.sh emulator
	@$(LOCAL) local/demo.py

local: ## the first half of it, then a terminal of your own
#> Ctrl-C ends it
	@packaging/tools.sh $(TOOLS)
	@packaging/environments.sh emulator aws
	@$(LOCAL) local/playground.py

aws: ## an AWS account on this machine, to try docs/deploy.md in
#> Ctrl-C ends it
	@packaging/tools.sh $(TOOLS)
	@packaging/environments.sh emulator sam aws
	@$(LOCAL) local/account.py

test: ## every check there is
	@packaging/tools.sh $(TOOLS) git rsync $(SHELLS) $$([ "$$(id -u)" != 0 ] || echo ip nft) # the last two for network namespaces
	@packaging/environments.sh dev emulator sam aws audit release recipes
	@echo "Lint"
	@packaging/lint.sh
	@echo "Tests"
	@chosen=(); if [ "$$(id -u)" != 0 ]; then chosen=(-m "not needs_root"); \
	echo "  as an ordinary user: without the tests that need root, for network namespaces"; fi; \
	$(DEV)/pytest -q $(BY_FILES) "$${chosen[@]}" $(TESTS)

quick: ## the fast tests, which need no emulator
#> make quick TESTS=tests/unit/test_x.py
	@packaging/environments.sh dev
	@$(DEV)/pytest -q --quick $(WORKERS) $(or $(TESTS),tests/unit tests/functions)

nightly: test-nightly ## what need not run with each change: hours
#> the matrix, long simulations, mutation, iam-check, load
	@$(MAKE) simulate STEPS=1000000
	@$(MAKE) simulate DAYS=200
	@$(MAKE) mutation
	@$(MAKE) iam-check
	@$(MAKE) load

test-nightly:
	@packaging/tools.sh autossh lftp node npm plink psftp puttygen rclone sshfs
	@packaging/environments.sh compute node awscli2
	@$(MAKE) test TESTS=--nightly

simulate: ## the control plane among faults; or notebooks without it
#> make simulate STEPS=1000000 SEED=1; REPLAY=seed ONLY=steps
#> make simulate DAYS=100 SEED=1
	@packaging/environments.sh dev
	@PYTHONPATH=layers/core:functions:local:tests $(DEV)/python -m $(if $(DAYS),support.agent_day --days $(DAYS),simulation.explore \
		--steps $(or $(STEPS),1000000) $(if $(REPLAY),--replay $(REPLAY))) --seed $(or $(SEED),1) $(if $(ONLY),--only $(ONLY))

mutation: ## safeguards removed from a copy: does the simulation fail?
#> make mutation RUNS=400 ONLY="last read"
	@packaging/environments.sh dev
	@PYTHONPATH=tests $(DEV)/python -m simulation.safeguards --runs $(or $(RUNS),400) --only "$(ONLY)"

load: ## a fleet that reports, is looked up, and starts at once
#> make load NOTEBOOKS=1000 LOOKUPS=50 SECONDS=60
	@packaging/environments.sh emulator
	@$(LOCAL) local/load.py --notebooks $(or $(NOTEBOOKS),1000) --lookups $(or $(LOOKUPS),50) --seconds $(or $(SECONDS),60)
	@$(LOCAL) local/starts.py --notebooks $(or $(NOTEBOOKS),1000) --seconds $(or $(SECONDS),60)

iam-check: ## each statement of the functions' policies denied in turn
	@packaging/environments.sh dev emulator
	@ALL_GRANTS=1 $(DEV)/pytest -q -n 2 tests/integration/test_denied_statements.py

lint: ## style, types, layers, shell and template
	@packaging/environments.sh dev sam audit
	@packaging/lint.sh

audit: ## known weaknesses of every pinned package; needs a network
#> make audit OSV=address    with a copy of osv.dev
	@packaging/environments.sh audit
	@packaging/audit.sh

build: ## what `sam deploy` uploads, in .aws-sam/build
	@packaging/environments.sh sam
	@$(SAM) build

bench: ## every target of docs/performance.md, measured
#> make bench GROUPS="start warm" JSON=figures.json
	@packaging/environments.sh dev emulator awscli2
	@packaging/tools.sh $(TOOLS) openssl
	@packaging/tools.sh valgrind || echo "bench: without valgrind it goes on with perf or CPU times"
	@$(DEV)/python bench/run.py $(if $(JSON),--json "$(JSON)") $(GROUPS)

size: build ## how large that is, zipped
	@$(PYTHON) packaging/size.py .aws-sam/build

deploy: build ## build, and put it into your AWS account (docs/deploy.md)
	@$(SAM) deploy --guided

environments: ## the virtual environments alone
	@packaging/environments.sh dev emulator sam aws audit release recipes

hooks: ## the checks of .pre-commit-config.yaml before each commit
	@packaging/environments.sh dev
	@$(DEV)/pre-commit install

oldest: ## agent and client on Python 3.9, the oldest supported
#> make oldest PYTHON39=python3.9
	@packaging/tools.sh sshd ssh git rsync zsh
	@packaging/environments.sh dev client recipes
	@AGENT_PYTHON="$$PWD/.venv/client/bin/python" $(DEV)/pytest -q $(WORKERS) tests/agent
	@.venv/client/bin/python -m pytest -q tests/client

version: ## the version, or a new one everywhere and over the changes
#> make version NEW=1.2.3
	@$(PYTHON) packaging/version.py $(NEW)

verify: ## which unconfirmed facts hold on your AWS account?
#> make verify ARGS="--without-cost"; docs/verify.md
	@packaging/environments.sh verify
	@echo "$$PWD/client" > "$$(echo .venv/verify/lib/python3*/site-packages)/checkout.pth"
	@$(PYTHON) packaging/release.py --deployable .build/deployable
	@NBSSH_RELEASE=.build/deployable PYTHONPATH=verify .venv/verify/bin/python -m notebook_ssh_verify $(ARGS)

release: ## dist/notebook-ssh-VERSION.zip: deploys without a checkout
	@packaging/environments.sh release
	@.venv/release/bin/python packaging/release.py

fresh: ## the first commands on a Debian that has nothing; as root
#> make fresh SUITE=trixie PARTS="demo user" REMAKE=yes
	@$(PYTHON) packaging/fresh.py --suite "$(SUITE)" $(if $(REMAKE),--remake) $(PARTS)

clean: ## take away everything that was made here
	rm -rf .venv .build .aws-sam dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage
	find . -name __pycache__ -prune -exec rm -rf {} +
