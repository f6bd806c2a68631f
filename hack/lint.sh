#!/usr/bin/env bash
# lint.sh PORTABLE...: few linters, no list of exceptions. The patterns name the
# packages that must also build for Windows.
set -euo pipefail

say() { printf 'lint: %s\n' "$*"; }
# clean NAME COMMAND...: a command that lists files must list none.
clean() {
	local name=$1 out
	shift
	say "$name"
	out=$("$@")
	[[ -z $out ]] || { printf '%s\n' "$out" >&2; echo "lint: run $name -w on these" >&2; exit 1; }
}

mapfile -t files < <(find . -path ./.git -prune -o -path ./.cache -prune -o -name '*.go' -type f -print)
mapfile -t written < <(grep -L '^// Code generated .* DO NOT EDIT\.$' "${files[@]}")
clean gofmt gofmt -s -l "${written[@]}"
clean goimports go tool goimports -l "${written[@]}"
say vet
go vet ./...
say staticcheck
go tool staticcheck ./...
say ineffassign
go tool ineffassign ./...
say 'build for linux/arm64'
GOOS=linux GOARCH=arm64 go vet ./... # types the tests too, and holds assembly against its Go
GOOS=linux GOARCH=arm64 go build ./...
say "build for windows: $*"
GOOS=windows GOARCH=amd64 go build "$@"
say scripts
for s in hack/*.sh .ci/run; do bash -n "$s"; done
say ok
