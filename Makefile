# The commands of this project. Everything works from a clean checkout with Go
# installed; what tests need besides is installed by test/setup.sh.

GO          ?= go
STATICCHECK  = honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build try test test-powercut test-package test-vm package check vet short fuzz cover bench bench-protocol clean

build: ## the program, static, in build/
	CGO_ENABLED=0 $(GO) build -trimpath -o build/lmtpd ./cmd/lmtpd

try: ## run the program without configuration
	$(GO) run ./cmd/lmtpd try

test: ## everything: static checks, then all tests with the race detector
	sh test/setup.sh
	$(MAKE) --no-print-directory vet
	$(GO) test -race ./...
	cd test/powercut && $(GO) test ./...

test-package: ## the Debian package on a booted systemd, with the real Postfix; ten minutes, as root
	test/package/run.sh

test-vm: ## the Debian package on Debian's own kernel in a virtual machine: AppArmor, Landlock, races, disk quota; five minutes, as root
	test/vm/run.sh

package: ## the Debian package, in build/deb
	packaging/debian/build.sh

POINTS ?= 40
test-powercut: ## power cuts at POINTS points of each file system's log, and failing disks; a quarter of an hour, as root
	sh test/setup.sh
	cd test/powercut && LMTPD_POWERCUT_POINTS=$(POINTS) $(GO) test -count=1 -v -timeout 4h ./...
	LMTPD_TEST_KILLS=60 $(GO) test -count=1 -v -run KilledUnderPostfix ./test

short: ## only the tests that need nothing but Go
	$(GO) test $$($(GO) list ./... | grep -v /test$$)

vet:
	$(GO) vet ./...
	@unformatted=$$(gofmt -l .); if [ -n "$$unformatted" ]; then echo "gofmt wants to change:"; echo "$$unformatted"; exit 1; fi
	$(GO) run $(STATICCHECK) ./...
	cd test/powercut && $(GO) vet ./... && $(GO) run $(STATICCHECK) ./...

FUZZTIME ?= 30s
fuzz: ## every fuzz target for FUZZTIME
	@set -e; for pkg in $$($(GO) list ./...); do \
		for f in $$($(GO) test -list '^Fuzz' $$pkg | grep '^Fuzz' || true); do \
			echo "$$pkg $$f"; $(GO) test -run '^$$' -fuzz "^$$f\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 10x $$pkg; \
		done; \
	done

cover: ## coverage of the packages, each by its own tests
	$(GO) test -cover $$($(GO) list ./... | grep -v /test$$)

bench: ## lmtpd, Dovecot, Postfix and the bare file system in turns, as root: renews bench/RESULTS.md
	sh bench/setup.sh
	$(GO) run ./bench delivery -out bench $(BENCHFLAGS)

bench-protocol: ## the protocol package, go-smtp and aiosmtpd in turns
	sh bench/setup.sh
	$(GO) run ./bench protocol -out bench $(BENCHFLAGS)

clean:
	rm -rf build lmtpd-try
