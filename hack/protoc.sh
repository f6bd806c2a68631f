#!/usr/bin/env bash
# protoc.sh FILE.proto...: makes the Go code of protobuf contracts anew, with
# the plugins that go.mod pins. Paths are relative to the repository root.
set -euo pipefail
cd "$(dirname "$0")/.."
protoc \
	--plugin=protoc-gen-go="$(go tool -n protoc-gen-go)" \
	--plugin=protoc-gen-go-grpc="$(go tool -n protoc-gen-go-grpc)" \
	--go_out=. --go_opt=module=margay.dev/margay \
	--go-grpc_out=. --go-grpc_opt=module=margay.dev/margay \
	"$@"
