#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Installs the Debian packages that are missing, or names the command that does.
#
#   need.sh [--optional] "COMMAND:PACKAGE..." "PACKAGE..."
#
# The first list is looked for as commands, the second with dpkg. With
# --optional an ordinary user is told, and the run goes on without.
set -eu
optional=no
if [ "$1" = --optional ]; then
	optional=yes
	shift
fi
PATH=$PATH:/usr/sbin:/sbin

missing=
for pair in $1; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
for package in $2; do
	dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ]; then
	echo "missing here:$missing" >&2
	echo "  sudo apt-get install -y --no-install-recommends$missing" >&2
	[ $optional = yes ] && exit 0
	exit 1
fi
if ! command -v apt-get >/dev/null 2>&1; then
	echo "missing here, and this is no Debian or Ubuntu:$missing" >&2
	exit 1
fi
export DEBIAN_FRONTEND=noninteractive
install() { apt-get install -y -q --no-install-recommends "$@" </dev/null >&2; }
# Servers that a package would start are not wanted: the tests run their own.
if [ ! -e /usr/sbin/policy-rc.d ]; then
	printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
	chmod +x /usr/sbin/policy-rc.d
	trap 'rm -f /usr/sbin/policy-rc.d' EXIT
fi
# shellcheck disable=SC2086 # the list is words
install $missing || { apt-get update -q </dev/null >&2 && install $missing; } || {
	[ $optional = yes ] || exit 1
	# One that this distribution lacks must not keep the others away; the test
	# that wants it will say so.
	for package in $missing; do
		install "$package" || echo "could not install $package" >&2
	done
}
