# SPDX-License-Identifier: Apache-2.0
# On a fresh Debian machine with Go and Python, as root: `make demo`, `make test`.
# What is missing is installed (Debian packages) or fetched into .cache (Envoy).

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-builtin-rules
.DEFAULT_GOAL := help

ENVOY := .cache/envoy/1.40.0/envoy
PROMETHEUS := .cache/prometheus
# Where tests find what they run.
export NODEVOY_BIN := $(CURDIR)/bin/nodevoy
export NODEVOY_ENVOY := $(CURDIR)/$(ENVOY)
export NODEVOY_COLLECTOR := $(CURDIR)/.cache/collector
export NODEVOY_PROMETHEUS := $(CURDIR)/$(PROMETHEUS)
export NODEVOY_ASSETS := $(CURDIR)/.cache/cluster/bin

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GO_BUILD := CGO_ENABLED=0 go build -trimpath -ldflags '-s -w -X main.version=$(VERSION)'

# For the agent, its tests and the cluster; and for the race detector.
PACKAGES := iptables ipset iproute2 nftables conntrack jq openssl procps
RACE_PACKAGES := gcc libc6-dev

# Run by `make test`, in this order: what needs no root comes first.
SUITES := lint unit page-test netns envoy-test chart-test apiserver e2e attack-test demo
GO_TEST := go test -race -count=1 -timeout=20m
# Two tests at a time, each in a process and in namespaces of its own.
TWO_LANES := -exec '$(CURDIR)/test/tools/lanes.sh 2'
# Packages of the other suites; `unit` is all the rest.
SUITE_PACKAGES := /test/(netns|envoy|page|chart|apiserver|e2e|cluster|programs|bench)(/|$$)
FUZZTIME ?= 30s
TIME ?= 10m
COUNT ?= 1
CHURN_PODS ?= 200
CHURN_TIME ?= 10m
# Envoy's memory limit in MiB while it is attacked: the chart's default.
ATTACK_LIMIT ?= 1024
# Instead of each attack in turn, random ones for this long.
ATTACK_TIME ?= 0s

include test/cluster/cluster.mk
include test/programs/programs.mk

.PHONY: help build envoy deps race-deps clean image demo demo-down
.PHONY: test lint unit netns envoy-test page-test chart-test apiserver e2e attack-test attack churn churn-api differential fuzz bench

help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | column -t -s $$'\t'

demo: build envoy deps ## run the demo in network namespaces (KEEP=1 keeps it running; MODE=pod, host or auto)
	@go build -o .cache/demo ./test/demo
	@.cache/demo

demo-down: ## stop a demo that was kept running
	@go run ./test/demo down

test: ## every suite below, one after another, with a summary
	@MAKE='$(MAKE)' test/tools/suites.sh $(SUITES)

lint: ## vet, formatting and linters
	test/tools/lint.sh

unit: race-deps deps ## unit and scenario tests
	$(GO_TEST) $$(go list ./... | grep -vE '$(SUITE_PACKAGES)')

page-test: race-deps ## the debug endpoint's page in Chromium (SCREENSHOTS=DIR writes pictures of it)
	@test/tools/apt.sh chromium
	NODEVOY_SCREENSHOTS='$(abspath $(SCREENSHOTS))' $(GO_TEST) ./test/page

netns: race-deps deps ## rules, sets and routes on the real kernel, in network namespaces
	$(GO_TEST) $(TWO_LANES) ./test/netns/...

envoy-test: race-deps deps envoy ## configuration on the real Envoy
	$(GO_TEST) ./test/envoy/...

chart-test: race-deps envoy build $(CLUSTER)/bin/helm $(PROMETHEUS)/promtool ## the Helm chart, without a cluster
	$(GO_TEST) ./test/chart/...

apiserver: race-deps deps envoy build $(APISERVER_BINARIES) ## the agent on a real etcd and kube-apiserver
	$(GO_TEST) ./test/apiserver/...

# A collector of OpenTelemetry, in a module of its own.
.cache/collector: test/collector/main.go test/collector/go.mod test/collector/go.sum
	cd test/collector && CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o $(CURDIR)/$@ .

e2e: race-deps deps envoy build .cache/collector $(PROMETHEUS)/promtool ## agent, Envoy, kernel and pods together
	$(GO_TEST) $(TWO_LANES) ./test/e2e/...

attack-test: deps envoy build ## some of the attacks, by one pod
	go build -o .cache/attack ./test/attack
	.cache/attack -short -limit $(ATTACK_LIMIT)

attack: deps envoy build ## pods attack their node's Envoy beside a victim, in each mode (ATTACK_LIMIT=MiB, ATTACK_TIME=30m)
	go build -o .cache/attack ./test/attack
	.cache/attack -limit $(ATTACK_LIMIT) -random $(ATTACK_TIME)

# Without the race detector: the callers of 200 pods are one program.
churn: deps envoy build ## create and delete pods under load, CHURN_PODS at a time for CHURN_TIME
	NODEVOY_CHURN='$(CHURN_PODS) $(CHURN_TIME)' go test -count=1 -timeout=2h -v -run '^TestChurn$$' ./test/e2e

churn-api: envoy build $(APISERVER_BINARIES) $(CLUSTER)/bin/kube-proxy ## processor time of changes among 10,000 Services, of the agent and of kube-proxy
	go test -count=1 -timeout=1h -run '^$$' -bench '^BenchmarkChurn$$' -benchtime 1x ./test/apiserver

differential: deps envoy ## random exchanges, directly and through Envoy, for TIME in each mode
	NODEVOY_DIFFERENTIAL_TIME=$(TIME) go test -count=1 -timeout=24h -v -run '^TestDifferential$$' ./test/envoy

fuzz: ## every fuzz target for FUZZTIME each
	test/tools/fuzz.sh $(FUZZTIME)

bench: build envoy deps ## benchmarks, and the cost of a request with and without nodevoy
	go test -run '^$$' -bench . -benchmem -count $(COUNT) ./agent/... ./redirect/... ./xds/... ./test/netns/... | tee .cache/bench.txt
	go tool -modfile=test/tools/go.mod benchstat .cache/bench.txt
	go build -o .cache/bench ./test/bench
	.cache/bench

build: ## build bin/nodevoy, bin/nodevoy-probe, bin/nodevoy-launch and bin/kubectl-nodevoy
	$(GO_BUILD) -o bin/ ./cmd/...

envoy: $(ENVOY) ## fetch the pinned Envoy into .cache

$(ENVOY): test/tools/envoy.txt test/tools/envoy.sh
	test/tools/envoy.sh $@
	@touch $@

$(PROMETHEUS)/promtool: test/tools/prometheus.sh
	test/tools/prometheus.sh $(CURDIR)/$(PROMETHEUS)
	@touch $@

image: ## build the agent's container image, by docker, podman or buildah
	test/tools/image.sh $(VERSION)

deps:
	@test/tools/apt.sh $(PACKAGES)

race-deps:
	@test/tools/apt.sh $(RACE_PACKAGES)

clean: cluster-down ## remove what was built and fetched
	rm -rf bin .cache
