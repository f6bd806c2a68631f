#!/usr/bin/env bash
# test.sh [-race]: runs the tests of every package, and prints one line for each
# test and its log, so that a skip shows its reason.
#
# One package at a time (-p 1): suites raise namespaces, veth pairs and workers
# that want whole cores, and two suites on two cores would fail each other's
# deadlines. A package's own tests may still run in parallel where they say so.
#
# -race leaves out what the detector cannot see or that has no second thread:
# AF_XDP rings live in memory shared with the kernel, arch and version only read
# source. Tests of other processes skip themselves (hostnettest.OfProcesses), long
# suites shorten themselves by testing.Short.
set -euo pipefail

blind='/(fastpath/xsk|internal/arch|internal/version)(/|$)'

packages=(./...)
compile=()
flags=(-count=1 -p 1 -timeout 10m)
if [[ ${1-} == -race ]]; then
	mapfile -t packages < <(go list ./... | grep -vE "$blind" || true)
	compile=(-race)
	flags+=(-race -short)
fi
[[ ${#packages[@]} -gt 0 ]] || exit 0

[[ $(id -u) -eq 0 ]] || echo "test: not root: tests that need namespaces will be skipped" >&2
started=$SECONDS

# Compile side by side first; -p 1 would do that one package at a time too. What
# does not compile is told by go test, at its package.
go list -export -test -deps "${compile[@]}" "${packages[@]}" >/dev/null 2>&1 || true

# Drop the lines that only say that a test begins, and passing rows of tables.
quiet='^=== (RUN|PAUSE|CONT|NAME)|^ +--- PASS|^PASS$|\[no test files\]$'
if go test -v "${flags[@]}" "${packages[@]}" 2>&1 | { grep --line-buffered -vE "$quiet" || true; }; then
	echo "test ${*:-plain}: ok in $((SECONDS - started)) s"
else
	echo "test ${*:-plain}: FAILED after $((SECONDS - started)) s" >&2
	exit 1
fi
