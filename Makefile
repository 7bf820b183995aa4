# Menshen. `make help` lists the targets; each one prepares what it needs.

SHELL := /bin/sh
.DEFAULT_GOAL := help

GO       ?= go
VERSION  := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
LDFLAGS  := -X main.version=$(VERSION)
# Results record the commit that they were measured at. Where git does not answer,
# in an archive or a checkout of somebody else's, Go is not to ask it either.
VCS      := $(shell git status --porcelain >/dev/null 2>&1 && echo true || echo false)
ifeq ($(VCS),false)
export GOFLAGS := $(strip $(GOFLAGS) -buildvcs=false)
endif
# libjpeg-turbo decodes JPEG where its library is installed (Debian:
# libturbojpeg0-dev), Go's standard library otherwise. TURBO= turns it off.
TURBO    := $(shell pkg-config --exists libturbojpeg 2>/dev/null && echo turbo)
TAGS     := $(if $(TURBO),-tags turbo)
TOOL     := $(GO) tool -modfile=tools/go.mod
BUF      := tools/node_modules/.bin/buf
BUF_VERSION := 1.75.0
FUZZTIME ?= 30s
# For a package's tests: a bound on a hang, far above what slow cores need.
TIMEOUT  ?= 30m

# The models call ONNX Runtime, which is C.
export CGO_ENABLED := 1

# What is downloaded is asked for three times.
RETRY    := retry() { "$$@" || { sleep 5; "$$@"; } || { sleep 20; "$$@"; }; }; retry

.PHONY: help demo run test check build runtime modules gen gen-check lint vet format-check buf-lint buf-breaking proto-baseline race fuzz bench bench-compare bench-search bench-inference load accuracy clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build ## the main job, end to end, on synthetic faces (under a minute)
	bin/menshen demo

run: build ## a development server on loopback, with the evaluation model
	bin/menshen serve --dev

test: runtime ## all tests; where libjpeg-turbo is there, the image path with and without it
	$(GO) test $(TAGS) -timeout $(TIMEOUT) ./...
	$(if $(TURBO),$(GO) test -timeout $(TIMEOUT) ./models/...)

check: modules build vet format-check lint buf-lint buf-breaking gen-check test race ## everything that CI runs

build: runtime ## bin/menshen and bin/menshen-bench
	$(GO) build -buildvcs=$(VCS) $(TAGS) -trimpath -ldflags '$(LDFLAGS)' -o bin/ ./cmd/menshen ./cmd/menshen-bench

runtime: ## the ONNX Runtime library, into the user's cache folder
	@sh models/fetch-runtime.sh >/dev/null

modules: ## the Go modules of the product, its tests and its tools
	@$(RETRY) $(GO) list -deps -test ./... >/dev/null
	@$(RETRY) $(GO) list -modfile=tools/go.mod -deps tool >/dev/null

gen: $(BUF) ## generated Go from proto/, assembly from index/kernel/gen
	$(BUF) generate
	$(GO) generate ./index/kernel

gen-check: $(BUF) ## fail when what is generated is not that of its source
	@set -e; out=$$(mktemp -d); trap 'rm -rf "$$out"' EXIT; \
	$(BUF) generate --output "$$out"; \
	cp -r index/kernel "$$out/kernel"; (cd "$$out/kernel" && printf 'module kernel\n\ngo 1.26\n' > go.mod && $(GO) generate .); \
	cp "$$out"/kernel/*_amd64.* "$$out"/kernel/*_arm64.* "$$out/"; \
	for f in proto/menshen/v1/*.pb.go; do cmp "$$f" "$$out/$$f" || { echo "$$f is stale: run make gen"; exit 1; }; done; \
	for f in index/kernel/*_amd64.* index/kernel/*_arm64.*; do cmp "$$f" "$$out/$${f##*/}" || { echo "$$f is stale: run make gen"; exit 1; }; done

lint: ## staticcheck, as staticcheck.conf says
	$(TOOL) staticcheck $(TAGS) ./...
	$(if $(TURBO),$(TOOL) staticcheck ./models/...)

