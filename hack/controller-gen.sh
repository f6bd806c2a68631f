#!/usr/bin/env bash
# controller-gen.sh PACKAGE...: makes deep copies, and the CRDs in deploy/crds, of
# API packages anew. The version is pinned in hack/controller-gen.mod, apart from
# go.mod, which would otherwise take on a few dozen modules for it.
set -euo pipefail
cd "$(dirname "$0")/.."
trap 'rm -f deploy/crds/_.yaml' EXIT # what it makes of kinds that have no version to store
paths=()
for p in "$@"; do paths+=("paths=$p"); done
go tool -modfile=hack/controller-gen.mod controller-gen \
	object crd:allowDangerousTypes=true output:crd:artifacts:config=deploy/crds "${paths[@]}"
