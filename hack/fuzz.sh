#!/usr/bin/env bash
# fuzz.sh REGEXP TIME: runs each fuzz target whose name matches for that long.
# Go takes one target at a time. What it finds is kept under testdata/fuzz of the
# package: commit it, it is a test from then on.
set -euo pipefail

match=$1 time=$2 ran=0
while IFS=: read -r file target; do
	[[ $target =~ $match ]] || continue
	echo "fuzz $target in $(dirname "$file") for $time"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$(dirname "$file")"
	ran=$((ran + 1))
done < <(go list -f '{{$d := .Dir}}{{range .TestGoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}{{range .XTestGoFiles}}{{$d}}/{{.}}{{"\n"}}{{end}}' ./... |
	sed "s#^$PWD/##" | xargs -r grep -HoE '^func Fuzz[A-Za-z0-9_]*\(' | sed -E 's/func (.*)\(/\1/')
echo "fuzz: $ran targets"