vet: ## go vet
	$(GO) vet $(TAGS) ./...
	$(if $(TURBO),$(GO) vet ./models/...)

format-check: ## fail on files that gofmt would change
	@files=$$($$($(GO) env GOROOT)/bin/gofmt -l $$(git ls-files -co --exclude-standard '*.go') </dev/null); \
	if [ -n "$$files" ]; then echo "not gofmt'ed, run gofmt -w on:"; echo "$$files"; exit 1; fi

buf-lint: $(BUF) ## style of proto/
	$(BUF) lint

buf-breaking: $(BUF) ## fail when proto/ breaks the clients of the last release
	$(BUF) breaking --against proto/baseline.binpb

proto-baseline: $(BUF) ## record proto/ as the API that clients rely on; for releases
	$(BUF) build --exclude-source-info -o proto/baseline.binpb

race: runtime ## the concurrent packages under the race detector
	$(GO) test $(TAGS) -race -short -timeout $(TIMEOUT) ./index/... ./matcher/... ./models ./models/pipeline

fuzz: runtime ## every fuzz target for FUZZTIME each
	@set -e; for pkg in $$($(GO) list ./...); do \
	  for target in $$($(GO) test $(TAGS) -list '^Fuzz' $$pkg 2>/dev/null | grep '^Fuzz' || true); do \
	    echo "$$pkg $$target"; $(GO) test $(TAGS) -run '^$$' -fuzz "^$$target$$" -fuzztime $(FUZZTIME) $$pkg; \
	  done; done

bench: runtime ## Go benchmarks
	$(GO) test $(TAGS) -run '^$$' -bench . -benchmem ./...

# BASE is the commit to compare with, PKG the packages, BENCH which benchmarks.
BASE  ?= HEAD
PKG   ?= ./index/...
BENCH ?= .
COUNT ?= 6

bench-compare: runtime ## Go benchmarks here and at BASE, by benchstat: make bench-compare BASE=HEAD~1 PKG=./index
	@set -e; tree=$$(mktemp -d); trap 'git worktree remove --force "$$tree/base"; rm -rf "$$tree"' EXIT; \
	git worktree add -q --detach "$$tree/base" $(BASE); \
	(cd "$$tree/base" && $(GO) test $(TAGS) -run '^$$' -bench '$(BENCH)' -count $(COUNT) $(PKG)) > "$$tree/base.txt"; \
	$(GO) test $(TAGS) -run '^$$' -bench '$(BENCH)' -count $(COUNT) $(PKG) > "$$tree/here.txt"; \
	$(TOOL) benchstat "$$tree/base.txt" "$$tree/here.txt"

bench-search: build ## the search benchmark against a fair fp32 scan, in one run
	bin/menshen-bench search --gallery 1000000 --dim 512 --probes 256

bench-inference: build ## the service against raw ONNX Runtime: make bench-inference DETECTOR=d EMBEDDER=e PHOTOS=dir
	bin/menshen-bench inference --detector "$(DETECTOR)" --embedder "$(EMBEDDER)" --photos "$(PHOTOS)"

# PROFILE is overload, doors-open, fairness, stalled, ...; LOAD holds further flags.
PROFILE ?= overload

load: build ## a server under load: make load PROFILE=overload LOAD='--mix verify:crop --embedder e'
	bin/menshen-bench load --profile $(PROFILE) $(LOAD)

accuracy: build ## error rates on your own photos: make accuracy FOLDERS=dir DETECTOR=d EMBEDDER=e
	bin/menshen-bench accuracy --folders "$(FOLDERS)" --detector "$(DETECTOR)" --embedder "$(EMBEDDER)"

clean: ## what was built here; the cache folder stays
	rm -rf bin tools/node_modules

# npm runs no script of the package; the version is exact and npm checks its hash.
$(BUF):
	@$(RETRY) npm install --prefix tools --no-save --no-package-lock --ignore-scripts --no-audit --no-fund --loglevel=error @bufbuild/buf@$(BUF_VERSION)
