// Package policytest holds the tests of what policies must come to, over a whole
// lab with real packets: the cases of package truth, asked by package probe. It
// has no code of its own.
//
// With policies off the forwarder lets everything through, and exactly the cases
// that refuse something must fail. Kernel packet filters in the pods, made from
// the same policies by a converter that is too simple to be wrong, must pass:
// so prober and tables are shown to agree on refusals before an engine of ours is
// judged by them. A few cases go through kernels each time; all of them in some
// minutes:
//
//	go test ./internal/lab/policytest -run TestOverTheLab -every
package policytest
