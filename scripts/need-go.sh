#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Makes sure that there is a Go: from 1.21 on it fetches by itself the toolchain
# that go.mod names. As root it is installed where apt's is new enough.
set -eu
command -v go >/dev/null 2>&1 && exit 0
want=$(sed -n 's/^go //p' "$(dirname "$0")/../go.mod")

tell() {
	echo "Go is missing, and $1." >&2
	echo "  get it: https://go.dev/dl/ (Go $want), or: apt-get install -t bookworm-backports golang-go" >&2
	exit 1
}
command -v apt-get >/dev/null 2>&1 || tell "this is no Debian or Ubuntu"
has=$(apt-cache policy golang-go | sed -n 's/^ *Candidate: *2:\([0-9]*\.[0-9]*\).*/\1/p')
if [ -z "$has" ] && [ "$(id -u)" = 0 ]; then
	apt-get update -q </dev/null >&2
	has=$(apt-cache policy golang-go | sed -n 's/^ *Candidate: *2:\([0-9]*\.[0-9]*\).*/\1/p')
fi
[ -n "$has" ] && [ "${has%%.*}" -ge 1 ] && [ "${has#*.}" -ge 21 ] || tell "apt's golang-go ${has:-(none)} cannot fetch Go $want"
[ "$(id -u)" = 0 ] || tell "this is not root: sudo apt-get install -y golang-go"
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends golang-go ca-certificates </dev/null >&2
