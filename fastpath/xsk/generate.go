package xsk

// The object is committed, so that a build needs no clang; `go generate` makes the
// same bytes again with clang 14 (Debian 12: clang, llvm, libbpf-dev), wherever the
// sources lie.
//
//go:generate go tool bpf2go -target bpfel -type ownership -type counter -type plane -type numbers -type prefix4_key -type prefix6_key steer steer/steer.bpf.c -- -O2 -g -Wall -Wextra -Werror -I/usr/include/x86_64-linux-gnu
