# make run and make test need Go and make, nothing else.
SHELL := bash
.ONESHELL:
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

GO ?= go
TOOL = $(GO) tool -modfile=.tools/go.mod
DATA ?= .fanfare
HTTP ?= 127.0.0.1:8080
EDGE ?= 127.0.0.1:8081
# The race detector needs cgo and a C compiler; the product needs neither.
RACE := $(shell command -v gcc >/dev/null 2>&1 || command -v clang >/dev/null 2>&1 && echo -race)
export CGO_ENABLED = 0

.PHONY: help run clean-data build test integration integration-here lint fmt gen gen-check tidy-check deploy-check sbom vuln bench bench-services screenshots fuzz check soak chaos

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

bin/fanfare: FORCE
	@[ -x bin/fanfare ] || echo "building, about a minute the first time"
	@$(GO) build -o bin/ ./cmd/fanfare
FORCE:

build: ## build every program into bin/
	$(GO) build -o bin/ ./cmd/...

run: bin/fanfare ## run the whole product on this machine, with a demo tenant and a simulated carrier: http://localhost:8080
	@exec bin/fanfare demo --data $(DATA) --http $(HTTP) --edge $(EDGE)

clean-data: ## delete the data of make run
	rm -rf $(DATA)

# The store's suite runs once with the race detector, on SQLite, and once without it, over a stand-in for Postgres: SQLite in Go is ten
# times slower with it. The simulation of the pipeline runs without it, for a minute, and with the tag that gives franz-go mutexes with
# which fake time goes on. ./cmd/fanfare runs alone and last: its end-to-end tests send at a rate and need the machine for themselves.
test: ## run all tests that need no services
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 30m -skip '^TestPostgresOverSQLite$$' $$($(GO) list ./... | grep -v -e '^fanfare/cmd/fanfare$$' -e '^fanfare/pipeline/simulation$$')
	$(GO) test -timeout 30m -run '^TestPostgresOverSQLite$$' ./api/store
	$(GO) test -tags synctests -timeout 30m ./pipeline/simulation
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -timeout 30m ./cmd/fanfare

# The tests of stages, stores and sinks on real services, one package at a time; last the end-to-end tests on many processes.
integration: ## run the tests on real Kafka, Redis, ClickHouse and Postgres, and those with carriers' peers
	$(GO) run ./deploy/testinfra/with $(MAKE) --no-print-directory integration-here

integration-here:
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -count=1 -timeout 20m -run Integration ./api/store
	CGO_ENABLED=$(if $(RACE),1,0) $(GO) test $(RACE) -count=1 -p 1 -timeout 20m $$($(GO) list ./pipeline/... ./sinks/analytics/... | grep -v '^fanfare/pipeline/simulation$$')
	$(GO) test -count=1 -timeout 10m -run Integration ./sinks/carrier/... ./api/edge
	$(GO) test -count=1 -timeout 40m -run Integration ./cmd/fanfare

lint: ## run vet, golangci-lint and buf
	$(GO) vet ./...
	$(TOOL) golangci-lint run ./...
	$(TOOL) buf lint schemas
	$(TOOL) buf breaking schemas --against schemas/golden/v1.binpb

fmt: ## format all Go files
	$(TOOL) golangci-lint fmt ./...

# A recipe is one shell (.ONESHELL): without the subshell of buf, go generate would see the packages of schemas only.
gen: ## generate code and files
	(cd schemas && $(GO) tool -modfile=../.tools/go.mod buf generate)
	$(GO) generate ./...

deploy-check: ## check the files for Docker, Kubernetes, Prometheus, systemd and GitHub
	deploy/check

SBOM ?= bin/fanfare.cdx.json

sbom: ## write the bill of materials of the program (CycloneDX)
	$(GO) build -o bin/ ./cmd/fanfare
	$(TOOL) cyclonedx-gomod bin -json -std -noserial -output $(SBOM) bin/fanfare

