# The menu: `make` alone lists what there is. Every flag that the compiler is given stands here, once.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run build test torture overload bench bench-gate fmt tidy simulate fuzz sanitize install uninstall deb container

PROGRAM := .build/release/martlet
PREFIX := /usr/local
DESTDIR :=
RELEASE := --configuration release --static-swift-stdlib
# One build for everything that is tested: the speed of a release, with assertions on. It has a folder of its own, so
# that `make build` and `make test` do not undo each other's work.
TESTED := --configuration release --scratch-path .build/tests -Xswiftc -assert-config -Xswiftc Debug
QUIETLY := --quiet
# The fuzzer's own build: coverage as a guide, memory watched, assertions on, and five bugs that it has to find when asked.
FUZZED := --configuration release --scratch-path .build/fuzz --sanitize address -Xswiftc -sanitize=fuzzer -Xswiftc -use-ld=lld \
    -Xswiftc -assert-config -Xswiftc Debug -Xswiftc -DPLANTED_BUGS

help: ## this list
	@echo "make <target>:"
	@sed -nE 's/^([a-z-]+):.*## (.*)$$/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

run: build ## start a broker on 127.0.0.1:9092 with its data in ./data (installs and builds what is missing)
	@exec $(PROGRAM) server

build: ## build the program: .build/release/martlet
	@scripts/prepare build
	@swift build $(QUIETLY) $(RELEASE) --product martlet

test: tested ## install what the tests need, build, run every test (PARTS="swift clients kill9 …" for some)
	@python3 Tests/run.py $(PARTS)

torture: tested ## everything under the built program fails, under load of real clients (MINUTES=10, SEED=n to see one again)
	@MARTLET_TORTURE_SECONDS=$$(( $(or $(MINUTES),10) * 60 )) .build/venv/bin/python -u Tests/Driven/run.py torture \
	    --program .build/tests/release/martlet --seed $(or $(SEED),0) --filter survives_everything

overload: tested ## more than a broker can take, for so long a case (SECONDS=60)
	@MARTLET_OVERLOAD_SECONDS=$(or $(SECONDS),60) .build/venv/bin/python -u Tests/Driven/run.py overload --program .build/tests/release/martlet

install: ## put what was built where it belongs (PREFIX=/usr/local, DESTDIR=), with a systemd unit
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install install $(PROGRAM)

uninstall: ## take that away again, but for edited settings and the data
	@PREFIX='$(PREFIX)' DESTDIR='$(DESTDIR)' scripts/install uninstall

deb: build ## build a Debian package: .build/packages/martlet_….deb
	@scripts/prepare package
	@scripts/package $(PROGRAM) .build/packages

container: ## build a container image called martlet, with podman or docker
	@$$(command -v podman || command -v docker || echo podman) build --tag martlet --file Containerfile .

bench: bench-programs ## the project's own benchmarks, beside the C limit where it is at hand (CASES="prod1 fetch")
	@scripts/bench $(CASES)

bench-gate: bench-programs ## every case that has a figure to reach against the C limit, medians of five rounds
	@scripts/bench-gate $(CASES)

fmt: ## format the Swift code in place
	@swift format --in-place --parallel --recursive Package.swift Plugins Sources Tests

tidy: ## the rules that no compiler checks: imports, banned calls, lengths, words
	@scripts/prepare build
	@swift test $(QUIETLY) --filter TidyTests 2>&1 | grep --invert-match --extended-regexp '^(Test Suite|.*Executed 0 tests)'; exit $${PIPESTATUS[0]}

simulate: ## run new seeds of the swarm (SEEDS=1000, MINUTES=10), or SEED=n to see one again
	@scripts/prepare tools
	@swift build $(QUIETLY) $(TESTED) --product martlet-simulate
	@scripts/simulate $(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(MINUTES),--minutes $(MINUTES))

fuzz: fuzzer ## fuzz what reads bytes from outside (MINUTES=60 in all, TARGET=batch, PLANTED=1 for the planted bugs, KEEP=1)
	@scripts/fuzz $(if $(MINUTES),--minutes $(MINUTES)) $(if $(TARGET),--target $(TARGET)) $(if $(PLANTED),--planted) $(if $(KEEP),--keep)

sanitize: .build/venv/made .build/sarama ## run the tests under the address sanitizer, and those of what threads share under the thread sanitizer
	@scripts/sanitize

.PHONY: fuzzer
fuzzer:
	@scripts/prepare tools
	@MARTLET_FUZZ=1 swift build $(QUIETLY) $(FUZZED) --product martlet-fuzz

.PHONY: bench-programs
bench-programs: build
	@scripts/prepare bench
	@swift build $(QUIETLY) $(RELEASE) --product martlet-bench

# Everything that `make test` runs against, built but not run.
.PHONY: tested
tested: .build/venv/made .build/sarama fuzzer
	@swift build $(QUIETLY) $(TESTED) --build-tests

.PHONY: prepared-for-tests
prepared-for-tests:
	@scripts/prepare test

.build/venv/made: Tests/Driven/requirements.txt | prepared-for-tests
	@rm -rf .build/venv && python3 -m venv .build/venv
	@.build/venv/bin/pip install --quiet --disable-pip-version-check --requirement $< && touch $@

.build/sarama: $(wildcard Tests/Driven/sarama/*.go) | prepared-for-tests
	@GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(CURDIR)/.build/go-cache CGO_CFLAGS=-Wno-deprecated-declarations go build -o $@ $^
