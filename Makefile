# SPDX-License-Identifier: Apache-2.0
#
# make build   bin/umrun
# make demo    the main job on this machine alone
# make test    install what is missing, then run every check and test
# make suites  Go's and CPython's own tests of networks and files, natively and under umrun
# make programs the table of docs/programs.md; needs root, installs servers and starts none
# make matrix  clients over every pair of stack and link: docs/matrix.md; needs root
# make lease   watch a lease of two minutes over its renewal and to its end (4 minutes); needs root
# make fuzz    run each fuzz target for FUZZTIME (10m); make test runs their seeds
# make bench   measure, side by side with the peers that are installed
# make conform the conformance cases alone: programs natively and under umrun; needs root
# make posix   what each kind of mount answers, held against a plain directory; needs root
# make check   vet, staticcheck, format; no network namespaces, no root

GO         ?= go
TOOLS      := $(CURDIR)/.cache/bin
STATICCHECK_VERSION := v0.8.2
TESTDATA_GO := $(patsubst %/main.go,./%,$(wildcard testdata/*/main.go testdata/*/*/main.go)) # which ./... leaves out

# The commands that the packages stand for, as COMMAND:PACKAGE, so that what is
# there already, from wherever it came, is not installed again.
BUILD_NEEDS := gcc:gcc pkg-config:pkg-config
BUILD_DEV   := libseccomp-dev
TEST_NEEDS  := make:make wireguard-go:wireguard-go wg:wireguard-tools dnsmasq:dnsmasq-base nginx:nginx-light \
	iperf3:iperf3 curl:curl wget:wget chromium:chromium sshd:openssh-server ssh:openssh-client git:git socat:socat \
	dig:bind9-dnsutils ping:iputils-ping traceroute:traceroute tracepath:iputils-tracepath mtr:mtr-tiny nmap:nmap fping:fping hping3:hping3 ip:iproute2 ethtool:ethtool ifconfig:net-tools strace:strace gdb:gdb tcpdump:tcpdump busybox:busybox-static \
	dbus-daemon:dbus dbus-send:dbus musl-gcc:musl-tools node:nodejs setpriv:util-linux rsync:rsync \
	vde_switch:vde-switch vde_plug:vdeplug vdens:vdens nc.openbsd:netcat-openbsd redis-server:redis-server redis-benchmark:redis-tools \
	dhclient:isc-dhcp-client arping:iputils-arping \
	mksquashfs:squashfs-tools genisoimage:genisoimage mkfs.vfat:dosfstools mcopy:mtools zip:zip unzip:unzip zstd:zstd xz:xz-utils \
	bindfs:bindfs squashfuse:squashfuse archivemount:archivemount fuse-zip:fuse-zip sshfs:sshfs fuse2fs:fuse2fs fusermount3:fuse3 \
	openvpn:openvpn openconnect:openconnect ocserv:ocserv danted:dante-server microsocks:microsocks tinyproxy:tinyproxy tor:tor
TEST_DEV    := gcc-multilib python3 libvdeplug-vlan
PROGRAM_NEEDS := apache2:apache2-bin haproxy:haproxy memcached:memcached mosquitto:mosquitto mosquitto_pub:mosquitto-clients \
	java:default-jre-headless javac:default-jdk-headless ruby:ruby php:php-cli /usr/bin/rustc:rustc mosh:mosh nmap:nmap \
	firefox-esr:firefox-esr
PROGRAM_DEV := postgresql-15 ruby-webrick

.PHONY: all build test conform posix check fuzz bench suites programs matrix lease demo deps-build deps-test clean
all: build

build: deps-build
	$(GO) build -trimpath -o bin/umrun ./cmd/umrun

# As root what is missing is installed; else the one command is named.
deps-build:
	@scripts/need-go.sh
	@scripts/need.sh "$(BUILD_NEEDS)" "$(BUILD_DEV)"