# govulncheck exits with 3 when the program calls what is vulnerable, and with another status when it could not find out.
vuln: ## compare the program with the database of vulnerabilities of Go, if the database can be reached
	$(GO) build -o bin/ ./cmd/fanfare
	status=0
	$(TOOL) govulncheck -mode binary bin/fanfare || status=$$?
	[ $$status -ne 3 ] || exit 1
	[ $$status -eq 0 ] || echo "vulnerabilities: not checked, govulncheck says why above"

gen-check: ## fail if make gen changes a file
	state() { git status --porcelain; git diff; }
	before=$$(state)
	$(MAKE) -s gen
	[ "$$before" = "$$(state)" ] || { git status --short; echo "generated files differ: run make gen and commit"; exit 1; }

# FANFARE_BENCH_PEOPLE is the number of recipients of G10, by default a million.
bench: ## measure the goals of speed (ratios, each in one run), embedded
	$(GO) test -run '^$$' -bench '$(or $(BENCH),G[0-9]|Import|ServeStart|SMPP|UnpublishedIdle|SlowCampaigns|IdleStep|Scale)' -benchtime 2s -timeout 60m -p 1 ./...

bench-services: ## measure them on real Kafka, Redis, ClickHouse and Postgres
	$(GO) run ./deploy/testinfra/with $(GO) test -run '^$$' -bench '$(or $(BENCH),G[1246789]$$|SMPP)' -benchtime 2s -timeout 60m -p 1 ./api ./pipeline/... ./sinks/analytics/clickhouse ./sinks/carrier/smpp

soak: ## run ten minutes without ClickHouse, and 45 s without each service in turn
	FANFARE_TEST_AWAY=10m $(GO) run ./deploy/testinfra/with $(GO) test -count=1 -timeout 30m -run ClickHouseAway ./sinks/analytics/feed
	FANFARE_TEST_AWAY=45s $(GO) run ./deploy/testinfra/with $(GO) test -count=1 -timeout 30m -run IntegrationRoles ./cmd/fanfare

# SEEDS is how many seeds of the simulation run, FOR is how long they may take in all.
chaos: ## simulate the pipeline with 50,000 seeds or for an hour, and run the end-to-end test and the window tests ROUNDS times
	FANFARE_TEST_FIRST_SEED=$$RANDOM$$RANDOM FANFARE_TEST_SEEDS=$${SEEDS:-50000} FANFARE_TEST_FOR=$${FOR:-1h} $(GO) test -tags synctests -count=1 -v -timeout 24h -run 'TestSimulation$$' ./pipeline/simulation
	for i in $$(seq $${ROUNDS:-5}); do FANFARE_TEST_SEED=$$RANDOM$$RANDOM $(GO) test -count=1 -run 'EndToEndEmbedded|WindowsUnderChance' ./cmd/fanfare ./pipeline/window; done

SCREENSHOTS := grid-light-1440 grid-dark-1440 realtime-light-1440 analytics-light-1440 member-light-1440 wizard-compare-light-1440 money-light-1440 members-light-390

screenshots: ## take the README's pictures of the console anew (needs Chromium)
	pictures=$$(mktemp -d)
	CI=1 $(GO) test ./api -count=1 -run TestConsoleScreens -pictures $$pictures
	mkdir -p deploy/screenshots
	for name in $(SCREENSHOTS); do cp $$pictures/$$name.png deploy/screenshots/; done
	rm -r $$pictures

fuzz: ## run every fuzz target for FUZZTIME
	for p in $$($(GO) list ./...); do for f in $$($(GO) test -list '^Fuzz' $$p | grep '^Fuzz' || true); do $(GO) test -run '^$$' -fuzz "^$$f$$" -fuzztime $${FUZZTIME:-20s} $$p; done; done

tidy-check:
	$(GO) mod tidy -diff

check: test lint gen-check tidy-check deploy-check ## run what CI runs without services
