#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Runs every fuzz target whose package or name matches a regular expression, one
# after the other.
#
#   fuzz.sh TIME [PATTERN]
#
# TIME is that of each, as go test -fuzztime takes it. What fails is written to
# testdata/fuzz beside the target, where go test finds it from then on.
set -u
time=${1:?usage: fuzz.sh TIME [PATTERN]}
pattern=${2:-.}
failed=
out=$(mktemp)
trap 'rm -f "$out"' EXIT
for target in $(git grep --untracked -E '^func Fuzz[A-Z][A-Za-z0-9]*\(' -- '*_test.go' |
	sed -E 's,^(.*)/[^/]*:func (Fuzz[A-Za-z0-9]*).*,\1:\2,' | sort | grep -E -- "$pattern"); do
	dir=${target%:*}
	name=${target#*:}
	echo "== ./$dir $name"
	${GO:-go} test -run '^$' -fuzz "^$name\$" -fuzztime "$time" -fuzzminimizetime 10s "./$dir" >"$out" 2>&1
	status=$?
	grep elapsed "$out" | tail -n 1
	# The engine may report the end of its own time as a failure.
	if test $status != 0 && { grep -q 'Failing input\|panic' "$out" || ! grep -q 'context deadline exceeded' "$out"; }; then
		grep -v elapsed "$out"
		failed="$failed $dir:$name"
	fi
done
test -z "$failed" || { echo "failed:$failed"; exit 1; }