deps-test: deps-build
	@scripts/need.sh --optional "$(TEST_NEEDS)" "$(TEST_DEV)"

check: deps-build $(TOOLS)/staticcheck-$(STATICCHECK_VERSION)
	@test -z "$$(gofmt -s -l $$(git ls-files '*.go'))" || { gofmt -s -l $$(git ls-files '*.go'); echo 'gofmt -s -w these'; exit 1; }
	$(GO) vet ./... $(TESTDATA_GO)
	$(TOOLS)/staticcheck-$(STATICCHECK_VERSION) ./... $(TESTDATA_GO)

$(TOOLS)/staticcheck-$(STATICCHECK_VERSION):
	@mkdir -p $(TOOLS)
	GOBIN=$(TOOLS) $(GO) install honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION)
	@mv $(TOOLS)/staticcheck $@

# -p 1: namespaces and timing on two cores want one package at a time. A finding
# of check does not keep the tests from running, but the whole fails. Up to three tests
# that failed are run again alone, and named UNSTEADY if they pass; a leak never is.
test: deps-test build
	@status=0; $(MAKE) --no-print-directory check || status=1; \
	export UMRUN_BIN=$(CURDIR)/bin/umrun; \
	test "$$(id -u)" != 0 || export UMRUN_TEST_FULL=1; \
	$(GO) test -json -race -shuffle=on -count=1 -p 1 -timeout 40m ./... | \
		$(GO) run ./testdata/testsum -allowed testdata/allowed-skips.txt -again '$(GO) test -race -timeout 10m' || status=1; \
	exit $$status

conform: deps-test build
	UMRUN_BIN=$(CURDIR)/bin/umrun UMRUN_TEST_FULL=1 LAB_CONFORM=1 $(GO) test -json -count=1 -timeout 15m -run 'Transcripts|Cases' ./view/viewtest | \
		$(GO) run ./testdata/testsum

posix: deps-test build
	UMRUN_BIN=$(CURDIR)/bin/umrun UMRUN_TEST_FULL=1 $(GO) test -json -count=1 -timeout 10m -run '^TestPosix$$' ./view/viewtest | \
		$(GO) run ./testdata/testsum

fuzz: deps-build
	@GO=$(GO) scripts/fuzz.sh '$(or $(FUZZTIME),10m)' '$(FUZZ)'

bench: build
	$(GO) run ./testdata/bench

# In namespaces with nothing but lo: needs root, or unprivileged user namespaces.
suites: build
	@scripts/need.sh "" libpython3.11-testsuite
	$(GO) run ./testdata/suites

# All programs that people run on a network, as root since it makes namespaces;
# the programs themselves run as an ordinary user.
programs: deps-test build
	@scripts/need.sh "$(PROGRAM_NEEDS)" "$(PROGRAM_DEV)"
	UMRUN_BIN=$(CURDIR)/bin/umrun UMRUN_TEST_FULL=1 UMRUN_PROGRAMS=$(CURDIR)/docs/programs.md \
		$(GO) test -count=1 -timeout 40m -v -run '^TestPrograms$$' ./view/viewtest

matrix: deps-test build
	UMRUN_BIN=$(CURDIR)/bin/umrun UMRUN_TEST_FULL=1 LAB_MATRIX=$(CURDIR)/docs/matrix.md \
		$(GO) test -count=1 -timeout 40m -v -run '^TestMatrix$$' ./view/viewtest

lease: deps-test build
	UMRUN_BIN=$(CURDIR)/bin/umrun UMRUN_TEST_FULL=1 UMRUN_TEST_LEASE=1 $(GO) test -count=1 -timeout 10m -v -run '^TestIntegrationTwoMinutes$$' ./view/viewtest

demo: deps-build
	@scripts/need.sh "curl:curl" ""
	@$(MAKE) --no-print-directory build
	bin/umrun demo

clean:
	rm -rf bin .cache
