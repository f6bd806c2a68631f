#!/usr/bin/env bash
# generated.sh COMMAND...: runs the generator and fails when it changed a file.
# It compares the tree before with the tree after, not with git, so that it can be
# used on a tree with changes of one's own, and where there is no git.
set -euo pipefail

sums() {
	find . -path ./.git -prune -o -path ./.cache -prune -o -path ./bin -prune -o -type f -print0 |
		sort -z | xargs -0 sha256sum
}

before=$(sums)
"$@"
if ! changed=$(diff <(printf '%s\n' "$before") <(sums)); then
	printf '%s\n' "$changed" | awk '/^[<>]/{print $3}' | sort -u >&2
	echo "generate: these files are not what their sources give: commit what make generate writes" >&2
	exit 1
fi
echo "generate: no difference"
