# Margay's house-keeping. `make` alone lists what there is.
#
# As root on Debian 12 with Go and make, every target installs what it needs by
# itself (hack/deps.sh); build and lint need nothing but Go.

SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.NOTPARALLEL: # the suites below measure, and share the host's network

FUZZTIME  ?= 30s
FUZZ      ?= .
BENCH     ?= .
BENCHTIME ?= 1x

VERSION := $(shell git describe --tags --match 'v*' --dirty 2>/dev/null)
COMMIT  := $(shell git describe --always --exclude '*' --abbrev=12 --dirty 2>/dev/null)
INTO    := margay.dev/margay/internal/version
LDFLAGS := -X $(INTO).version=$(VERSION) -X $(INTO).commit=$(COMMIT)

# What a build is stamped with comes from LDFLAGS; asking git a second time
# would make a build fail where git distrusts the owner of the folder.
export GOFLAGS := $(GOFLAGS) -buildvcs=false

# Packages that are not bound to Linux, as they come to stand.
PORTABLE := $(patsubst %,./%/...,$(wildcard internal/version internal/pkt fastpath/fib fastpath/filter api))

STAMP := .cache/deps.stamp

.PHONY: help
help: ## show this list
	@printf 'make TARGET, of these:\n\n'
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  %-9s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@printf '\nFUZZTIME=%s FUZZ=%s BENCH=%s BENCHTIME=%s may be set on the command line.\n' \
		'$(FUZZTIME)' '$(FUZZ)' '$(BENCH)' '$(BENCHTIME)'

.PHONY: build
build: ## build every program into bin/
	@mkdir -p bin
	@for p in $$(go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./... | grep -E '/(cmd|bench)(/|$$)' || true); do \
		name=$${p##*/}; [ "$$name" != bench ] || name=margay-bench; \
		echo "build bin/$$name"; go build -trimpath -ldflags '$(LDFLAGS)' -o "bin/$$name" "$$p"; \
	done

.PHONY: demo
demo: build $(STAMP) ## two nodes, four pods, real traffic between them, policy, one packet traced; ends with "demo: ok"
	bin/margay-lab demo

.PHONY: test
test: build $(STAMP) ## every test, as root; then those the race detector can see, under it
	hack/test.sh
	hack/test.sh -race

.PHONY: race
race: build $(STAMP) ## the tests under the race detector, without the plain run
	hack/test.sh -race

.PHONY: fuzz
fuzz: $(STAMP) ## each fuzz target for FUZZTIME; FUZZ=REGEXP picks some
	hack/fuzz.sh '$(FUZZ)' '$(FUZZTIME)'

.PHONY: bench
bench: $(STAMP) ## each benchmark once; BENCH=REGEXP and BENCHTIME=1s for figures
	go test -p 1 -run '^$$' -bench '$(BENCH)' -benchtime '$(BENCHTIME)' ./...

.PHONY: lint
lint: ## formatting, vet, staticcheck, unused assignments, builds for arm64 and Windows
	hack/lint.sh $(PORTABLE)

.PHONY: arch
arch: ## the rules of the house: imports, sizes, names, comments, the packet path
	go test -count=1 ./internal/arch

.PHONY: generate
generate: $(STAMP) ## make generated files anew: eBPF objects, protobuf, deep copies and CRDs
	go generate ./...

.PHONY: check
check: ## all that a change must pass: lint, arch, generate without a difference, test, demo
	$(MAKE) lint
	$(MAKE) arch
	$(MAKE) $(STAMP)
	hack/generated.sh $(MAKE) generate
	$(MAKE) test
	$(MAKE) demo

.PHONY: clean
clean: ## remove what was built
	rm -rf bin .cache

# Packages are installed once for each version of the list.
$(STAMP): hack/deps.sh
	hack/deps.sh
	@mkdir -p $(@D)
	@touch $@
