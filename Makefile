# SPDX-License-Identifier: Apache-2.0
# One command on a fresh Debian machine with Go and Python: `make demo` or `make test`.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

ENVOY := .cache/envoy/1.40.0/envoy
export NODEVOY_ENVOY := $(CURDIR)/$(ENVOY)
export NODEVOY_BIN := $(CURDIR)/bin/nodevoy
export NODEVOY_ASSETS := $(CURDIR)/.cache/cluster/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# Debian packages: for the agent and its tests, for the race detector, for test/cluster.
PACKAGES := iptables ipset iproute2 nftables conntrack jq openssl procps
RACE_PACKAGES := gcc libc6-dev

SANDBOX := test/tools/sandbox.sh
GO_TEST := go test -race -count=1 -timeout=20m
# Suites that need a kernel of their own, or processes: all else is `unit`.
SUITE_PACKAGES := /test/(netns|envoy|apiserver|e2e|cluster|bench)(/|$$)

include test/cluster/cluster.mk

.PHONY: help build envoy clean deps race-deps lint unit test

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | sort | column -t -s $$'\t'

build: ## build bin/nodevoy
	$(GO_BUILD) -o bin/ ./cmd/...

envoy: $(ENVOY) ## fetch the pinned Envoy into .cache

$(ENVOY): test/tools/envoy.txt test/tools/envoy.sh
	test/tools/envoy.sh $@
	@touch $@

deps:
	@test/tools/apt.sh $(PACKAGES)

race-deps:
	@test/tools/apt.sh $(RACE_PACKAGES)

lint: ## vet, formatting and the house style
	test/tools/lint.sh

unit: race-deps ## unit and scenario tests, with the race detector
	$(GO_TEST) $$(go list ./... | grep -vE '$(SUITE_PACKAGES)')

test: ## every suite, with a summary
	@MAKE='$(MAKE)' test/tools/suites.sh lint unit

clean: ## remove what was built and fetched
	chmod -R u+w .cache 2>/dev/null || true
	rm -rf bin .cache
