# make run and make test need Go and make, nothing else.
SHELL := bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
TOOL = $(GO) tool -modfile=.tools/go.mod
DATA ?= .fanfare
HTTP ?= 127.0.0.1:8080
# The race detector needs cgo and a C compiler; the product needs neither.
RACE := $(shell command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 && echo -race)
export CGO_ENABLED = 0

.PHONY: help run clean-data build test integration integration-here lint fmt gen gen-check tidy-check deploy-check bench bench-services fuzz check soak chaos

help: ## what can be made
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

bin/fanfare: FORCE
	@[ -x bin/fanfare ] || echo "building, about a minute the first time"
	@$(GO) build -o bin/ ./cmd/fanfare
FORCE:

build: ## every program, into bin/
	$(GO) build -o bin/ ./cmd/...

run: bin/fanfare ## the whole product on this machine: demo tenant, simulated carrier, UI at http://localhost:8080
	@exec bin/fanfare demo --data $(DATA) --http $(HTTP)

clean-data: ## forget what make run keeps
	rm -rf $(DATA)

# The programs run alone at last: they send against the clock, and want the machine for themselves.
test: ## everything that needs nothing installed
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 30m $$($(GO) list ./... | grep -v '^fanfare/cmd/fanfare$$')
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 30m ./cmd/fanfare

# What the stages and stores promise, on real services, a package at a time; at last the end-to-end body on many processes.
integration: ## the same on real Kafka, Redis, ClickHouse and Postgres
	$(GO) run ./deploy/testinfra/with $(MAKE) --no-print-directory integration-here

integration-here:
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -count=1 -p 1 -timeout 20m ./api/store ./pipeline/... ./sinks/analytics/...
	$(GO) test -count=1 -timeout 40m -run Integration ./cmd/fanfare

lint: ## vet, golangci-lint and buf
	$(GO) vet ./...
	$(TOOL) golangci-lint run ./...
	$(TOOL) buf lint schemas
	$(TOOL) buf breaking schemas --against schemas/golden/v1.binpb

fmt: ## format
	$(TOOL) golangci-lint fmt ./...

gen: ## generated code
	cd schemas && $(GO) tool -modfile=../.tools/go.mod buf generate
	$(GO) generate ./...

deploy-check: ## what Docker, Kubernetes, Prometheus and systemd read
	deploy/check

gen-check: ## fails when generating changes anything
	state() { git status --porcelain; git diff; }
	before=$$(state)
	$(MAKE) -s gen
	[ "$$before" = "$$(state)" ] || { git status --short; echo "generated files differ: run make gen and commit"; exit 1; }

# FANFARE_BENCH_PEOPLE: how many G10 sends to, a million unless it says otherwise.
bench: ## the design's goals as ratios, each measured in one run: embedded
	$(GO) test -run '^$$' -bench '$(or $(BENCH),G[0-9]|Import|ServeStart)' -benchtime 2s -timeout 60m -p 1 ./...

bench-services: ## the same on real Kafka, Redis, ClickHouse and Postgres
	$(GO) run ./deploy/testinfra/with $(GO) test -run '^$$' -bench '$(or $(BENCH),G[1246789]$$)' -benchtime 2s -timeout 60m -p 1 ./api ./pipeline/... ./sinks/analytics/clickhouse

soak: ## ten minutes without ClickHouse, 45 s without each service in turn
	FANFARE_TEST_AWAY=10m $(GO) run ./deploy/testinfra/with $(GO) test -count=1 -timeout 30m -run ClickHouseAway ./sinks/analytics/feed
	FANFARE_TEST_AWAY=45s $(GO) run ./deploy/testinfra/with $(GO) test -count=1 -timeout 30m -run IntegrationRoles ./cmd/fanfare

chaos: ## the end-to-end body and the windows, ROUNDS times with other seeds
	for i in $$(seq $${ROUNDS:-5}); do FANFARE_TEST_SEED=$$RANDOM$$RANDOM $(GO) test -count=1 -run 'EndToEndEmbedded|WindowsUnderChance' ./cmd/fanfare ./pipeline/stream; done

fuzz: ## every fuzz target for a while
	for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-20s} $$p; done; done

tidy-check:
	$(GO) mod tidy -diff

check: test lint gen-check tidy-check deploy-check ## what CI checks without services
